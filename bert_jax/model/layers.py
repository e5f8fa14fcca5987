"""Small pieces: activations, norms, dense layers, dropout keyed per row."""

import enum
import math
from collections.abc import Callable, Sequence
from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp

Activation = Literal["gelu", "gelu_new", "relu", "silu", "tanh"]
# A dropout decision takes a byte: a quarter of the random words that one word
# a decision would need.
_LEVELS = 256


class DropoutSite(enum.IntEnum):
  """Places that draw from a row's key, each with a stream of its own."""

  EMBEDDINGS = 0
  LAYERS = 1
  HEAD = 2
  ATTENTION = 3
  ATTENTION_OUTPUT = 4
  OUTPUT = 5


def activation(name: Activation) -> Callable[[jax.Array], jax.Array]:
  """The function that `bert_config.json` calls `name`."""
  match name:
    case "gelu":
      return _gelu
    case "gelu_new":  # Google's code: the tanh approximation.
      return nn.gelu
    case "relu":
      return nn.relu
    case "silu":
      return nn.silu
    case "tanh":
      return jnp.tanh


def _gelu(x: jax.Array) -> jax.Array:
  # jax.nn.gelu(approximate=False) goes by erfc, which costs twice as much.
  return 0.5 * x * (1 + jax.lax.erf(x * 0.5**0.5))


def fold_in(keys_B: jax.Array | None, number: jax.Array | int):
  """A stream of its own for each row; None stays None."""
  if keys_B is None:
    return None
  return jax.vmap(jax.random.fold_in, (0, None))(keys_B, number)


def dropout(
    x: jax.Array, rate: float, keys_B: jax.Array | None, site: int
) -> jax.Array:
  """Zeroes elements with probability `rate`, keeping the expectation.

  The mask of a row depends on the row's key alone, so it is the same however
  a batch is split over devices or microbatches. A decision takes 8 random
  bits: `rate` is rounded to a multiple of 1/256 (.1 becomes .1016), and what
  is kept is scaled by the rounded rate, so the expectation is exact.

  Args:
    x: an array of at least three dimensions, rows first.
    rate: the probability of a zero.
    keys_B: a typed threefry key a row (other generators ignore all keys but
      the first under vmap), or None for no dropout.
    site: the place in the network; each has its own stream.
  """
  kept = round((1 - rate) * _LEVELS)
  if keys_B is None or kept == _LEVELS:
    return x
  keys_B = fold_in(keys_B, site)
  bits = jax.vmap(lambda key: _random_bytes(key, x.shape[1:]))(keys_B)
  scaled = x.astype(jnp.float32) * (_LEVELS / kept)
  return jnp.where(bits < kept, scaled, 0).astype(x.dtype)


def _random_bytes(key: jax.Array, shape: Sequence[int]) -> jax.Array:
  """Uniform uint32 below 256. Asking jax for uint8 costs a word a byte."""
  *outer, rows, columns = shape
  words = jax.random.bits(key, (*outer, -(-rows // 4), columns), jnp.uint32)
  parts = [(words >> shift) & 255 for shift in (0, 8, 16, 24)]
  return jnp.concatenate(parts, axis=-2)[..., :rows, :]


class Dense(nn.Module):
  """A linear layer, as one product of two matrices.

  Attributes:
    inputs: the trailing dimensions that are contracted.
    outputs: the dimensions that take their place.
    options: the model's options (`initializer_range`, `dtype`).
  """

  inputs: tuple[int, ...]
  outputs: tuple[int, ...]
  options: Any

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    kernel = self.param("kernel", initializer(self.options),
                        (*self.inputs, *self.outputs))
    bias = self.param("bias", nn.initializers.zeros, self.outputs)
    rows = x.shape[:x.ndim - len(self.inputs)]
    x, kernel, bias = (a.astype(self.options.dtype) for a in (x, kernel, bias))
    # Matrices, as the CPU's gradient of a product that contracts two
    # dimensions goes by a transposed copy.
    width = math.prod(self.inputs)
    y = x.reshape(-1, width) @ kernel.reshape(width, -1) + bias.reshape(1, -1)
    return y.reshape(*rows, *self.outputs)


def initializer(options) -> nn.initializers.Initializer:
  """tf.truncated_normal_initializer: cut at two deviations, not rescaled."""
  return nn.initializers.truncated_normal(options.initializer_range)
