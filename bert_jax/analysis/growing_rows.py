"""Rows of texts that are written token by token, on the host."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from bert_jax.objectives.base import Batch


class GrowingRows:
  """Texts that grow, in rows of `tokens`.

  Attributes:
    lengths_B: tokens of each so far.
  """

  def __init__(self, starts: Sequence[Sequence[int]], tokens: int, pad: int,
               is_prefix: bool):
    self.tokens = tokens
    self.lengths_B = np.array([len(start) for start in starts])
    self._sources_B = self.lengths_B.copy() if is_prefix else np.ones_like(
        self.lengths_B)
    self._ids_BL = np.full((len(starts), tokens), pad, np.int32)
    self._order: np.ndarray | None = None
    for row_L, start in zip(self._ids_BL, starts):
      row_L[:len(start)] = start

  def append(self, ids_B: np.ndarray) -> None:
    self._ids_BL[np.arange(len(ids_B)), self.lengths_B] = ids_B
    self.lengths_B = self.lengths_B + 1

  def reorder(self, rows: Sequence[int]) -> None:
    """Row i becomes what row `rows[i]` was."""
    self._order = np.array(rows)
    self._ids_BL = self._ids_BL[self._order]

  def reordered(self, cache: Any) -> Any:
    """What was kept, in the order of the rows; its arrays are (N, B, ...) below
    any number of layers' dimensions."""
    if self._order is None:
      return cache
    order, self._order = self._order, None
    # A key or value is (B, M, H, K) behind the layers.
    return jax.tree.map(lambda x: jnp.take(x, order, axis=x.ndim - 4), cache)

  def batch(self) -> Batch:
    """The complete rows."""
    place_BL = np.broadcast_to(np.arange(self.tokens, dtype=np.int32),
                               self._ids_BL.shape)
    real_BL = place_BL < self.lengths_B[:, None]
    return {
        "input_ids": self._ids_BL, "position_ids": place_BL,
        "token_type_ids": np.zeros_like(self._ids_BL),
        "example_ids": real_BL.astype(np.int32),
        "order": np.maximum(place_BL - self._sources_B[:, None] + 1, 0).astype(
            np.int32)}

  def token(self) -> tuple[Batch, np.ndarray]:
    """The last token of each row, and its place."""
    place_B = self.last()
    take = lambda x_BL: np.take_along_axis(x_BL, place_B[:, None], 1)
    return {name: take(x_BL) for name, x_BL in self.batch().items()
            if name != "order"}, place_B

  def last(self) -> np.ndarray:
    return (self.lengths_B - 1).astype(np.int32)
