"""A labelled set in tokens, of any kind.

Dimensions: X examples, E of them in a row of L tokens; T tokens of the set. An
example may have several segments in its row, each with a [CLS] of its own.
"""

import dataclasses
from collections.abc import Mapping

import numpy as np

from bert_jax.data.formats import Examples


@dataclasses.dataclass(frozen=True, eq=False)
class Encoded:
  """A labelled set in tokens.

  Attributes:
    tokens_T: all texts end to end.
    slices: the texts of every segment, `segments` of them for each example.
    of_examples: by batch key, an array that leads with X; in a row it leads
      with E.
    of_tokens: by batch key, int32 (T,); in a row (L,), at the tokens of each
      segment's first text.
    positions: by batch key, int32 (X,): a place counted from the example's
      first [CLS]; in a row (E,), counted from the row's beginning.

  Where nothing is, a row has -1 (whole numbers) or 0.
  """

  tokens_T: np.ndarray
  slices: Examples
  segments: int = 1
  of_examples: Mapping[str, np.ndarray] = dataclasses.field(
      default_factory=dict)
  of_tokens: Mapping[str, np.ndarray] = dataclasses.field(default_factory=dict)
  positions: Mapping[str, np.ndarray] = dataclasses.field(default_factory=dict)

  def __len__(self) -> int:
    return len(self.slices) // self.segments

  @property
  def lengths_X(self) -> np.ndarray:
    """Tokens of each example with all its special ones."""
    return self.slices.lengths_X.reshape(-1, self.segments).sum(1)

  def arrays(self) -> list[np.ndarray]:
    slices = self.slices
    return [self.tokens_T, slices.a_start_X, slices.lengths_X,
            *self.of_examples.values(), *self.of_tokens.values(),
            *self.positions.values()]

  def texts(self) -> list[tuple[np.ndarray, np.ndarray]]:
    """Starts and lengths of all first texts, and of all second ones."""
    slices = self.slices
    first = [(slices.a_start_X, slices.a_length_X)]
    if slices.b_start_X is None:
      return first
    return [*first, (slices.b_start_X, slices.b_length_X)]

  def cut(self, tokens_T: np.ndarray,
          texts: list[tuple[np.ndarray, np.ndarray]]) -> "Encoded":
    """The same examples with other tokens, as `texts` gives them."""
    names = ("a_start_X", "a_length_X"), ("b_start_X", "b_length_X")
    return dataclasses.replace(self, tokens_T=tokens_T,
                               slices=dataclasses.replace(self.slices, **{
        name: value for pair, text in zip(names, texts)
        for name, value in zip(pair, text)}))
