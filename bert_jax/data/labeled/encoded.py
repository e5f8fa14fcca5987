"""A labeled set in tokens, of any kind.

Dimensions: X examples, E of them in a row of L tokens; T tokens of the set. An
example may have several segments in its row, each with a [CLS] of its own.
"""

import dataclasses
import itertools
import logging
from collections.abc import Mapping
from typing import Any

import numpy as np

from bert_jax.config import UserError
from bert_jax.data.batches.examples import Examples, truncated

_LOG = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True, eq=False)
class Encoded:
  """A labeled set in tokens.

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

  def say_lost(self, source: str, examples: int, length: int) -> None:
    """Says what does not fit into rows of `length`: tokens that are left
    out, and examples that are read in several windows.

    Args:
      source: of the set.
      examples: of the set, in the unit of its labels.
    """
    if len(self) > examples:
      _LOG.warning("%s: %d examples are read in %d windows, as not all fit "
                   "into rows of %d tokens (data.length).", source, examples,
                   len(self), length)
    lost_X = self.slices.lost_X
    if lost_X is not None and lost_X.any():
      _LOG.warning(
          "%s: %d of %d examples are longer than rows of %d tokens "
          "(data.length); %.2g%% of all tokens are cut off.", source,
          np.count_nonzero(lost_X.reshape(-1, self.segments).sum(1)), len(self),
          length, 100 * lost_X.sum() / (
              lost_X.sum() + sum(count.sum() for _, count in self.texts())))

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


def encode_texts(tokenizer: Any, length: int, texts_a: list[str],
                 texts_b: list[str] | None) -> tuple[np.ndarray, Examples]:
  """All tokens, and the slices of texts or pairs truncated to rows."""
  maximum = room(tokenizer, length, texts_b is not None)
  if texts_b is None:
    tokens_T, start_X1 = flatten(tokenizer.encode(texts_a))
    return tokens_T, single(start_X1, maximum)
  tokens_T, start = flatten(tokenizer.encode(texts_a)
                            + tokenizer.encode(texts_b))
  return tokens_T, paired(tokenizer, *start[:-1].reshape(2, -1),
                          *np.diff(start).reshape(2, -1), maximum)


def paired(tokenizer: Any, a_start_X: np.ndarray, b_start_X: np.ndarray,
           a_length_X: np.ndarray, b_length_X: np.ndarray,
           maximum: int) -> Examples:
  """Pairs of slices, truncated to `maximum` tokens together."""
  uncut_X = a_length_X + b_length_X
  a_length_X, b_length_X = truncated(a_length_X, b_length_X, maximum)
  return Examples(a_start_X, a_length_X, b_start_X, b_length_X,
                  lost_X=uncut_X - a_length_X - b_length_X,
                  separators=tokenizer.vocabulary.pair_separators)


def room(tokenizer: Any, length: int, pairs: bool) -> int:
  """Tokens of text that fit beside the special ones."""
  specials = tokenizer.vocabulary.special_tokens(pairs)
  if length <= specials:
    raise UserError(f"Rows of {length} tokens hold no text beside {specials} "
                    f"special tokens; allowed: {specials + 1} or more.")
  return length - specials


def flatten(pieces: list[list[int]]) -> tuple[np.ndarray, np.ndarray]:
  """All ids end to end, and where each piece begins and the last ends."""
  starts = np.cumsum([0, *map(len, pieces)])
  return np.fromiter(itertools.chain.from_iterable(pieces), np.int32,
                     starts[-1]), starts


def single(start_X1: np.ndarray, maximum: int) -> Examples:
  """Slices of texts, truncated."""
  lost_X = np.maximum(np.diff(start_X1) - maximum, 0)
  return Examples(start_X1[:-1], np.diff(start_X1) - lost_X, None, None,
                  lost_X=lost_X)
