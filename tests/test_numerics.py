"""Settings of the process change no types, no random bits, and no result."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bert_jax.checkpoints import environment
from bert_jax.studies.members import results as member_results
from bert_jax.training import numerics
from tests.small_run import other_settings

SEEDS = np.array([0, 1, -1, 2**31 - 1, -2**31], np.int32)


def draw(seed: jax.Array) -> dict[str, jax.Array]:
  """With the defaults of jax: what pages and libraries leave open."""
  return {"default": jax.random.uniform(jax.random.key(seed), (3,)),
          "named": jax.random.bits(numerics.key(seed), (3, 5)),
          "zeros": jnp.zeros(2), "numbers": jnp.arange(3),
          "sum": jnp.ones(3, jnp.int32).sum()}


def test_compiled_function_depends_on_no_setting():
  usual = [jax.jit(draw)(seed) for seed in SEEDS]
  with other_settings():
    same = [numerics.jit(draw)(seed) for seed in SEEDS]
    other = [jax.jit(draw)(seed) for seed in SEEDS]
    assert numerics.eval_shape(draw, SEEDS[0])["zeros"].dtype == np.float32
  kinds = lambda trees: jax.tree.map(lambda x: (x.dtype, x.tobytes()),
                                     jax.device_get(trees))
  assert kinds(same) == kinds(usual)
  for key in ("default", "named", "zeros", "numbers", "sum"):
    assert kinds(other[0])[key] != kinds(usual[0])[key], "a setting is idle"


def test_key_is_that_of_jax_for_an_int32():
  for seed in SEEDS:
    np.testing.assert_array_equal(jax.random.key_data(numerics.key(seed)),
                                  jax.random.key_data(jax.random.key(seed)))


def test_environment_names_what_differs(monkeypatch, tmp_path):
  member_results.write(tmp_path / "results.json", [], {})
  before = environment.rounding()
  assert not environment.differences(before)
  assert not environment.differences(before | {"of another version": "1"})
  monkeypatch.setenv("LIBTPU_INIT_ARGS", "--fast")
  with jax.default_matmul_precision("bfloat16"):
    assert environment.differences(before | {"jax": "0.1"}).endswith(
        f"differ: jax {jax.__version__} (was 0.1), "
        "jax_default_matmul_precision bfloat16 (was None), "
        "LIBTPU_INIT_ARGS --fast (was not set).")
    with pytest.warns(UserWarning, match="LIBTPU_INIT_ARGS --fast"):
      assert not member_results.read(tmp_path / "results.json", {})
