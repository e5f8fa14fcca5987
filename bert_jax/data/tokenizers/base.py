"""Loaded tokenizers: one face over every kind, and what models know of them.

Special tokens are BERT's [PAD] [UNK] [CLS] [SEP] [MASK], or what a published
vocabulary calls them. No text can write them: a literal `[MASK]` in a text is
six ordinary characters, and a word that a library takes for one is unknown.

Ids are those that the library gives for the complete text.
"""

import abc
import collections
import functools
import itertools
import os
import re
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from bert_jax.config import UserError
from bert_jax.data.tokenizers.vocabulary import Vocabulary, fingerprint

_CACHED_WORDS = 1 << 20
_CACHED_IDS = 1 << 24


class LoadedTokenizer(abc.ABC):
  """A tokenizer ready for use, the same face for every kind."""

  vocabulary: Vocabulary
  fingerprint: str  # of everything that decides what text becomes which ids

  def __init__(self, pieces: Sequence[str]):
    self.pieces = tuple(pieces)
    twice = [piece for piece, count in collections.Counter(pieces).items()
             if count > 1]
    if twice:
      raise UserError(f"The vocabulary has {len(twice)} pieces more than once, "
                      f"as {', '.join(map(repr, twice[:5]))}; each piece has "
                      "one id.")
    self.fingerprint = fingerprint(self.serialize())
    self._forget()

  # Whether no piece reaches over a space and a word's ids do not depend on its
  # neighbors: each word is then tokenized once and looked up, several times as
  # fast as the library is on complete texts.
  _by_word = True
  # What `_split` takes away between its parts, in characters.
  _gap = 1

  def _split(self, text: str) -> list[str]:
    """Parts of a text whose ids do not depend on their neighbors."""
    return text.split(" ")

  @abc.abstractmethod
  def _encode(self, texts: Sequence[str]) -> list[list[int]]:
    """Ids of texts, in parallel inside the library."""

  @abc.abstractmethod
  def _spans(self, texts: Sequence[str]) -> list[
      tuple[list[int], list[tuple[int, int]]]]:
    """Ids of texts, and where in its text each came from, in characters."""

  @abc.abstractmethod
  def decode(self, ids: Sequence[int]) -> str:
    """Text of ids; special ids are left out."""

  @abc.abstractmethod
  def serialize(self) -> dict[str, Any]:
    """JSON-able; `deserialize` makes an equal tokenizer of it."""

  @abc.abstractmethod
  def file(self) -> bytes:
    """What `path` loads and other programs read: a .model, a vocab.txt."""

  @abc.abstractmethod
  def directory(self, model_max_length: int | None = None) -> dict[str, bytes]:
    """Files that `transformers.AutoTokenizer.from_pretrained` loads.

    It gives the same ids, but for special tokens in a text: there it takes
    them for what they name, unless given `split_special_tokens=True`.

    Args:
      model_max_length: tokens that the network has positions for.
    """

  def encode(self, texts: Sequence[str]) -> list[list[int]]:
    """Ids of each text, without special tokens."""
    return _cut(*self.encode_flat(texts))

  def encode_flat(
      self, texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """(ids of all texts end to end, int32; number of ids of each text)."""
    _check_several(texts)
    if not self._by_word:
      return self._flat(self._checked(self._encode, list(texts)))
    words, counts = [], []
    for text in texts:
      line = self._split(text)
      words += line
      counts.append(len(line))
    ids, lengths = self._encode_each(words)
    ends = np.concatenate([[0], np.cumsum(lengths)])
    return ids, np.diff(ends[np.concatenate([[0], np.cumsum(counts)])
                             .astype(np.int64)])

  def encode_words(
      self, words_batch: Sequence[Sequence[str]]) -> list[list[list[int]]]:
    """Ids of each word of each text, as if spaces stood between the words."""
    if not self._by_word:
      return self._cut_at_words(words_batch)
    words = itertools.chain.from_iterable(words_batch)
    pieces = iter(_cut(*self._encode_each(list(words))))
    return [list(itertools.islice(pieces, len(line))) for line in words_batch]

  def encode_offsets(self, texts: Sequence[str]) -> list[
      tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """(ids, starts, ends) of each text; the ids are those of `encode`.

    Token i comes from `text[starts[i]:ends[i]]`, in characters of the text as
    given: before case, accents or ligatures were changed. White space around a
    word is not counted to it. Tokens that share a character (bytes of it, or
    what it was decomposed into) share its place. int32.
    """
    _check_several(texts)
    lines = [self._split(text) if self._by_word else [text] for text in texts]
    words = list(dict.fromkeys(itertools.chain.from_iterable(lines)))
    spans = {word: (self._written_V[np.array(ids, np.int32)],
                    np.array([_trimmed(word, *place) for place in places],
                             np.int32).reshape(-1, 2))
             for word, (ids, places) in zip(words, self._checked(
                 self._spans, words))}
    return [self._placed(line, spans) for line in lines]

  def _placed(self, line: Sequence[str], spans: dict[str, Any]) -> tuple[
      np.ndarray, np.ndarray, np.ndarray]:
    begin, ids, places = 0, [np.zeros(0, np.int32)], [
        np.zeros((0, 2), np.int32)]
    for word in line:
      ids.append(spans[word][0])
      places.append(spans[word][1] + np.int32(begin))
      begin += len(word) + self._gap
    return np.concatenate(ids), *np.concatenate(places).T

  def _cut_at_words(
      self, words_batch: Sequence[Sequence[str]]) -> list[list[list[int]]]:
    """A token belongs to the last word that begins before the token ends."""
    texts = [" ".join(words) for words in words_batch]
    lines = []
    for words, (ids, _, ends) in zip(words_batch, self.encode_offsets(texts)):
      starts = np.cumsum([0, *(len(word) + 1 for word in words)])
      # A space alone belongs to the word behind it, white space in a word to
      # that one.
      word_T = np.searchsorted(starts, ends, side="right") - 1
      lines.append([ids[word_T == i].tolist() for i in range(len(words))])
    return lines

  @functools.cached_property
  def _written_V(self) -> np.ndarray:
    """What an id of the library's means in a text: not ordinary is unknown."""
    ids_V = np.full(self.vocabulary.size, self.vocabulary.unk_id, np.int32)
    ids_V[self.vocabulary.ordinary_ids] = self.vocabulary.ordinary_ids
    return ids_V

  def _flat(self, encoded: Sequence[Sequence[int]]) -> tuple[
      np.ndarray, np.ndarray]:
    """(ids end to end, their numbers), where no id is special but [UNK]."""
    lengths = np.fromiter(map(len, encoded), np.int64, len(encoded))
    ids = np.fromiter(itertools.chain.from_iterable(encoded), np.int32,
                      int(lengths.sum()))
    return self._written_V[ids], lengths

  def tokens(self, ids: Sequence[int]) -> list[str]:
    """The pieces behind ids, as the vocabulary spells them."""
    return [self.pieces[i] for i in ids]

  def _forget(self) -> None:
    """The words tokenized so far: their numbers, and their ids end to end."""
    self._numbers = _Numbers()
    self._ids = np.zeros(1 << 16, np.int32)
    self._ends = np.zeros(1 << 16, np.int64)  # of word i at i + 1

  def _encode_each(
      self, words: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """(ids of all words end to end, number of ids of each)."""
    count = len(self._numbers)
    if count > _CACHED_WORDS or self._ends[count] > _CACHED_IDS:
      self._forget()
    numbers = np.fromiter(
        map(self._numbers.__getitem__, words), np.int64, len(words))
    if self._numbers.new:
      self._learn()
    starts = self._ends[numbers]
    lengths = self._ends[numbers + 1] - starts
    places = np.repeat(starts - np.cumsum(lengths) + lengths, lengths)
    places += np.arange(len(places))
    return self._ids[places], lengths

  def _checked(self, encode: Callable[[Sequence[str]], Any],
               words: Sequence[str]) -> Any:
    """What `encode` makes of words; a UserError if one is no text."""
    try:
      return encode(words)
    except TypeError:
      self._forget()  # They were numbered and will never be learned.
      for word in words:
        if not word.isascii() and re.search("[\ud800-\udfff]", word):
          raise UserError(
              f"The text {word!r} holds half of a surrogate pair, which is no "
              "character and has no token. Files with `\\ud83d` and the like "
              "were cut or joined by UTF-16 units; fix the file, or read it "
              "with text.encode('utf-8', 'replace').decode().") from None
      raise

  def _learn(self) -> None:
    """Tokenizes the words that were numbered since the last time."""
    new, self._numbers.new = self._numbers.new, []
    end = len(self._numbers)
    ids, lengths = self._flat(self._checked(self._encode, new))
    ends = np.cumsum(lengths) + self._ends[end - len(new)]
    self._ends = _with_room(self._ends, end + 1)
    self._ends[end - len(new) + 1:end + 1] = ends
    self._ids = _with_room(self._ids, int(ends[-1]))
    self._ids[self._ends[end - len(new)]:ends[-1]] = ids


class _Numbers(dict):
  """Numbers words in order of appearance; `new` are those not yet tokenized."""

  def __init__(self):
    self.new: list[str] = []

  def __missing__(self, word: str) -> int:
    self.new.append(word)
    self[word] = number = len(self)
    return number


def _trimmed(text: str, start: int, end: int) -> tuple[int, int]:
  """A place without the white space around it, unless that is all it is."""
  inner = text[start:end].strip()
  if not inner:
    return start, end
  start = text.index(inner, start, end)
  return start, start + len(inner)


def _check_several(texts: Sequence[str]) -> None:
  """A text alone would be taken letter by letter."""
  if isinstance(texts, str):
    raise UserError(f"Expected a list of texts, as [{texts[:20]!r}], not a "
                    "single one.")


def _cut(ids: np.ndarray, lengths: np.ndarray) -> list[list[int]]:
  flat, ends = ids.tolist(), np.cumsum(lengths).tolist()
  return [flat[end - n:end] for end, n in zip(ends, lengths.tolist())]


def _with_room(array: np.ndarray, size: int) -> np.ndarray:
  """The array, or a copy of at least twice the length if it is too short."""
  if size <= len(array):
    return array
  return np.concatenate([array, np.zeros(size, array.dtype)])


@functools.cache
def threads() -> int:
  return len(os.sched_getaffinity(0)) if hasattr(
      os, "sched_getaffinity") else os.cpu_count() or 1
