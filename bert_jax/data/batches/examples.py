"""Examples as token ranges of flat arrays."""

import dataclasses

import numpy as np


@dataclasses.dataclass(frozen=True, eq=False)
class Examples:
  """An epoch's examples as slices of a token array.

  `lost_X`, the tokens of each that did not fit into its row, `target_X` and
  `sentences_X` (the number drawn for the length, and the sentences of the chunk
  an example was cut from) serve statistics only.
  """

  a_start_X: np.ndarray
  a_length_X: np.ndarray
  b_start_X: np.ndarray | None  # None: no pairs, one [SEP] only
  b_length_X: np.ndarray | None
  is_random_X: np.ndarray | None = None
  target_X: np.ndarray | None = None
  sentences_X: np.ndarray | None = None
  lost_X: np.ndarray | None = None
  separators: int = 1  # between the texts of a pair

  def __len__(self) -> int:
    return len(self.a_start_X)

  @property
  def lengths_X(self) -> np.ndarray:
    """Tokens of each example with [CLS] and [SEP]."""
    if self.b_length_X is None:
      return self.a_length_X + 2
    return self.a_length_X + self.b_length_X + 2 + self.separators

  @classmethod
  def concatenate(cls, blocks: list["Examples"]) -> "Examples":
    columns = [[getattr(block, field.name) for block in blocks]
               for field in dataclasses.fields(cls)]
    return cls(*(np.concatenate(column) if isinstance(column[0], np.ndarray)
                 else column[0] for column in columns))


def truncated(a_length_X: np.ndarray, b_length_X: np.ndarray,
              maximum: int) -> tuple[np.ndarray, np.ndarray]:
  """What is left of a pair when tokens of the longer side (B at a tie) are
  removed until both fit into `maximum` tokens."""
  a_half, b_half = (maximum + 1) // 2, maximum // 2
  return (np.minimum(a_length_X, np.maximum(maximum - b_length_X, a_half)),
          np.minimum(b_length_X, np.maximum(maximum - a_length_X, b_half)))
