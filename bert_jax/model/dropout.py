"""Dropout that draws from one key a row."""

import enum

import jax
import jax.numpy as jnp

from bert_jax.model import random_bits


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

  Whether an element is zeroed depends on the row's key and on its place alone,
  so it is the same however a batch is split over devices or microbatches, and
  in a kernel that draws for a part of an array.

  Args:
    x: an array of three dimensions or four, rows first.
    rate: the probability of a zero, a number or a traced scalar.
    keys_B: a typed key a row, or None for no dropout.
    site: the place in the network; each has its own stream.
  """
  if not drops(rate, keys_B):
    return x
  with jax.named_scope("dropout"):
    key = random_bits.of_keys(fold_in(keys_B, site))
    return _dropped(x, key, random_bits.bound(1 - rate),
                    jnp.float32(1 / (1 - rate)))


@jax.custom_vjp
def _dropped(x: jax.Array, key: random_bits.Key, bound: jax.Array,
             scale: jax.Array) -> jax.Array:
  """Of words up to `bound` the elements, scaled. The backward pass draws the
  words again: kept, they would be an array of the size of `x`."""
  scaled = x.astype(jnp.float32) * scale
  return jnp.where(_words(key, x.shape) <= bound, scaled, 0).astype(x.dtype)


def _forward(x, key, bound, scale):
  return _dropped(x, key, bound, scale), (key, bound, scale)


def _backward(drawn, gradient):
  return _dropped(gradient, *drawn), None, None, None


_dropped.defvjp(_forward, _backward)


def _words(key: random_bits.Key, shape: tuple[int, ...]) -> jax.Array:
  """A word for each element of an array that leads with rows."""
  if len(shape) == 4:  # As attention weights: a stream for each head.
    key = random_bits.fold_in(
        random_bits.Key(*(word[:, None] for word in key)),
        jnp.arange(shape[1])[None])
  key = random_bits.Key(*(word[..., None] for word in key))
  rows, columns = (jnp.arange(size).reshape((1,) * (len(shape) - 2) + (-1,))
                   for size in shape[-2:])
  return random_bits.join(
      random_bits.row_words(key, rows)[..., :, None],
      random_bits.column_words(key, columns)[..., None, :])


def drops(rate: float | jax.Array, keys_B: jax.Array | None) -> bool:
  """Whether anything may be zeroed."""
  return keys_B is not None and (isinstance(rate, jax.Array) or rate > 0)
