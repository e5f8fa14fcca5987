"""A corpus in memory whose tokens are their own positions.

So a row shows where in the text each of its tokens was.
"""

import dataclasses

import numpy as np

from bert_jax.data.tokenizers.vocabulary import Vocabulary

SPECIAL = 5  # ids below are special


@dataclasses.dataclass(frozen=True, eq=False)
class MemoryCorpus:
  tokens_T: np.ndarray
  sentence_starts_S1: np.ndarray
  document_starts_U1: np.ndarray
  fingerprint: str = "memory"
  types: int | None = None  # None: every token is distinct

  @property
  def vocabulary_size(self) -> int:
    return self.types or len(self.tokens_T) + SPECIAL

  def document_of(self, position: np.ndarray) -> np.ndarray:
    starts = self.sentence_starts_S1[self.document_starts_U1]
    return np.searchsorted(starts, position, side="right") - 1

  def sentence_of(self, position: np.ndarray) -> np.ndarray:
    return np.searchsorted(self.sentence_starts_S1, position, side="right") - 1


def memory_corpus(documents: list[list[int]]) -> MemoryCorpus:
  """A corpus of documents, each given by the lengths of its sentences."""
  lengths = [length for document in documents for length in document]
  starts = np.cumsum([0, *lengths])
  return MemoryCorpus(
      np.arange(starts[-1], dtype=np.uint32) + SPECIAL, starts,
      np.cumsum([0, *map(len, documents)]))


def random_corpus(documents: int, sentences: int, longest: int,
                  seed: int = 0) -> MemoryCorpus:
  rng = np.random.default_rng(seed)
  return memory_corpus([
      rng.integers(1, longest + 1, rng.integers(1, sentences + 1)).tolist()
      for _ in range(documents)])


def vocabulary(size: int) -> Vocabulary:
  ordinary = np.arange(SPECIAL, size, dtype=np.int32)
  return Vocabulary(size, 0, 1, 2, 3, 4, np.ones(size, bool),
                    np.ones(size, np.int32), ordinary)
