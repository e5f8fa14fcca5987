"""Mathematics in the form that XLA computes fastest."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import log_ndtr

from bert_jax.model import ops
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
  slope = lambda x: jax.vjp(ops.gelu, x)[1](jnp.ones_like(x))[0]
  y = np.asarray(numerics.jit(slope if derivative else ops.gelu)(x))

  large = np.abs(expected) > _SMALLEST
  np.testing.assert_array_equal(y[large].astype(float), expected[large].astype(
      jnp.bfloat16).astype(float))
  assert np.all(np.abs(y[~large].astype(float)) <= _SMALLEST)


def test_gelu_of_bfloat16_keeps_one_array():
  x = jnp.ones((4, 8), jnp.bfloat16)
  kept = jax.tree.leaves(jax.vjp(ops.gelu, x)[1])
  assert [(a.shape, a.dtype) for a in kept] == [(x.shape, x.dtype)]
