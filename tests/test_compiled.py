import jax
import jax.numpy as jnp
import pytest
from jax.experimental.compilation_cache import compilation_cache

from bert_jax.cli import main


@pytest.fixture
def folder(tmp_path, monkeypatch):
  monkeypatch.setenv("BERT_JAX_CACHE", str(tmp_path))
  settings = {"jax_compilation_cache_dir": None,
              "jax_persistent_cache_min_compile_time_secs": 0.0}
  before = {name: getattr(jax.config, name) for name in settings}
  for name, value in settings.items():
    jax.config.update(name, value)
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


@pytest.mark.parametrize("own", ["own", ""])
def test_cache_folder_of_the_user_stays(folder, own):
  jax.config.update("jax_compilation_cache_dir", own)
  main.use_compilation_cache()
  assert jax.config.jax_compilation_cache_dir == own
