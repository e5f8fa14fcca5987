"""Sentences of consecutive documents, and how chunks are cut from them.

Dimensions: X examples, S sentences and U documents of the corpus.
"""

import dataclasses
from typing import Any

import numpy as np

from bert_jax.config import UserError


def targets(chunks: "Block", short_seq_prob: float, maximum: int,
            rng: np.random.Generator) -> np.ndarray:
  """The length that the chunks of each sentence's document aim at."""
  return np.where(rng.random(chunks.documents) < short_seq_prob,
                  rng.integers(2, maximum + 1, chunks.documents),
                  maximum)[chunks.document_S]


def check_probability(name: str, value: float):
  if not 0 <= value <= 1:
    raise UserError(f"{name}={value} is no probability; allowed: 0 to 1.")


@dataclasses.dataclass(frozen=True, eq=False)
class Block:
  """Consecutive documents: token offsets and, per sentence, its document."""

  start_S1: np.ndarray
  document_S: np.ndarray
  end_S: np.ndarray  # one past the last sentence of the document
  documents: int

  @classmethod
  def of(cls, corpus: Any, first: int, last: int) -> "Block":
    bounds_U1 = np.asarray(corpus.document_starts_U1[first:last + 1], np.int64)
    start_S1 = np.asarray(
        corpus.sentence_starts_S1[bounds_U1[0]:bounds_U1[-1] + 1], np.int64)
    return cls._of(start_S1, np.diff(bounds_U1))

  @classmethod
  def _of(cls, start_S1: np.ndarray, sentences_U: np.ndarray) -> "Block":
    documents = len(sentences_U)
    return cls(start_S1, np.repeat(np.arange(documents), sentences_U),
               np.repeat(np.cumsum(sentences_U), sentences_U), documents)

  def cut(self, maximum: int) -> "Block":
    """The same text, longer sentences cut into pieces of `maximum` tokens."""
    pieces_S = -(-np.diff(self.start_S1) // maximum)
    piece = np.arange(pieces_S.sum()) - np.repeat(
        np.cumsum(pieces_S) - pieces_S, pieces_S)
    start = np.repeat(self.start_S1[:-1], pieces_S) + piece * maximum
    return self._of(np.append(start, self.start_S1[-1]),
                    np.bincount(self.document_S, pieces_S,
                                self.documents).astype(np.int64))


def chain(next_S: np.ndarray) -> np.ndarray:
  """The positions that are reached from 0 by following `next_S`."""
  following, at, reached = next_S.tolist(), 0, []
  while at < len(following):
    reached.append(at)
    at = following[at]
  return np.array(reached, np.int64)
