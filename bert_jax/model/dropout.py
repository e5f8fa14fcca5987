"""Dropout that draws from one key a row."""

import enum

import jax
import jax.numpy as jnp

from bert_jax.model.ops import random_bytes

_LEVELS = 256  # of a random byte


class DropoutSite(enum.IntEnum):
  """Places that draw from a row's key, each with a stream of its own."""

  EMBEDDINGS = 0
  LAYERS = 1
  HEAD = 2
  ATTENTION = 3
  ATTENTION_OUTPUT = 4
  OUTPUT = 5


def fold_in(keys_B: jax.Array | None, number: jax.Array | int):
  """A stream of its own for each row; None stays None."""
  if keys_B is None:
    return None
  return jax.vmap(jax.random.fold_in, (0, None))(keys_B, number)


def dropout(
    x: jax.Array, rate: float | jax.Array, keys_B: jax.Array | None, site: int
) -> jax.Array:
  """Zeroes elements with probability `rate`, keeping the expectation.

  The mask of a row depends on the row's key alone, so it is the same however
  a batch is split over devices or microbatches. A decision takes 8 random
  bits: `rate` is rounded to a multiple of 1/256 (.1 becomes .1016), and what
  is left is scaled by the rounded rate, so the expectation is exact.

  Args:
    x: an array of at least three dimensions, rows first.
    rate: the probability of a zero, a number or a traced scalar.
    keys_B: a typed threefry key a row (other generators ignore all keys but
      the first under vmap), or None for no dropout.
    site: the place in the network; each has its own stream.
  """
  traced = isinstance(rate, jax.Array)
  kept = jnp.round((1 - rate) * _LEVELS) if traced else round(
      (1 - rate) * _LEVELS)
  if keys_B is None or not traced and kept == _LEVELS:
    return x
  keys_B = fold_in(keys_B, site)
  bits = jax.vmap(lambda key: random_bytes(key, x.shape[1:]))(keys_B)
  scaled = x.astype(jnp.float32) * (_LEVELS / kept)
  return jnp.where(bits < jnp.asarray(kept, bits.dtype), scaled,
                   0).astype(x.dtype)
