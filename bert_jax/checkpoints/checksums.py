"""Checksums of arrays, the same however they lie on devices.

Sums modulo 2^32 of the bits, each word times an odd number of its position:
integers add up alike in any order, and no change of a single word is missed.
"""

from typing import Any

import jax
import jax.numpy as jnp

from bert_jax.training import numerics
from bert_jax.training.param_paths import leaves

_WORD = {1: jnp.uint8, 2: jnp.uint16, 4: jnp.uint32}


def checksums(tree: Any) -> dict[str, int]:
  """The checksum of every array by its path."""
  # A program for each shape, which other runs of the process have, too.
  values = jax.device_get({path: _checksum(x) for path, x
                           in leaves(tree).items()})
  return {path: int(value) for path, value in values.items()}


@numerics.jit
def _checksum(array: jax.Array) -> jax.Array:
  # Eight bytes become two words of four.
  words = jax.lax.bitcast_convert_type(
      array, _WORD[min(4, array.dtype.itemsize)]).astype(jnp.uint32)
  position = jnp.zeros(words.shape, jnp.uint32)
  for axis, size in enumerate(words.shape):
    position = position * jnp.uint32(size) + jax.lax.broadcasted_iota(
        jnp.uint32, words.shape, axis)
  return jnp.sum(words * (2 * position + 1), dtype=jnp.uint32)
