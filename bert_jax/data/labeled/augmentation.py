"""Augmentation: training texts a little changed, otherwise in every epoch.

What is changed is a function of (data, seed, epoch, example) like everything
in a row. Special tokens stay, and so do labels.
"""

import dataclasses
from typing import Any, ClassVar

import numpy as np

from bert_jax.config import Choice, UserError
from bert_jax.data.labeled.encoded import Encoded


@dataclasses.dataclass(frozen=True)
class Augmentation(Choice):
  """How the training texts of an epoch are changed."""

  keeps_places: ClassVar[bool] = False  # of all tokens, and their number

  def check(self, encoded: Encoded, kind: str) -> None:
    """
    Raises:
      UserError: labels belong to places that would be lost.
    """
    if (encoded.of_tokens or encoded.positions) and not self.keeps_places:
      raise UserError(f"data.augmentation={self.choice_name} moves tokens, and "
                      f"labels of the kind {kind!r} belong to tokens; allowed: "
                      "none, masking.")

  def apply(self, encoded: Encoded, vocabulary: Any,
            rng: np.random.Generator) -> Encoded:
    raise NotImplementedError


@dataclasses.dataclass(frozen=True)
class NoAugmentation(Augmentation, name="none"):
  """No augmentation: texts as they are."""

  keeps_places: ClassVar = True

  def apply(self, encoded: Encoded, vocabulary: Any,
            rng: np.random.Generator) -> Encoded:
    return encoded


@dataclasses.dataclass(frozen=True)
class _Random(Augmentation):
  """Each token with the same probability.

  Attributes:
    rate: probability that a token is changed.
  """

  rate: float = 0.1

  def __post_init__(self):
    if not 0 <= self.rate < 1:
      raise UserError(f"data.augmentation.rate={self.rate}: at least 0 and "
                      "below 1.")


@dataclasses.dataclass(frozen=True)
class DroppingAugmentation(_Random):
  """Tokens are left out; of a text that would be empty, all stay."""

  def apply(self, encoded: Encoded, vocabulary: Any,
            rng: np.random.Generator) -> Encoded:
    keep_T = rng.random(len(encoded.tokens_T)) >= self.rate
    texts = encoded.texts()
    before = np.concatenate([[0], np.cumsum(keep_T)])
    for start, length in texts:
      gone = before[start + length] == before[start]
      for i in np.flatnonzero(gone):
        keep_T[start[i]:start[i] + length[i]] = True
    before = np.concatenate([[0], np.cumsum(keep_T)])
    return encoded.cut(encoded.tokens_T[keep_T], [
        (before[start], before[start + length] - before[start])
        for start, length in texts])


@dataclasses.dataclass(frozen=True)
class SwappingAugmentation(_Random):
  """Tokens change places with their neighbor, none twice."""

  def apply(self, encoded: Encoded, vocabulary: Any,
            rng: np.random.Generator) -> Encoded:
    count = len(encoded.tokens_T)
    follows = np.zeros(count + 1, np.int32)  # after the first of a text
    for start, length in encoded.texts():
      np.add.at(follows, start + np.minimum(length, 1), 1)
      np.add.at(follows, start + length, -1)
    swap = rng.random(count) < self.rate
    second = np.flatnonzero(swap & ~np.roll(swap, 1)
                            & (np.cumsum(follows)[:-1] > 0))
    order = np.arange(count)
    order[second], order[second - 1] = second - 1, second
    return encoded.cut(encoded.tokens_T[order], encoded.texts())


@dataclasses.dataclass(frozen=True)
class MaskingAugmentation(_Random):
  """Tokens are replaced by [MASK]."""

  keeps_places: ClassVar = True

  def apply(self, encoded: Encoded, vocabulary: Any,
            rng: np.random.Generator) -> Encoded:
    masked = rng.random(len(encoded.tokens_T)) < self.rate
    return dataclasses.replace(encoded, tokens_T=np.where(
        masked, vocabulary.mask_id, encoded.tokens_T).astype(np.int32))
