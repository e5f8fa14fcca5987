"""Formats: how an epoch of examples is cut from a corpus, all at once.

Planned with numpy: where the pieces of every example begin and how long they
are once truncated. So all lengths are known before a token is read.

Dimensions: X examples, S sentences and U documents of the corpus.
"""

import dataclasses
from typing import Any, ClassVar, Literal

import numpy as np

from bert_jax.config import Choice, UserError
from bert_jax.data.batches.examples import Examples, truncated
from bert_jax.data.pretraining.chunks import (
    Block, chain, check_probability, targets)

# Sentences planned at once: bounds the memory of a plan's temporaries.
SENTENCES_AT_ONCE = 1 << 20


class Format(Choice):
  """How text is cut into training examples."""

  pairs: ClassVar[bool]
  # What the label of a pair says: "next": whether the second text is of another
  # document; "order": whether the texts are swapped; "": there are no pairs.
  pair_labels: ClassVar[str] = ""

  def plan(self, corpus: Any, length: int,
           rng: np.random.Generator) -> Examples:
    """The examples of one epoch, in the order of the text."""
    maximum = self.maximum(length)
    document_starts_U1 = np.asarray(corpus.document_starts_U1)
    blocks, first = [], 0
    while first < len(document_starts_U1) - 1:
      last = max(first + 1, int(np.searchsorted(
          document_starts_U1, document_starts_U1[first] + SENTENCES_AT_ONCE,
          side="right")) - 1)
      blocks.append(self.examples(corpus, first, last, maximum, rng))
      first = last
    return Examples.concatenate(blocks)

  def maximum(self, length: int) -> int:
    """Tokens of text that fit into a row."""
    special = 2 + self.pairs
    if length < special + 2:
      raise UserError(f"Rows of {length} tokens hold no text beside {special} "
                      f"special tokens; allowed: {special + 2} or more.")
    return length - special

  def examples(self, corpus: Any, first: int, last: int, maximum: int,
               rng: np.random.Generator) -> Examples:
    """The examples of the documents `first` to `last` (exclusive)."""
    raise NotImplementedError


@dataclasses.dataclass(frozen=True)
class PairsFormat(Format):
  """Pairs of segments for next-sentence prediction, as google-research/bert.

  As its create_pretraining_data: a chunk of sentences is filled up to a target
  length and cut into A and B at a random sentence; half of the time (always, if
  the chunk is one sentence) B is replaced by text of another document and the
  sentences it would have had are put back. Longer pairs lose tokens of the
  longer side at random ends.

  One thing differs: another document is never the same one (Google tries ten
  times), unless the corpus has a single document.

  Attributes:
    short_seq_prob: probability that the target length of examples is drawn
      from 2 tokens to the longest, instead of being the longest.
    short_seq_per: whether a target length is drawn for each document and epoch,
      as Google does, or for each example. For documents, more than
      `short_seq_prob` of the examples are short, as a short target cuts more
      of them from a document.
  """

  short_seq_prob: float = 0.1
  short_seq_per: Literal["document", "example"] = "document"

  pairs = True
  pair_labels = "next"

  def __post_init__(self):
    check_probability("short_seq_prob", self.short_seq_prob)

  def examples(self, corpus: Any, first: int, last: int, maximum: int,
               rng: np.random.Generator) -> Examples:
    chunks = Block.of(corpus, first, last)
    start_S1, count = chunks.start_S1, len(chunks.document_S)
    target_S = self._targets(chunks, maximum, rng)
    end_S = np.minimum(
        np.searchsorted(start_S1, start_S1[:-1] + target_S), chunks.end_S)
    sentences_S = end_S - np.arange(count)
    split_S = rng.integers(1, np.maximum(sentences_S, 2))
    is_random_S = (sentences_S == 1) | (rng.random(count) < 0.5)
    # Every sentence has its draws, as if a chunk began there; those count
    # where one does: after the sentences that the chunk before it used.
    at_X = chain(np.arange(count) + np.where(is_random_S, split_S,
                                             sentences_S))
    split_X = at_X + split_S[at_X]
    a_start_X, a_end_X = start_S1[at_X], start_S1[split_X]
    b_start_X, b_end_X = a_end_X.copy(), start_S1[end_S[at_X]]
    random_X = np.flatnonzero(is_random_S[at_X])
    needed_X = target_S[at_X] - (a_end_X - a_start_X)
    b_start_X[random_X], b_end_X[random_X] = _elsewhere(
        corpus, first + chunks.document_S[at_X[random_X]],
        needed_X[random_X], rng)
    a_start_X, a_length_X, b_start_X, b_length_X = _truncate_at_random(
        a_start_X, a_end_X - a_start_X, b_start_X, b_end_X - b_start_X, maximum,
        rng)
    return Examples(a_start_X, a_length_X, b_start_X, b_length_X,
                    is_random_S[at_X], target_S[at_X].astype(np.int32),
                    sentences_S[at_X].astype(np.int32))

  def _targets(self, chunks: Block, maximum: int,
               rng: np.random.Generator) -> np.ndarray:
    per_document = self.short_seq_per == "document"
    count = chunks.documents if per_document else len(chunks.document_S)
    target = np.where(rng.random(count) < self.short_seq_prob,
                      rng.integers(2, maximum + 1, count), maximum)
    return target[chunks.document_S] if per_document else target


@dataclasses.dataclass(frozen=True)
class OrderedPairsFormat(Format):
  """Pairs of consecutive segments, half of them swapped: for sentence-order
  prediction (ALBERT: Lan et al. 2020, 3.1).

  Consecutive sentences, as many as fit but at least two, are cut in two at a
  random one. A document's last sentence, if it is left alone, is cut in its
  middle; a single token is left out.

  Attributes:
    short_seq_prob: probability that the pairs of a document are cut at a length
      drawn from 2 tokens to the longest, so that the model sees short texts.
  """

  short_seq_prob: float = 0.1

  pairs = True
  pair_labels = "order"

  def __post_init__(self):
    check_probability("short_seq_prob", self.short_seq_prob)

  def examples(self, corpus: Any, first: int, last: int, maximum: int,
               rng: np.random.Generator) -> Examples:
    chunks = Block.of(corpus, first, last)
    start_S1, count = chunks.start_S1, len(chunks.document_S)
    target_S = targets(chunks, self.short_seq_prob, maximum, rng)
    fitting_S = np.searchsorted(start_S1, start_S1[:-1] + target_S,
                                side="right") - 1
    end_S = np.minimum(np.maximum(fitting_S, np.arange(count) + 2),
                       chunks.end_S)
    split_S = rng.integers(1, np.maximum(end_S - np.arange(count), 2))
    is_swapped_S = rng.random(count) < 0.5
    at_X = chain(end_S)
    at_X = at_X[start_S1[end_S[at_X]] - start_S1[at_X] > 1]
    sentences_X, swapped_X = end_S[at_X] - at_X, is_swapped_S[at_X]
    start_X, end_X = start_S1[at_X], start_S1[end_S[at_X]]
    cut_X = np.where(sentences_X > 1, start_S1[at_X + split_S[at_X]],
                     (start_X + end_X + 1) // 2)
    a_start_X, a_end_X = (np.where(swapped_X, b, a) for a, b in (
        (start_X, cut_X), (cut_X, end_X)))
    b_start_X, b_end_X = (np.where(swapped_X, a, b) for a, b in (
        (start_X, cut_X), (cut_X, end_X)))
    return Examples(*_truncate_at_random(
        a_start_X, a_end_X - a_start_X, b_start_X, b_end_X - b_start_X, maximum,
        rng), swapped_X, target_S[at_X].astype(np.int32),
        sentences_X.astype(np.int32))


@dataclasses.dataclass(frozen=True)
class BlocksFormat(Format):
  """Blocks of consecutive tokens of a document, whatever its sentences, as
  language models are trained on. The first block of a document has a random
  length, so that each epoch cuts it at other places."""

  pairs = False

  def examples(self, corpus: Any, first: int, last: int, maximum: int,
               rng: np.random.Generator) -> Examples:
    bounds_U1 = np.asarray(corpus.document_starts_U1[first:last + 1], np.int64)
    start_U1 = np.asarray(corpus.sentence_starts_S1)[bounds_U1].astype(np.int64)
    # Where the blocks of a document would begin, had it one before its start.
    shift_U = rng.integers(0, maximum, len(start_U1) - 1)
    blocks_U = -(-(np.diff(start_U1) + shift_U) // maximum)
    number_X = np.arange(blocks_U.sum()) - np.repeat(
        np.cumsum(blocks_U) - blocks_U, blocks_U)
    first_X, shift_X, end_X = (np.repeat(x_U, blocks_U) for x_U in (
        start_U1[:-1], shift_U, start_U1[1:]))
    begin_X = first_X - shift_X + number_X * maximum
    start_X = np.maximum(begin_X, first_X)
    length_X = np.minimum(begin_X + maximum, end_X) - start_X
    return Examples(start_X, length_X.astype(np.int32), None, None, None,
                    np.full(len(start_X), maximum, np.int32),
                    np.ones(len(start_X), np.int32))


@dataclasses.dataclass(frozen=True)
class FullSentencesFormat(Format):
  """Consecutive sentences of a document, as many as fit (RoBERTa); no pairs.

  What RoBERTa (arXiv:1907.11692, section 4.2) calls doc-sentences. A sentence
  longer than a row is cut, so that no text is lost.

  Attributes:
    short_seq_prob: probability that the rows of a document are cut at a length
      drawn from 2 tokens to the longest, so that the model sees short texts.
  """

  short_seq_prob: float = 0.1

  pairs = False

  def __post_init__(self):
    check_probability("short_seq_prob", self.short_seq_prob)

  def examples(self, corpus: Any, first: int, last: int, maximum: int,
               rng: np.random.Generator) -> Examples:
    chunks = Block.of(corpus, first, last).cut(maximum)
    start_S1, count = chunks.start_S1, len(chunks.document_S)
    target_S = targets(chunks, self.short_seq_prob, maximum, rng)
    fitting_S = np.searchsorted(start_S1, start_S1[:-1] + target_S,
                                side="right") - 1
    end_S = np.clip(fitting_S, np.arange(1, count + 1), chunks.end_S)
    at_X = chain(end_S)
    a_start_X = start_S1[at_X]
    a_length_X = (start_S1[end_S[at_X]] - a_start_X).astype(np.int32)
    return Examples(a_start_X, a_length_X, None, None, None,
                    target_S[at_X].astype(np.int32),
                    (end_S[at_X] - at_X).astype(np.int32))


def _elsewhere(corpus: Any, own_X: np.ndarray, needed_X: np.ndarray,
               rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
  """Tokens from a random sentence of another document: starts and ends.

  Whole sentences, until there are `needed_X` tokens or the document ends.
  """
  document_starts_U1 = np.asarray(corpus.document_starts_U1)
  start_S1 = np.asarray(corpus.sentence_starts_S1)
  others = len(document_starts_U1) - 2
  other_X = rng.integers(0, max(others, 1), len(own_X))
  if others:
    other_X += other_X >= own_X
  low_X = document_starts_U1[other_X].astype(np.int64)
  high_X = document_starts_U1[other_X + 1].astype(np.int64)
  from_X = rng.integers(low_X, high_X)
  b_start_X = start_S1[from_X].astype(np.int64)
  # The type of the offsets: another one would copy the whole memory map.
  enough_X = (b_start_X + np.maximum(needed_X, 1)).astype(start_S1.dtype)
  to_X = np.minimum(np.searchsorted(start_S1, enough_X), high_X)
  return b_start_X, start_S1[to_X].astype(np.int64)


def _truncate_at_random(a_start_X, a_length_X, b_start_X, b_length_X, maximum,
                        rng):
  """Truncates; each removed token left the front with probability a half."""
  a_kept_X, b_kept_X = truncated(a_length_X, b_length_X, maximum)
  return (a_start_X + rng.binomial(a_length_X - a_kept_X, 0.5),
          a_kept_X.astype(np.int32),
          b_start_X + rng.binomial(b_length_X - b_kept_X, 0.5),
          b_kept_X.astype(np.int32))
