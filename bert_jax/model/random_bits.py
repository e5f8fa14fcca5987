"""Random words that depend on a key and a place alone.

A counter hash in plain integer arithmetic: XLA and a kernel draw the same
words, whatever part of an array a device or a block computes. Strong hashes of
a row and of a column are joined at each place by two products, five operations
where threefry takes about a hundred.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

# Multipliers of MurmurHash3's finalizer (Appleby 2016), of lowbias32
# (Wellons 2018), and the golden ratio.
_MURMUR = 0x85EBCA6B, 0xC2B2AE35
_LOW_BIAS = 0x7FEB352D, 0x846CA68B
_GOLDEN = 0x9E3779B9


class Key(NamedTuple):
  """Two int32 words for each stream."""

  first: jax.Array
  second: jax.Array


def of_keys(keys_B: jax.Array) -> Key:
  """From typed keys of jax, `[B]`."""
  words = jax.lax.bitcast_convert_type(jax.random.key_data(keys_B), jnp.int32)
  return Key(words[..., 0], words[..., -1])


def fold_in(key: Key, number: jax.Array | int) -> Key:
  """A stream of its own for each number."""
  return Key(_mix(key.first + (number + 1) * _int(_GOLDEN)),
             _mix(key.second ^ number))


def row_words(key: Key, row: jax.Array) -> jax.Array:
  """What a row gives to the words of its places, int32."""
  return _mix(_mix(row ^ key.first) + key.second)


def column_words(key: Key, column: jax.Array) -> jax.Array:
  """What a column gives to the words of its places, int32."""
  return _mix(_mix(column ^ ~key.second) + key.first)


def join(row: jax.Array, column: jax.Array) -> jax.Array:
  """Uniform int32 words of `row_words` and `column_words`, broadcast.

  Of a sum and the first product alone, bits at two rows and two columns
  together depend on each other; the second is for certainty.
  """
  x = (row ^ column) * _int(_LOW_BIAS[0])
  return (x ^ _right(x, 16)) * _int(_LOW_BIAS[1])


def bound(probability: jax.Array | float) -> jax.Array:
  """The int32 that a word exceeds with 1 - probability, to 24 bits."""
  parts = jnp.round(jnp.asarray(probability, jnp.float32) * 2.0**24)
  # All words are at most the bound of 1: the sum wraps around.
  return (parts.astype(jnp.int32) << 8) + jnp.int32(2**31 - 1)


def _mix(x: jax.Array) -> jax.Array:
  x = (x ^ _right(x, 16)) * _int(_MURMUR[0])
  x = (x ^ _right(x, 13)) * _int(_MURMUR[1])
  return x ^ _right(x, 16)


def _right(x: jax.Array, bits: int) -> jax.Array:
  return jax.lax.shift_right_logical(x, jnp.full_like(x, bits))


def _int(word: int) -> jax.Array:
  return jnp.int32(word - (1 << 32) if word >> 31 else word)
