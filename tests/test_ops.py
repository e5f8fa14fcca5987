"""Operations whose form or gradient is not XLA's own."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import log_ndtr

from bert_jax.model import ops
from bert_jax.model.gelu import gelu
from bert_jax.model.norms import LayerNorm, RmsNorm
from bert_jax.training import numerics

# Below it a factor may be too small for float32, and XLA make it 0.
_SMALLEST = 1e-35


@pytest.mark.parametrize("derivative", [False, True])
def test_gelu_of_every_bfloat16_is_rounded_correctly(derivative):
  bits = np.arange(65536, dtype=np.uint16)
  x = bits[bits & 0x7F80 != 0x7F80].view(jnp.bfloat16)  # All that are finite.
  exact = x.astype(np.float64)
  phi = np.exp(log_ndtr(exact))
  expected = exact * phi
  if derivative:
    with np.errstate(over="ignore"):
      expected = phi + exact * np.exp(-exact**2 / 2) / np.sqrt(2 * np.pi)
  slope = lambda x: jax.vjp(gelu, x)[1](jnp.ones_like(x))[0]
  y = np.asarray(numerics.jit(slope if derivative else gelu)(x))

  large = np.abs(expected) > _SMALLEST
  np.testing.assert_array_equal(y[large].astype(float), expected[large].astype(
      jnp.bfloat16).astype(float))
  assert np.all(np.abs(y[~large].astype(float)) <= _SMALLEST)


def test_gelu_of_bfloat16_keeps_one_array():
  x = jnp.ones((4, 8), jnp.bfloat16)
  kept = jax.tree.leaves(jax.vjp(gelu, x)[1])
  assert [(a.shape, a.dtype) for a in kept] == [(x.shape, x.dtype)]


@pytest.mark.parametrize("norm", [LayerNorm(), LayerNorm(bias=False),
                                  RmsNorm(), RmsNorm(bias=True)], ids=str)
def test_norm_gradients_are_those_of_its_formula(norm):
  draw = lambda seed, *shape: jax.random.normal(numerics.key(seed), shape)
  module, x, direction = norm.build(1e-6), draw(0, 2, 3, 8), draw(1, 2, 3, 8)
  params = jax.tree.map(lambda p: p + draw(2, *p.shape),
                        module.init(numerics.key(0), x))

  def formula(params, x):
    y = x - x.mean(-1, keepdims=True) if isinstance(norm, LayerNorm) else x
    y = y / jnp.sqrt((y * y).mean(-1, keepdims=True) + 1e-6)
    vectors = jax.tree.map(lambda p: p[None, None], params["params"])
    return y * vectors["scale"] + vectors.get("bias", 0)

  y, gradients = jax.vjp(module.apply, params, x)
  expected, expected_gradients = jax.vjp(formula, params, x)
  np.testing.assert_allclose(y, expected, atol=1e-5)
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5),
               gradients(direction), expected_gradients(direction))


def test_norm_of_bfloat16_keeps_no_float32_vectors():
  module, x = LayerNorm().build(1e-6), jnp.ones((4, 6, 8), jnp.bfloat16)
  params = module.init(numerics.key(0), x)
  kept = jax.tree.leaves(jax.vjp(module.apply, params, x)[1])
  assert [a.dtype for a in kept if a.size >= x.size] == [x.dtype]


@pytest.mark.parametrize("shape", [(2, 3), (5,)])
def test_cross_entropy_and_hits_are_of_each_label(shape):
  logits = jax.random.normal(numerics.key(0), (*shape, 7))
  labels = jnp.argmax(logits, axis=-1).at[0].set(0)
  log_probability = np.log(np.exp(logits) / np.exp(logits).sum(-1)[..., None])
  np.testing.assert_allclose(
      ops.cross_entropy(logits, labels), -np.take_along_axis(
          log_probability, np.asarray(labels)[..., None], -1)[..., 0],
      rtol=1e-5)
  np.testing.assert_array_equal(ops.hits(logits, labels),
                                labels == jnp.argmax(logits, axis=-1))
