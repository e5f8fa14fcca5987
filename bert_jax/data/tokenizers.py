"""Tokenizers: how to get one (choices), and one face over all of them.

Special tokens are BERT's [PAD] [UNK] [CLS] [SEP] [MASK]. No text can write
them: a literal `[MASK]` in a text is six ordinary characters.
"""

import abc
import base64
import collections
import dataclasses
import functools
import hashlib
import io
import itertools
import json
import os
import pathlib
import re
import unicodedata
from collections.abc import Iterable, Sequence
from typing import Any, Literal

import numpy as np

from bert_jax.config import Choice, UserError, nearest

SPECIAL = PAD, UNK, CLS, SEP, MASK = (
    "[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
# Training reads an even sample of at most so many characters: more text moves
# the most frequent pieces very little and costs time and memory.
_SAMPLE_CHARACTERS = 1 << 24
_CACHED_WORDS = 1 << 20
_CACHED_IDS = 1 << 24
_LETTERS = 1000  # as many characters as the library itself takes


@dataclasses.dataclass(frozen=True, eq=False)
class Vocabulary:
  """What models and objectives know about the ids.

  `byte_count_V` is UTF-8 bytes of text that an id stands for (0 for special
  ids), a space before a word included; it is what bits per byte divide by.
  WordPiece forgets spaces, so there one is counted for each word, none for
  punctuation.
  """

  size: int
  pad_id: int
  unk_id: int
  cls_id: int
  sep_id: int
  mask_id: int
  word_start_V: np.ndarray  # bool: this id begins a word
  byte_count_V: np.ndarray  # int32
  ordinary_ids: np.ndarray  # int32: every id that is not special


class LoadedTokenizer(abc.ABC):
  """A tokenizer ready for use, the same face for every kind."""

  vocabulary: Vocabulary
  fingerprint: str  # of everything that decides what text becomes which ids

  def __init__(self, pieces: Sequence[str]):
    self.pieces = tuple(pieces)
    self.fingerprint = fingerprint(self.serialize())
    self._forget()

  @abc.abstractmethod
  def _encode(self, texts: Sequence[str]) -> list[list[int]]:
    """Ids of texts, in parallel inside the library."""

  @abc.abstractmethod
  def decode(self, ids: Sequence[int]) -> str:
    """Text of ids; special ids are left out."""

  @abc.abstractmethod
  def serialize(self) -> dict[str, Any]:
    """JSON-able; `deserialize` makes an equal tokenizer of it."""

  @abc.abstractmethod
  def file(self) -> bytes:
    """What `path` loads and other programs read: a .model, a vocab.txt."""

  def encode(self, texts: Sequence[str]) -> list[list[int]]:
    """Ids of each text, without special tokens."""
    return _cut(*self.encode_flat(texts))

  def encode_flat(
      self, texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """(ids of all texts end to end, int32; number of ids of each text).

    No piece reaches over a space, so a word's ids do not depend on its
    neighbours: each word is tokenized once and then looked up, several times
    as fast as whole sentences. (Unigram models round otherwise over a whole
    sentence, so a tie inside a word may fall the other way.)
    """
    words, counts = [], []
    for text in texts:
      line = text.split(" ")
      words += line
      counts.append(len(line))
    ids, lengths = self._encode_each(words)
    ends = np.concatenate([[0], np.cumsum(lengths)])
    return ids, np.diff(ends[np.concatenate([[0], np.cumsum(counts)])
                             .astype(np.int64)])

  def encode_words(
      self, words_batch: Sequence[Sequence[str]]) -> list[list[list[int]]]:
    """Ids of each word of each text, as if spaces stood between the words."""
    words = itertools.chain.from_iterable(words_batch)
    pieces = iter(_cut(*self._encode_each(list(words))))
    return [list(itertools.islice(pieces, len(line))) for line in words_batch]

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

  def _learn(self) -> None:
    """Tokenizes the words that were numbered since the last time."""
    new, self._numbers.new = self._numbers.new, []
    end = len(self._numbers)
    encoded = self._encode(new)
    ends = np.cumsum([len(ids) for ids in encoded]) + self._ends[end - len(new)]
    self._ends = _with_room(self._ends, end + 1)
    self._ends[end - len(new) + 1:end + 1] = ends
    self._ids = _with_room(self._ids, int(ends[-1]))
    self._ids[self._ends[end - len(new)]:ends[-1]] = list(
        itertools.chain.from_iterable(encoded))


class _Numbers(dict):
  """Numbers words in order of appearance; `new` are those not yet tokenized."""

  def __init__(self):
    self.new: list[str] = []

  def __missing__(self, word: str) -> int:
    self.new.append(word)
    self[word] = number = len(self)
    return number


def deserialize(state: dict[str, Any]) -> LoadedTokenizer:
  """The tokenizer of `serialize`."""
  kinds = {"sentencepiece": _SentencePiece, "wordpiece": _WordPiece}
  if state["kind"] not in kinds:
    raise UserError(f"Unknown kind of tokenizer {state['kind']!r}"
                    + nearest(state["kind"], kinds))
  options = dict(state)
  return kinds[options.pop("kind")](**options)


class Tokenizer(Choice):
  """How to get a tokenizer: train one, or load one that exists."""

  def build(self, sentences: Iterable[str]) -> LoadedTokenizer:
    """Trains on sentences (or loads); same input, same tokenizer, every time.

    Raises:
      UserError: too little text for the vocabulary, or an unreadable file.
    """
    raise NotImplementedError


@dataclasses.dataclass(frozen=True)
class SentencePieceTokenizer(Tokenizer, name="sentencepiece"):
  """SentencePiece (Kudo and Richardson 2018)."""

  vocab_size: int = 8192
  model_type: Literal["bpe", "unigram"] = "bpe"
  lowercase: bool = False
  # Rare characters become bytes: no text is lost, so no [UNK] is predicted and
  # bits per byte are honest. It takes 256 ids; `false` gives them to pieces,
  # covers .9995 of the characters and makes the others [UNK].
  byte_fallback: bool = True
  path: str = ""  # an existing .model; its own settings hold then

  def build(self, sentences: Iterable[str]) -> LoadedTokenizer:
    if self.path:
      return _SentencePiece(_in_base64(_read_bytes(self.path)))
    import sentencepiece
    model = io.BytesIO()
    try:
      sentencepiece.SentencePieceTrainer.train(
          sentence_iterator=iter(_sample(sentences)),
          model_writer=model, vocab_size=self.vocab_size,
          model_type=self.model_type, byte_fallback=self.byte_fallback,
          normalization_rule_name="nmt_nfkc_cf" if self.lowercase
          else "nmt_nfkc",
          # Control pieces: special ids that no text is ever tokenized into.
          pad_id=0, pad_piece=PAD, unk_id=1, unk_piece=UNK, bos_id=2,
          bos_piece=CLS, eos_id=3, eos_piece=SEP, control_symbols=[MASK],
          unk_surface=UNK, max_sentence_length=1 << 20,
          # More threads make the unigram model differ from run to run.
          num_threads=1, minloglevel=2)
    except (RuntimeError, ValueError, StopIteration) as error:
      raise UserError(_training_problem(error, self.vocab_size)) from None
    return _SentencePiece(_in_base64(model.getvalue()))


@dataclasses.dataclass(frozen=True)
class WordPieceTokenizer(Tokenizer, name="wordpiece"):
  """BERT's own WordPiece, with its normaliser, by the `tokenizers` library."""

  vocab_size: int = 30522
  lowercase: bool = True  # and accents stripped, as in BERT's uncased models
  path: str = ""  # an existing vocab.txt; vocab_size is then its length

  def build(self, sentences: Iterable[str]) -> LoadedTokenizer:
    if self.path:
      text = _read_bytes(self.path).decode(errors="replace")
      return _WordPiece(text.rstrip("\n").replace("\r\n", "\n").split("\n"),
                        self.lowercase)
    import tokenizers
    sample = _sample(sentences)
    raw = _bert(tokenizers.models.WordPiece(unk_token=UNK), self.lowercase)
    # Ids decide ties between merges, and the library numbers characters in an
    # order that changes from run to run unless they are given.
    letters = _letters(raw.normalizer, sample)
    trainer = tokenizers.trainers.WordPieceTrainer(
        vocab_size=self.vocab_size, initial_alphabet=letters,
        limit_alphabet=len(letters), special_tokens=[
            *SPECIAL, *letters, *(f"##{c}" for c in letters if _joins(c))],
        continuing_subword_prefix="##", show_progress=False)
    raw.train_from_iterator(sample, trainer)
    vocabulary = raw.get_vocab()
    if len(vocabulary) == len(SPECIAL):
      raise UserError("No text to train a tokenizer on.")
    return _WordPiece(sorted(vocabulary, key=vocabulary.__getitem__),
                      self.lowercase)


class _SentencePiece(LoadedTokenizer):

  def __init__(self, model: str):
    import sentencepiece
    self._model = model
    self._processor = sentencepiece.SentencePieceProcessor()
    try:
      self._processor.LoadFromSerializedProto(base64.b64decode(model))
    except RuntimeError:
      raise UserError("This is no SentencePiece model.") from None
    processor = self._processor
    size = processor.get_piece_size()
    super().__init__([processor.id_to_piece(i) for i in range(size)])
    special = [i for i in range(size) if processor.is_control(i)
               or processor.is_unknown(i)]
    self.vocabulary = _vocabulary(
        self.pieces, special, [p.startswith("▁") for p in self.pieces],
        [1 if processor.is_byte(i) else len(p.replace("▁", " ").encode())
         for i, p in enumerate(self.pieces)])
    if any("▁" in p.lstrip("▁") for p in self.pieces):
      raise UserError("This SentencePiece model has pieces that reach over a "
                      "space (split_by_whitespace=false); that is unsupported.")

  def _encode(self, texts: Sequence[str]) -> list[list[int]]:
    return self._processor.encode(list(texts), num_threads=_threads())

  def decode(self, ids: Sequence[int]) -> str:
    return self._processor.decode([int(i) for i in ids])

  def file(self) -> bytes:
    return base64.b64decode(self._model)

  def serialize(self) -> dict[str, Any]:
    return {"kind": "sentencepiece", "model": self._model}


class _WordPiece(LoadedTokenizer):

  def __init__(self, vocabulary: Sequence[str], lowercase: bool):
    import tokenizers
    self._lowercase = lowercase
    ids = {piece: i for i, piece in enumerate(vocabulary)}
    self._tokenizer = _bert(
        tokenizers.models.WordPiece(ids, unk_token=UNK), lowercase)
    super().__init__(vocabulary)
    continues = [p.startswith("##") and len(p) > 2 for p in self.pieces]
    bytes_ = [len(p.encode()) - 2 if c else len(p.encode()) + p[:1].isalnum()
              for p, c in zip(self.pieces, continues)]
    special = [i for i, p in enumerate(self.pieces) if p in SPECIAL]
    self.vocabulary = _vocabulary(
        self.pieces, special, [not c for c in continues], bytes_)

  def _encode(self, texts: Sequence[str]) -> list[list[int]]:
    return [e.ids for e in self._tokenizer.encode_batch_fast(
        list(texts), add_special_tokens=False)]

  def decode(self, ids: Sequence[int]) -> str:
    special = set(range(len(self.pieces))) - set(
        self.vocabulary.ordinary_ids.tolist())
    return self._tokenizer.decode([int(i) for i in ids if i not in special])

  def file(self) -> bytes:
    return "".join(f"{piece}\n" for piece in self.pieces).encode()

  def serialize(self) -> dict[str, Any]:
    return {"kind": "wordpiece", "vocabulary": list(self.pieces),
            "lowercase": self._lowercase}


def _bert(model: Any, lowercase: bool) -> Any:
  """A `tokenizers.Tokenizer` that treats text as google-research/bert does."""
  import tokenizers
  tokenizer = tokenizers.Tokenizer(model)
  tokenizer.normalizer = tokenizers.normalizers.BertNormalizer(
      lowercase=lowercase)
  tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.BertPreTokenizer()
  tokenizer.decoder = tokenizers.decoders.WordPiece(prefix="##")
  return tokenizer


def _letters(normalizer: Any, sample: Iterable[str]) -> list[str]:
  """The most frequent characters of normalised text, sorted."""
  counts = collections.Counter()
  for sentence in sample:
    counts.update(normalizer.normalize_str(sentence))
  del counts[" "]
  frequent = sorted(counts, key=lambda c: (-counts[c], c))
  return sorted(frequent[:_LETTERS])


def _joins(letter: str) -> bool:
  """Whether BERT lets a character stand inside a word."""
  punctuation = (letter.isascii() and not letter.isalnum()
                 or unicodedata.category(letter).startswith("P"))
  return not punctuation and not unicodedata.name(letter, "").startswith("CJK")


def _vocabulary(pieces: Sequence[str], special: Sequence[int],
                word_start: Sequence[bool],
                byte_count: Sequence[int]) -> Vocabulary:
  ids = {piece: i for i, piece in enumerate(pieces)}
  missing = [name for name in SPECIAL if name not in ids]
  if missing:
    raise UserError(f"The vocabulary lacks {', '.join(missing)}; BERT needs "
                    f"{', '.join(SPECIAL)}.")
  ordinary = np.ones(len(pieces), bool)
  ordinary[list(special)] = False
  return Vocabulary(
      len(pieces), *(ids[name] for name in SPECIAL),
      word_start_V=np.array(word_start) & ordinary,
      byte_count_V=np.where(ordinary, byte_count, 0).astype(np.int32),
      ordinary_ids=np.flatnonzero(ordinary).astype(np.int32))


def _cut(ids: np.ndarray, lengths: np.ndarray) -> list[list[int]]:
  flat, ends = ids.tolist(), np.cumsum(lengths).tolist()
  return [flat[end - n:end] for end, n in zip(ends, lengths.tolist())]


def _with_room(array: np.ndarray, size: int) -> np.ndarray:
  """The array, or a copy of at least twice the length if it is too short."""
  if size <= len(array):
    return array
  return np.concatenate([array, np.zeros(size, array.dtype)])


def _sample(sentences: Iterable[str]) -> list[str]:
  """An even sample of bounded size: every k-th sentence, k a power of two."""
  kept, size, stride = [], 0, 1
  for i, sentence in enumerate(sentences):
    if i % stride:
      continue
    kept.append(sentence)
    size += len(sentence)
    while size > _SAMPLE_CHARACTERS and len(kept) > 1:
      kept, stride = kept[::2], stride * 2
      size = sum(map(len, kept))
  if not any(map(str.strip, kept)):
    raise UserError("No text to train a tokenizer on.")
  return kept


def _training_problem(error: Exception, vocab_size: int) -> str:
  text = str(error)
  most = re.search(r"(?:<=|lower than or equal to) (\d+)", text)
  least = re.search(r"smaller than required_chars. \d+ vs (\d+)", text)
  if most:
    return (f"vocab_size={vocab_size} is more than this text has pieces for; "
            f"at most {most[1]}.")
  if least:
    return (f"vocab_size={vocab_size} is too small for the characters of this "
            f"text; at least {least[1]}.")
  return f"SentencePiece cannot train with vocab_size={vocab_size}: {text}"


def _read_bytes(path: str) -> bytes:
  try:
    return pathlib.Path(path).expanduser().read_bytes()
  except OSError as error:
    raise UserError(f"Tokenizer file {path!r}: {error.strerror}.") from None


def _in_base64(data: bytes) -> str:
  return base64.b64encode(data).decode()


def fingerprint(state: dict[str, Any]) -> str:
  """Of what `serialize` gives."""
  text = json.dumps(state, sort_keys=True).encode()
  return hashlib.blake2b(text, digest_size=16).hexdigest()


@functools.cache
def _threads() -> int:
  return len(os.sched_getaffinity(0)) if hasattr(
      os, "sched_getaffinity") else os.cpu_count() or 1
