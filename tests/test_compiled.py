import jax
import jax.numpy as jnp
import pytest
from jax.experimental.compilation_cache import compilation_cache

from bert_jax.cli import main


@pytest.fixture
def folder(tmp_path, monkeypatch):
  monkeypatch.setenv("BERT_JAX_CACHE", str(tmp_path))
  monkeypatch.setattr(main, "_CACHED_SECONDS", 0.0)
  names = ("jax_compilation_cache_dir",
           "jax_persistent_cache_min_compile_time_secs")
  before = {name: getattr(jax.config, name) for name in names}
  yield tmp_path / "compiled"
  for name, value in before.items():
    jax.config.update(name, value)
  compilation_cache.reset_cache()


def test_compiled_functions_are_cached(folder):
  entries = []
  for _ in range(2):  # As in two processes.
    compilation_cache.reset_cache()
    jax.clear_caches()
    main.use_compilation_cache()
    jax.jit(lambda x_BD: jnp.tanh(x_BD @ x_BD))(jnp.ones((3, 3)))
    entries.append({path.name: path.stat().st_mtime_ns
                    for path in folder.glob("*-cache")})
  assert entries[0] and entries[0] == entries[1]
