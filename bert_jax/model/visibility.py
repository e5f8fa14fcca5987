"""Which token may see which."""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp

from bert_jax.config import Choice, UserError


class Context(NamedTuple):
  """What every layer knows of the tokens.

  Attributes:
    example_ids_BL: the packed example of each token; 0 is padding.
    order_BL: a token sees those whose order is not later; None: all.
    position_ids_BL: positions, 0, 1, 2, ... in each packed example.
    bias_HA: added to the scores of all layers, by the place of a key in its row
      minus that of the query, from 1 - L to L - 1; float32, or None.
    lengths_B: tokens of each row, where a row has one example, which it begins
      with; None: it may have several.
    place_B: where in its row the one token of each row stands, whose text is
      written token by token; None: the rows are complete.
  """

  example_ids_BL: jax.Array
  order_BL: jax.Array | None
  position_ids_BL: jax.Array
  bias_HA: jax.Array | None
  lengths_B: jax.Array | None = None
  place_B: jax.Array | None = None


def visible(example_ids_BL: jax.Array, order_BL: jax.Array | None = None,
            reach: jax.Array | int | None = None) -> jax.Array:
  """(B, L, L): whether query L may see key M.

  A key is visible if it is of the same example, its order is not later, and it
  is at most `reach` tokens away (None: at any distance). Padding is seen by
  nobody; a padding query sees every example, as in models with a plain padding
  mask, so that their outputs are reproduced there too.
  """
  query, key = (lambda x_BL: x_BL[:, :, None]), (lambda x_BL: x_BL[:, None])
  examples = query(example_ids_BL)
  visible_BLM = (((examples == key(example_ids_BL)) | (examples == 0))
                 & (key(example_ids_BL) != 0))
  if order_BL is not None:
    visible_BLM &= key(order_BL) <= query(order_BL)
  if reach is not None:
    index_1L = jnp.arange(example_ids_BL.shape[1])[None]
    visible_BLM &= jnp.abs(query(index_1L) - key(index_1L)) <= reach
  return visible_BLM


class Locality(Choice):
  """How far a token attends, layer by layer.

  Layers may be computed in a loop, where `layer` is a traced integer.
  """

  def reach(self, layer: jax.Array | int) -> jax.Array | int | None:
    """Tokens on each side, or None: all."""
    raise NotImplementedError

  def rotary_base(self, layer: jax.Array | int,
                  base: float) -> jax.Array | float:
    """The base of rotary positions, by default the same in all layers."""
    return base


@dataclasses.dataclass(frozen=True)
class GlobalLocality(Locality):
  """Full attention: each token attends to its entire example."""

  def reach(self, layer):
    return None


@dataclasses.dataclass(frozen=True)
class WindowLocality(Locality):
  """Sliding windows of `size` tokens on each side (Longformer, Beltagy et al.
  2020, without its global tokens). Computed densely: it saves nothing.

  Attributes:
    size: how many tokens a token attends to on each side.
  """

  size: int = 64

  def __post_init__(self):
    _check_size(self.size)

  def reach(self, layer):
    return self.size


@dataclasses.dataclass(frozen=True)
class AlternatingLocality(Locality):
  """Full attention in layers 0, every, 2 every, ..., sliding windows in the
  others (ModernBERT: Warner et al. 2024).

  Attributes:
    every: period of the layers with full attention: 3 is every third layer,
      from layer 0 on.
    size: how many tokens a token attends to on each side, in a window.
    window_base: base of rotary positions in the layers with a window; the
      others have `model.positions.base`.
  """

  every: int = 3
  size: int = 64
  window_base: float = 10_000.0

  def __post_init__(self):
    _check_size(self.size)
    if self.every < 1:
      raise UserError(f"model.locality.every={self.every}: at least 1.")

  def reach(self, layer):
    return jnp.where(layer % self.every == 0, jnp.iinfo(jnp.int32).max,
                     self.size)

  def rotary_base(self, layer, base):
    return jnp.where(layer % self.every == 0, base, self.window_base)


def _check_size(size: int) -> None:
  if size < 0:
    raise UserError(f"model.locality.size={size}: at least 0.")
