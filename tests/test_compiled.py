import os
import warnings
import zlib

import jax
import jax.numpy as jnp
import pytest
from jax.experimental.compilation_cache import compilation_cache

from bert_jax.cli import compile_cache


@pytest.fixture
def folder(tmp_path):
  names = ("jax_compilation_cache_dir",
           "jax_persistent_cache_min_compile_time_secs")
  before = {name: getattr(jax.config, name) for name in names}
  yield tmp_path
  for name, value in before.items():
    jax.config.update(name, value)
  compilation_cache.reset_cache()


def start(folder, monkeypatch):
  """As another process: compiles a function, or takes it from the folder."""
  monkeypatch.setattr(compile_cache, "_LEAST_SECONDS", 0.0)
  compilation_cache.reset_cache()
  jax.clear_caches()
  compile_cache.keep(folder)
  with warnings.catch_warnings(record=True) as told:
    warnings.simplefilter("always")
    jax.jit(lambda x_BD: jnp.tanh(x_BD @ x_BD))(jnp.ones((3, 3)))
  return [warning for warning in told if "cache" in str(warning.message)]


def entries(folder):
  return {path.name: path.stat().st_mtime_ns for path in folder.glob("*-cache")}


@pytest.mark.parametrize("size", [0, 100, None])
def test_what_was_cut_off_is_compiled_again_and_kept(folder, monkeypatch, size):
  assert not start(folder, monkeypatch)
  whole = {path: path.read_bytes() for path in folder.glob("*-cache")}
  kept = entries(folder)
  assert whole and not start(folder, monkeypatch) and entries(folder) == kept
  for path, data in whole.items():
    path.write_bytes(data[:size] if size is not None else data[:-1])
  assert not start(folder, monkeypatch)
  assert entries(folder).keys() == kept.keys()
  assert all(compile_cache._is_whole(path) for path in whole)


def test_an_entry_is_looked_at_once(tmp_path, monkeypatch):
  (tmp_path / "a-cache").write_bytes(zlib.compress(b"a"))
  asked = []
  monkeypatch.setattr(compile_cache, "_is_whole",
                      lambda path: asked.append(path)
                      or True)
  compile_cache._remove_damaged(tmp_path)
  assert len(asked) == 1
  os.utime(tmp_path / "a-cache", (1, 1))
  compile_cache._remove_damaged(tmp_path)
  assert len(asked) == 1
