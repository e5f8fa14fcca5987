"""Held-out documents that a protocol scores, and what it asks of each.

Whether a document is scored, and all that is drawn for it, depends on its own
tokens alone: adding or reordering other documents changes nothing. Draws are
raw bits of a counter-based generator, which no version of numpy changes.

Dimensions: U documents, X examples (pieces of them).
"""

import dataclasses
import hashlib
from typing import Any, Literal

import numpy as np

from bert_jax.config import UserError
from bert_jax.data.batches.examples import Examples
from bert_jax.data.batches.splits import held_out
from bert_jax.data.tokenizers.vocabulary import Vocabulary

# Of the held-out documents, those that tuning may look at, and no score does.
TUNE_PERCENT = 20
MASKED_PERCENT = 15

Part = Literal["score", "tune"]


@dataclasses.dataclass(frozen=True, eq=False)
class ScoredDocuments:
  """Some documents of a corpus, in the order of their hashes.

  Attributes:
    corpus: what they are in.
    document_U: their numbers there.
    hashes: of the tokens of each.
  """

  corpus: Any
  document_U: np.ndarray
  hashes: list[bytes]

  def __len__(self) -> int:
    return len(self.hashes)

  def sentence_starts(self, number: int) -> np.ndarray:
    """Where the sentences of a document begin in the corpus, and its end."""
    first, last = self.corpus.document_starts_U1[
        self.document_U[number]:][:2].tolist()
    return np.asarray(self.corpus.sentence_starts_S1[first:last + 1], np.int64)

  def draws(self, number: int, purpose: str, count: int) -> np.ndarray:
    """`count` uint64 for a document."""
    key = hashlib.blake2b(self.hashes[number], digest_size=16,
                          person=purpose.encode()).digest()
    return np.random.Philox(key=int.from_bytes(key, "little")).random_raw(count)


def scored_documents(corpus: Any, part: Part,
                     percent: float = 100) -> ScoredDocuments:
  """The documents of one part; of equal ones the first.

  Args:
    percent: of them, by hash.
  """
  numbers: dict[bytes, int] = {}
  starts_U1 = np.asarray(corpus.sentence_starts_S1)[
      np.asarray(corpus.document_starts_U1)].tolist()
  for number, (start, end) in enumerate(zip(starts_U1, starts_U1[1:])):
    digest = hashlib.blake2b(_bytes(corpus, start, end),
                             digest_size=16).digest()
    name = digest.hex()
    in_part = held_out(f"tune {name}", TUNE_PERCENT) == (part == "tune")
    if in_part and held_out(f"share {name}", percent):
      numbers.setdefault(digest, number)
  hashes = sorted(numbers)
  return ScoredDocuments(
      corpus, np.array([numbers[h] for h in hashes], np.int64), hashes)


@dataclasses.dataclass(frozen=True, eq=False)
class Pieces:
  """Pieces of documents.

  Attributes:
    examples: their tokens.
    item_X: the item that each belongs to, numbered from 0.
    masked_X: the masked tokens of each, counted from its first one; none where
      the question is another.
  """

  examples: Examples
  item_X: np.ndarray
  masked_X: list[np.ndarray] = dataclasses.field(default_factory=list)


def masked_examples(documents: ScoredDocuments, vocabulary: Vocabulary,
                    length: int) -> Pieces:
  """Documents cut into pieces that fit into rows of `length` tokens.

  Of each, 15% of the ordinary tokens are masked, at least one; which ones does
  not depend on `length`. Pieces and documents without any are left out.

  Raises:
    UserError: rows of such a length hold no text.
  """
  room = length - vocabulary.special_tokens(pairs=False)
  if room < 2:
    raise UserError(f"length={length}: rows hold no text beside their "
                    f"{length - room} special tokens; allowed: "
                    f"{length - room + 2} or more.")
  ordinary_V = np.zeros(vocabulary.size, bool)
  ordinary_V[vocabulary.ordinary_ids] = True
  starts, lengths, items, masked = [], [], [], []
  for number in range(len(documents)):
    start, end = documents.sentence_starts(number)[[0, -1]].tolist()
    at = _masked(documents, number, ordinary_V[
        documents.corpus.tokens_T[start:end]])
    if not len(at):
      continue
    pieces, first = np.unique(at // room, return_index=True)
    masked += np.split(at % room, first[1:])
    items += [items[-1] + 1 if items else 0] * len(pieces)
    starts += (start + pieces * room).tolist()
    lengths += np.minimum(room, end - start - pieces * room).tolist()
  return Pieces(
      Examples(np.array(starts, np.int64), np.array(lengths, np.int32), None,
               None), np.array(items, np.int32), masked)


def _masked(documents: ScoredDocuments, number: int,
            ordinary: np.ndarray) -> np.ndarray:
  """The masked tokens of a document, counted from its first one."""
  candidates = np.flatnonzero(ordinary)
  count = max(1, (MASKED_PERCENT * len(candidates) + 50) // 100)
  draws = documents.draws(number, "masks", len(candidates))
  return np.sort(candidates[np.argsort(draws, kind="stable")[:count]])


def paired_examples(documents: ScoredDocuments, vocabulary: Vocabulary,
                    length: int) -> Pieces:
  """Two sentence pairs of each document that has two sentences: an item.

  It is cut at a random sentence. The first text is what is before the cut, the
  true second one what is behind it, each half a row at most. The random second
  text is the true one of the next document in the order of the hashes (so that
  a document which is added changes one other pair). All first and all second
  texts appear once in a true and once in a random pair: neither text alone
  says which it is, nor how long it is.

  Raises:
    UserError: rows of such a length hold no text.
  """
  special = vocabulary.special_tokens(pairs=True)
  room = (length - special) // 2
  if room < 1:
    raise UserError(f"length={length}: rows hold no pairs of texts beside "
                    f"their {special} special tokens; allowed: {special + 2} "
                    "or more.")
  cuts = []
  for number in range(len(documents)):
    start_S1 = documents.sentence_starts(number)
    if len(start_S1) > 2:
      draw = int(documents.draws(number, "cut", 1)[0])
      start, middle, end = start_S1[
          [0, 1 + draw % (len(start_S1) - 2), -1]].tolist()
      cuts.append((max(start, middle - room), middle, min(end, middle + room)))
  if len(cuts) < 2:
    cuts = []  # Nothing is random with a single document.
  start, middle, end = np.array(cuts, np.int64).reshape(-1, 3).T
  true_and_random = lambda x: np.stack([x, np.roll(x, -1)], 1).ravel()
  return Pieces(
      Examples(np.repeat(start, 2),
               np.repeat(middle - start, 2).astype(np.int32),
               true_and_random(middle),
               true_and_random(end - middle).astype(np.int32),
               np.tile([False, True], len(cuts)),
               separators=vocabulary.pair_separators),
      np.repeat(np.arange(len(cuts), dtype=np.int32), 2))


def fingerprint(corpus: Any, pieces: Pieces, tokenizer: str,
                *numbers: int) -> str:
  """Of what is scored, token by token.

  Args:
    corpus: that the pieces are of.
    tokenizer: its fingerprint.
    numbers: what else decides.
  """
  examples, masked_X = pieces.examples, pieces.masked_X
  digest = hashlib.blake2b(repr((tokenizer, numbers)).encode(), digest_size=16)
  for array in (pieces.item_X, examples.a_length_X, examples.b_length_X,
                list(map(len, masked_X)), np.concatenate([[], *masked_X])):
    array = np.zeros(0) if array is None else np.asarray(array)
    digest.update(repr(array.shape).encode() + array.astype("<i8").tobytes())
  for starts_X, lengths_X in ((examples.a_start_X, examples.a_length_X),
                              (examples.b_start_X, examples.b_length_X)):
    if starts_X is not None:
      for start, length in zip(starts_X.tolist(), lengths_X.tolist()):
        digest.update(_bytes(corpus, start, start + length))
  return digest.hexdigest()


def _bytes(corpus: Any, start: int, end: int) -> bytes:
  """Tokens of a corpus, of whatever type they are there."""
  return np.asarray(corpus.tokens_T[start:end], "<u4").tobytes()
