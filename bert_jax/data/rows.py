"""Rows: row i of epoch e, computed from (fingerprint, seed) alone.

A format plans a whole epoch at once with numpy: where the pieces of every
example begin and how long they are once truncated. So all lengths are known
before a token is read, packing is part of the plan, any row of any epoch can be
asked for, and there is no iterator whose state could be lost.

Dimensions: X examples, R rows, E examples in a row, L tokens in a row, T tokens,
S sentences and U documents of the corpus.
"""

import collections
import dataclasses
import hashlib
import json
import threading
from typing import Any, ClassVar, Literal

import numpy as np

from bert_jax.config import Choice, UserError

# Sentences planned at once: bounds the memory of a plan's temporaries.
SENTENCES_AT_ONCE = 1 << 20


def generator(*parts: str | int) -> np.random.Generator:
  """A generator that is a function of the parts: text and whole numbers."""
  digest = hashlib.blake2b(json.dumps(parts).encode(), digest_size=16).digest()
  return np.random.default_rng(int.from_bytes(digest, "little"))


@dataclasses.dataclass(frozen=True, eq=False)
class Examples:
  """An epoch's examples as slices of a token array.

  `target_X` and `sentences_X` (the number drawn for the length, and the
  sentences of the chunk an example was cut from) serve statistics only.
  """

  a_start_X: np.ndarray
  a_length_X: np.ndarray
  b_start_X: np.ndarray | None  # None: no pairs, one [SEP] only
  b_length_X: np.ndarray | None
  is_random_X: np.ndarray | None = None
  target_X: np.ndarray | None = None
  sentences_X: np.ndarray | None = None

  def __len__(self) -> int:
    return len(self.a_start_X)

  @property
  def lengths_X(self) -> np.ndarray:
    """Tokens of each example with [CLS] and [SEP]."""
    if self.b_length_X is None:
      return self.a_length_X + 2
    return self.a_length_X + self.b_length_X + 3

  @classmethod
  def concatenate(cls, blocks: list["Examples"]) -> "Examples":
    columns = [[getattr(block, field.name) for block in blocks]
               for field in dataclasses.fields(cls)]
    return cls(*(None if column[0] is None else np.concatenate(column)
                 for column in columns))


class Format(Choice):
  """How an epoch of examples is cut from a corpus."""

  special_tokens: ClassVar[int]  # of one example

  def plan(self, corpus: Any, length: int,
           rng: np.random.Generator) -> Examples:
    """The examples of one epoch, in the order of the text."""
    maximum = length - self.special_tokens
    if maximum < 2:
      raise UserError(f"Rows of {length} tokens hold no text beside "
                      f"{self.special_tokens} special tokens; "
                      f"allowed: {self.special_tokens + 2} or more.")
    document_starts_U1 = np.asarray(corpus.document_starts_U1)
    blocks, first = [], 0
    while first < len(document_starts_U1) - 1:
      last = max(first + 1, int(np.searchsorted(
          document_starts_U1, document_starts_U1[first] + SENTENCES_AT_ONCE,
          side="right")) - 1)
      blocks.append(self.examples(corpus, first, last, maximum, rng))
      first = last
    return Examples.concatenate(blocks)

  def examples(self, corpus: Any, first: int, last: int, maximum: int,
               rng: np.random.Generator) -> Examples:
    """The examples of the documents `first` to `last` (exclusive)."""
    raise NotImplementedError


@dataclasses.dataclass(frozen=True)
class PairsFormat(Format):
  """Sentence pairs as google-research/bert's create_pretraining_data makes.

  A chunk of sentences is filled up to a target length and cut into A and B at a
  random sentence; half of the time (always, if the chunk is one sentence) B is
  replaced by text of another document and the sentences it would have had are
  put back. Longer pairs lose tokens of the longer side at random ends.

  One thing differs: another document is never the same one (Google tries ten
  times), unless the corpus has a single document.

  Attributes:
    short_seq_prob: how often the target is drawn from 2 to the maximum.
    short_seq_per: what a target is drawn for. Google draws one for each
      document and epoch, so more than `short_seq_prob` of the examples are
      short, as a short target cuts more of them from a document.
  """

  short_seq_prob: float = 0.1
  short_seq_per: Literal["document", "example"] = "document"

  special_tokens = 3

  def __post_init__(self):
    _check_probability("short_seq_prob", self.short_seq_prob)

  def examples(self, corpus: Any, first: int, last: int, maximum: int,
               rng: np.random.Generator) -> Examples:
    chunks = _Block.of(corpus, first, last)
    start_S1, count = chunks.start_S1, len(chunks.document_S)
    target_S = self._targets(chunks, maximum, rng)
    end_S = np.minimum(
        np.searchsorted(start_S1, start_S1[:-1] + target_S), chunks.end_S)
    sentences_S = end_S - np.arange(count)
    split_S = rng.integers(1, np.maximum(sentences_S, 2))
    is_random_S = (sentences_S == 1) | (rng.random(count) < 0.5)
    # Every sentence has its draws, as if a chunk began there; those count
    # where one does: after the sentences that the chunk before it used.
    at_X = _chain(np.arange(count) + np.where(is_random_S, split_S,
                                              sentences_S))
    split_X = at_X + split_S[at_X]
    a_start_X, a_end_X = start_S1[at_X], start_S1[split_X]
    b_start_X, b_end_X = a_end_X.copy(), start_S1[end_S[at_X]]
    random_X = np.flatnonzero(is_random_S[at_X])
    wanted_X = target_S[at_X] - (a_end_X - a_start_X)
    b_start_X[random_X], b_end_X[random_X] = _elsewhere(
        corpus, first + chunks.document_S[at_X[random_X]],
        wanted_X[random_X], rng)
    a_start_X, a_length_X, b_start_X, b_length_X = _truncate_at_random(
        a_start_X, a_end_X - a_start_X, b_start_X, b_end_X - b_start_X, maximum,
        rng)
    return Examples(a_start_X, a_length_X, b_start_X, b_length_X,
                    is_random_S[at_X], target_S[at_X].astype(np.int32),
                    sentences_S[at_X].astype(np.int32))

  def _targets(self, chunks: "_Block", maximum: int,
               rng: np.random.Generator) -> np.ndarray:
    per_document = self.short_seq_per == "document"
    count = chunks.documents if per_document else len(chunks.document_S)
    target = np.where(rng.random(count) < self.short_seq_prob,
                      rng.integers(2, maximum + 1, count), maximum)
    return target[chunks.document_S] if per_document else target


@dataclasses.dataclass(frozen=True)
class FullSentencesFormat(Format):
  """Consecutive sentences of one document, as many as fit, no pairs.

  What RoBERTa (arXiv:1907.11692, section 4.2) calls doc-sentences. A sentence
  longer than a row is cut, so that no text is lost.

  Attributes:
    short_seq_prob: how often a document's rows are cut at a length drawn
      from 2 to the maximum, so that short texts are not strange to the model.
  """

  short_seq_prob: float = 0.1

  special_tokens = 2

  def __post_init__(self):
    _check_probability("short_seq_prob", self.short_seq_prob)

  def examples(self, corpus: Any, first: int, last: int, maximum: int,
               rng: np.random.Generator) -> Examples:
    chunks = _Block.of(corpus, first, last).cut(maximum)
    start_S1, count = chunks.start_S1, len(chunks.document_S)
    target_S = np.where(
        rng.random(chunks.documents) < self.short_seq_prob,
        rng.integers(2, maximum + 1, chunks.documents),
        maximum)[chunks.document_S]
    fitting_S = np.searchsorted(start_S1, start_S1[:-1] + target_S,
                                side="right") - 1
    end_S = np.clip(fitting_S, np.arange(1, count + 1), chunks.end_S)
    at_X = _chain(end_S)
    a_start_X = start_S1[at_X]
    a_length_X = (start_S1[end_S[at_X]] - a_start_X).astype(np.int32)
    return Examples(a_start_X, a_length_X, None, None, None,
                    target_S[at_X].astype(np.int32),
                    (end_S[at_X] - at_X).astype(np.int32))


def _check_probability(name: str, value: float):
  if not 0 <= value <= 1:
    raise UserError(f"{name}={value} is no probability; allowed: 0 to 1.")


@dataclasses.dataclass(frozen=True, eq=False)
class _Block:
  """Consecutive documents: token offsets and, per sentence, its document."""

  start_S1: np.ndarray
  document_S: np.ndarray
  end_S: np.ndarray  # one past the last sentence of the document
  documents: int

  @classmethod
  def of(cls, corpus: Any, first: int, last: int) -> "_Block":
    bounds_U1 = np.asarray(corpus.document_starts_U1[first:last + 1], np.int64)
    start_S1 = np.asarray(
        corpus.sentence_starts_S1[bounds_U1[0]:bounds_U1[-1] + 1], np.int64)
    return cls._of(start_S1, np.diff(bounds_U1))

  @classmethod
  def _of(cls, start_S1: np.ndarray, sentences_U: np.ndarray) -> "_Block":
    documents = len(sentences_U)
    return cls(start_S1, np.repeat(np.arange(documents), sentences_U),
               np.repeat(np.cumsum(sentences_U), sentences_U), documents)

  def cut(self, maximum: int) -> "_Block":
    """The same text, longer sentences cut into pieces of `maximum` tokens."""
    pieces_S = -(-np.diff(self.start_S1) // maximum)
    piece = np.arange(pieces_S.sum()) - np.repeat(
        np.cumsum(pieces_S) - pieces_S, pieces_S)
    start = np.repeat(self.start_S1[:-1], pieces_S) + piece * maximum
    return self._of(np.append(start, self.start_S1[-1]),
                    np.bincount(self.document_S, pieces_S,
                                self.documents).astype(np.int64))


def _chain(next_S: np.ndarray) -> np.ndarray:
  """The positions that are reached from 0 by following `next_S`."""
  following, at, reached = next_S.tolist(), 0, []
  while at < len(following):
    reached.append(at)
    at = following[at]
  return np.array(reached, np.int64)


def _elsewhere(corpus: Any, own_X: np.ndarray, wanted_X: np.ndarray,
               rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
  """Tokens from a random sentence of another document: starts and ends.

  Whole sentences, until there are `wanted_X` tokens or the document ends.
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
  enough_X = (b_start_X + np.maximum(wanted_X, 1)).astype(start_S1.dtype)
  to_X = np.minimum(np.searchsorted(start_S1, enough_X), high_X)
  return b_start_X, start_S1[to_X].astype(np.int64)


def truncated(a_length_X: np.ndarray, b_length_X: np.ndarray,
              maximum: int) -> tuple[np.ndarray, np.ndarray]:
  """What is left of a pair when tokens of the longer side (B at a tie) are
  removed until both fit into `maximum` tokens."""
  a_half, b_half = (maximum + 1) // 2, maximum // 2
  return (np.minimum(a_length_X, np.maximum(maximum - b_length_X, a_half)),
          np.minimum(b_length_X, np.maximum(maximum - a_length_X, b_half)))


def _truncate_at_random(a_start_X, a_length_X, b_start_X, b_length_X, maximum,
                        rng):
  """Truncates; each removed token left the front with probability a half."""
  a_kept_X, b_kept_X = truncated(a_length_X, b_length_X, maximum)
  return (a_start_X + rng.binomial(a_length_X - a_kept_X, 0.5),
          a_kept_X.astype(np.int32),
          b_start_X + rng.binomial(b_length_X - b_kept_X, 0.5),
          b_kept_X.astype(np.int32))


def pack(lengths_X: np.ndarray, row_length: int,
         examples_per_row: int) -> np.ndarray:
  """Packs examples into rows: best fit, longest first.

  Examples of one length, and rows with one number of tokens left, are handled
  together, so the cost hardly grows with the number of examples. Examples of
  one length are taken in their order: permute them for random company.

  Returns:
    Example indices of each row, shape (R, examples_per_row), -1 where none.
    With one example a row they keep their order, else rows opened by longer
    examples come first.
  """
  count = len(lengths_X)
  if count and lengths_X.max() > row_length:
    raise UserError(f"An example of {lengths_X.max()} tokens does not fit into "
                    f"a row of {row_length}.")
  if examples_per_row == 1:
    return np.arange(count, dtype=np.int32)[:, None]
  rows_by_room = [[] for _ in range(row_length + 1)]  # of (slots used, rows)
  row_RE = np.full((count, examples_per_row), -1, np.int32)
  opened = 0
  longest_first_X = np.argsort(-lengths_X, kind="stable").astype(np.int32)
  for group in np.split(longest_first_X, np.flatnonzero(
      np.diff(lengths_X[longest_first_X])) + 1) if count else ():
    size = int(lengths_X[group[0]])
    while len(group):
      room = next((r for r in range(size, row_length + 1) if rows_by_room[r]),
                  None)
      if room is None:
        room, each = row_length, min(row_length // size, examples_per_row)
        more = -(-len(group) // each)
        rows_by_room[room].append((0, np.arange(opened, opened + more)))
        opened += more
      used, rows = rows_by_room[room].pop()
      taken, left = rows[:len(group)], rows[len(group):]
      row_RE[taken, used], group = group[:len(taken)], group[len(taken):]
      if len(left):
        rows_by_room[room].append((used, left))
      if used + 1 < examples_per_row:
        rows_by_room[room - size].append((used + 1, taken))
  return row_RE[:opened]


def assemble(tokens_T: np.ndarray, vocabulary: Any, examples: Examples,
             example_E: np.ndarray, length: int) -> dict[str, np.ndarray]:
  """One row of the examples `example_E` (-1: none), without their labels."""
  input_ids_L = np.full(length, vocabulary.pad_id, np.int32)
  token_type_ids_L, position_ids_L, example_ids_L = np.zeros(
      (3, length), np.int32)
  cls_positions_E = np.zeros(len(example_E), np.int32)
  at = 0
  for slot, example in enumerate(example_E.tolist()):
    if example < 0:
      break
    begin, at = at, at + 1
    cls_positions_E[slot] = begin
    input_ids_L[begin] = vocabulary.cls_id
    at = _append(input_ids_L, at, tokens_T, examples.a_start_X[example],
                 examples.a_length_X[example], vocabulary.sep_id)
    if examples.b_start_X is not None:
      b_begin = at
      at = _append(input_ids_L, at, tokens_T, examples.b_start_X[example],
                   examples.b_length_X[example], vocabulary.sep_id)
      token_type_ids_L[b_begin:at] = 1
    position_ids_L[begin:at] = np.arange(at - begin)
    example_ids_L[begin:at] = slot + 1
  return dict(
      input_ids=input_ids_L, token_type_ids=token_type_ids_L,
      position_ids=position_ids_L, example_ids=example_ids_L,
      cls_positions=cls_positions_E,
      example_mask=(example_E >= 0).astype(np.float32))


def _append(input_ids_L, at, tokens_T, start, length, sep_id) -> int:
  end = at + int(length)
  input_ids_L[at:end] = tokens_T[start:start + length]
  input_ids_L[end] = sep_id
  return end + 1


class Rows:
  """Random access to the rows of every epoch; what `loader` reads.

  An epoch has as many rows as epoch 0: of a later epoch with more (its draws
  differ) the surplus is left out, one with fewer begins again.
  """

  def __init__(self, length: int, examples_per_row: int, seed: int,
               shuffle: bool, content: tuple[str, ...]):
    if examples_per_row < 1:
      raise UserError(f"examples_per_row={examples_per_row}; "
                      "allowed: 1 or more.")
    self.length = length
    self.examples_per_row = examples_per_row
    self.seed = seed
    self.shuffle = shuffle
    # Not the packing: with it and without, the examples are the same.
    self.draws = (*content, seed)
    self.fingerprint = hashlib.blake2b(
        repr((self.draws, length, examples_per_row, shuffle)).encode(),
        digest_size=16).hexdigest()
    self._plans, self._lock = collections.OrderedDict(), threading.Lock()
    self._count = None

  def examples(self, epoch: int) -> Examples:
    """The examples of an epoch, before packing."""
    raise NotImplementedError

  def row(self, epoch: int, index: int) -> dict[str, np.ndarray]:
    """Row `index` of an epoch; arrays of L tokens and E examples."""
    examples, row_RE = self.plan(epoch)
    return self._row(examples, row_RE[index % len(row_RE)])

  def empty(self) -> dict[str, np.ndarray]:
    """A row without examples, to fill up a batch."""
    return self._row(self.plan(0)[0],
                     np.full(self.examples_per_row, -1, np.int32))

  def _row(self, examples: Examples,
           example_E: np.ndarray) -> dict[str, np.ndarray]:
    raise NotImplementedError

  def __len__(self) -> int:
    if self._count is None:
      self._count = len(self.plan(0)[1])
    return self._count

  def plan(self, epoch: int) -> tuple[Examples, np.ndarray]:
    """The examples of an epoch and the rows they are packed into."""
    with self._lock:
      if epoch not in self._plans:
        self._plans[epoch] = self._packed(epoch)
        while len(self._plans) > 2:
          self._plans.popitem(last=False)
      return self._plans[epoch]

  def _packed(self, epoch: int) -> tuple[Examples, np.ndarray]:
    examples = self.examples(epoch)
    if not self.shuffle:
      return examples, pack(examples.lengths_X, self.length,
                            self.examples_per_row)
    rng = generator("order", *self.draws, epoch)
    order_X = rng.permutation(len(examples)).astype(np.int32)
    row_RE = pack(examples.lengths_X[order_X], self.length,
                  self.examples_per_row)
    row_RE = np.where(row_RE < 0, -1, order_X[row_RE])
    return examples, rng.permutation(row_RE)

  def __getstate__(self) -> dict[str, Any]:
    return vars(self) | dict(_plans=None, _lock=None)

  def __setstate__(self, state: dict[str, Any]):
    vars(self).update(state)
    self._plans, self._lock = collections.OrderedDict(), threading.Lock()


class PretrainingRows(Rows):
  """Rows of a corpus in a format, without masks (the device draws those)."""

  def __init__(self, corpus: Any, vocabulary: Any, format: Format, length: int,
               examples_per_row: int, seed: int, shuffle: bool = True):
    if corpus.vocabulary_size != vocabulary.size:
      raise UserError(
          f"The corpus was tokenized with {corpus.vocabulary_size} token ids, "
          f"but the tokenizer has {vocabulary.size}.")
    if not len(corpus.document_starts_U1) > 1:
      raise UserError("The corpus has no documents, so there are no rows.")
    super().__init__(length, examples_per_row, seed, shuffle,
                     (corpus.fingerprint, repr(format)))
    self.corpus = corpus
    self.vocabulary = vocabulary
    self.format = format

  def examples(self, epoch: int) -> Examples:
    return self.format.plan(self.corpus, self.length,
                            generator("examples", *self.draws, epoch))

  def _row(self, examples: Examples,
           example_E: np.ndarray) -> dict[str, np.ndarray]:
    row = assemble(self.corpus.tokens_T, self.vocabulary, examples, example_E,
                   self.length)
    labels_E = np.zeros(len(example_E), np.int32)
    if examples.is_random_X is not None:
      labels_E = np.where(example_E < 0, 0, examples.is_random_X[example_E])
    return row | dict(next_sentence_labels=labels_E.astype(np.int32))
