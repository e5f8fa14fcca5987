"""Tokenizers: how to get one. Choices train one or load one that exists."""

import collections
import dataclasses
import io
import json
import pathlib
import re
import unicodedata
from collections.abc import Iterable
from typing import Any, Literal

import numpy as np

from bert_jax.config import Choice, UserError, nearest
from bert_jax.data.tokenizers.base import LoadedTokenizer
from bert_jax.data.tokenizers import byte_bpe, training_text
from bert_jax.data.tokenizers.byte_bpe import ByteLevel
from bert_jax.data.tokenizers.hf_directory import (
    from_directory, vocabulary_lines)
from bert_jax.data.tokenizers.json_file import JsonFile
from bert_jax.data.tokenizers.sentencepiece import SentencePiece
from bert_jax.data.tokenizers.vocabulary import (
    CLS, MASK, PAD, SEP, SPECIAL, UNK, Vocabulary, fingerprint)
from bert_jax.data.tokenizers.without_text import WithoutText
from bert_jax.data.tokenizers.wordpiece import WordPiece, bert_text

# What is imported from here although it lies below.
__all__ = ["SPECIAL", "LoadedTokenizer", "SentencePieceTokenizer", "Tokenizer",
           "Vocabulary", "WordPieceTokenizer", "deserialize", "fingerprint",
           "from_directory"]

_LETTERS = 1000  # as many characters as the tokenizers library takes
_COVERAGE = 0.9995  # of the characters of a text, as SentencePiece has it


def deserialize(state: dict[str, Any]) -> LoadedTokenizer:
  """The tokenizer of `serialize`."""
  kinds = {"sentencepiece": SentencePiece, "wordpiece": WordPiece,
           "byte_level": ByteLevel, "json_file": JsonFile,
           "without_text": WithoutText}
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
  """SentencePiece, trained on the text or from a .model file.

  Kudo and Richardson 2018.

  Attributes:
    vocab_size: number of tokens, special tokens included.
    model_type: SentencePiece's algorithm: byte-pair encoding or a unigram
      language model.
    lowercase: whether text is made lower case first.
    byte_fallback: whether rare characters become bytes: no text is lost, so no
      [UNK] is predicted and bits per byte are honest. It takes 256 tokens;
      false gives them to pieces, covers .9995 of the characters and makes the
      others [UNK].
    path: an existing .model file, whose own settings hold then; "": train one.
  """

  vocab_size: int = 8192
  model_type: Literal["bpe", "unigram"] = "bpe"
  lowercase: bool = False
  byte_fallback: bool = True
  path: str = ""

  def build(self, sentences: Iterable[str]) -> LoadedTokenizer:
    if self.path:
      return SentencePiece.of(_read_bytes(self.path))
    _check_size(self.vocab_size)
    import sentencepiece
    model, text = io.BytesIO(), training_text.sample(sentences)
    try:
      sentencepiece.SentencePieceTrainer.train(
          sentence_iterator=iter(text),
          model_writer=model, vocab_size=self.vocab_size,
          model_type=self.model_type, byte_fallback=self.byte_fallback,
          normalization_rule_name="nmt_nfkc_cf" if self.lowercase
          else "nmt_nfkc",
          # Control pieces: special ids that no text is ever tokenized into.
          pad_id=0, pad_piece=PAD, unk_id=1, unk_piece=UNK, bos_id=2,
          bos_piece=CLS, eos_id=3, eos_piece=SEP, control_symbols=[MASK],
          unk_surface=UNK, max_sentence_length=1 << 27,
          # More threads make the unigram model differ from run to run.
          num_threads=1, minloglevel=2)
    except (RuntimeError, ValueError, StopIteration) as error:
      raise UserError(_training_problem(error, self.vocab_size)) from None
    return SentencePiece.of(model.getvalue())


@dataclasses.dataclass(frozen=True)
class WordPieceTokenizer(Tokenizer, name="wordpiece"):
  """BERT's own WordPiece, trained on the text or from a vocab.txt.

  With BERT's normalizer, by the `tokenizers` library.

  Attributes:
    vocab_size: number of tokens, special tokens included.
    lowercase: whether text is made lower case first.
    strip_accents: whether letters lose their accents; None: if `lowercase`, as
      BERT does.
    chinese_characters: whether each Chinese character is a word.
    path: an existing vocab.txt, of which all lines are tokens; "": train one.
  """

  vocab_size: int = 30522
  lowercase: bool = True
  strip_accents: bool | None = None
  chinese_characters: bool = True
  path: str = ""

  def build(self, sentences: Iterable[str]) -> LoadedTokenizer:
    if self.path:
      return WordPiece(vocabulary_lines(pathlib.Path(self.path).expanduser()),
                       self._text())
    import tokenizers
    _check_size(self.vocab_size)
    sample = training_text.sample(sentences)
    raw = bert_text(tokenizers.models.WordPiece(unk_token=UNK), **self._text())
    # Ids decide ties between merges, and the library numbers characters in an
    # order that changes from run to run unless they are given.
    letters = self._letters(raw.normalizer, sample)
    trainer = tokenizers.trainers.WordPieceTrainer(
        vocab_size=self.vocab_size, initial_alphabet=letters,
        limit_alphabet=len(letters), special_tokens=[
            *SPECIAL, *letters, *(f"##{c}" for c in letters
                                  if _joins(c, self.chinese_characters))],
        continuing_subword_prefix="##", show_progress=False)
    raw.train_from_iterator(sample, trainer)
    vocabulary = raw.get_vocab()
    if len(vocabulary) == len(SPECIAL):
      raise UserError("No text to train a tokenizer on.")
    return WordPiece(sorted(vocabulary, key=vocabulary.__getitem__),
                     self._text())

  def _letters(self, normalizer: Any, sample: Iterable[str]) -> list[str]:
    """The most frequent characters of normalized text, sorted.

    Those that cover the text, and others if half the vocabulary holds them.

    Raises:
      UserError: the vocabulary does not hold those that cover the text.
    """
    counts = collections.Counter()
    for sentence in sample:
      counts.update(normalizer.normalize_str(sentence))
    del counts[" "]
    frequent = sorted(counts, key=lambda c: (-counts[c], c))
    sizes = np.cumsum([len(SPECIAL)] + [
        1 + _joins(c, self.chinese_characters) for c in frequent])
    covered = np.cumsum([0] + [counts[c] for c in frequent])
    needed = int(np.searchsorted(covered, _COVERAGE * covered[-1]))
    if sizes[needed] > self.vocab_size:
      raise UserError(
          f"vocab_size={self.vocab_size} is too small for the characters of "
          f"this text; at least {sizes[needed]}.")
    room = int(np.searchsorted(sizes, self.vocab_size / 2, side="right")) - 1
    return sorted(frequent[:max(needed, min(room, _LETTERS))])

  def _text(self) -> dict[str, Any]:
    return dict(lowercase=self.lowercase, strip_accents=self.strip_accents,
                handle_chinese_chars=self.chinese_characters, clean_text=True)


@dataclasses.dataclass(frozen=True)
class ByteLevelTokenizer(Tokenizer, name="byte_level"):
  """Byte-level BPE as GPT-2 and RoBERTa have it (Radford et al. 2019), trained
  on the text by the `tokenizers` library.

  No text is unknown to it, and none is changed: white space is kept. With
  vocab_size=261, the bytes and the special tokens, each byte is a token.

  Attributes:
    vocab_size: number of tokens, special tokens included.
    prefix_space: whether a text that does not begin with a space gets one, so
      that its first word has the same pieces as later ones.
  """

  vocab_size: int = 30522
  prefix_space: bool = False

  def build(self, sentences: Iterable[str]) -> LoadedTokenizer:
    import tokenizers
    alphabet = sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet())
    least = len(alphabet) + len(byte_bpe.SPECIAL)
    if self.vocab_size < least:
      raise UserError(f"vocab_size={self.vocab_size}: at least {least}, the "
                      f"bytes and {', '.join(byte_bpe.SPECIAL)}.")
    raw = tokenizers.Tokenizer(tokenizers.models.BPE())
    raw.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(
        add_prefix_space=self.prefix_space)
    raw.train_from_iterator(training_text.sample(
        sentences), tokenizers.trainers.BpeTrainer(
        vocab_size=self.vocab_size, initial_alphabet=alphabet,
        special_tokens=list(byte_bpe.SPECIAL), show_progress=False))
    model = json.loads(raw.to_str())["model"]
    pieces = sorted(model["vocab"], key=model["vocab"].__getitem__)
    merges = [merge if isinstance(merge, str) else " ".join(merge)
              for merge in model["merges"]]
    return ByteLevel(pieces, merges, self.prefix_space)


@dataclasses.dataclass(frozen=True)
class DirectoryTokenizer(Tokenizer, name="directory"):
  """The tokenizer in a directory of Hugging Face's.

  See `from_directory`.

  Attributes:
    path: the directory, as `save_pretrained` of transformers writes it.
  """

  path: str = ""

  def build(self, sentences: Iterable[str]) -> LoadedTokenizer:
    if not self.path:
      raise UserError("data.tokenizer.path: name the directory that holds the "
                      "tokenizer's files.")
    return from_directory(self.path)


def _check_size(vocab_size: int) -> None:
  if vocab_size <= len(SPECIAL):
    raise UserError(f"vocab_size={vocab_size}: more than {len(SPECIAL)}, the "
                    f"special tokens {', '.join(SPECIAL)}.")


def _joins(letter: str, chinese_characters: bool) -> bool:
  """Whether BERT lets a character stand inside a word."""
  punctuation = (letter.isascii() and not letter.isalnum()
                 or unicodedata.category(letter).startswith("P"))
  apart = (chinese_characters
           and unicodedata.name(letter, "").startswith("CJK"))
  return not punctuation and not apart


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
  if "all_chars_count" in text or "sentences_.empty" in text:
    return "No text to train a tokenizer on."
  # Of "INTERNAL: file.cc(78) [condition] explanation" what is for others.
  reason = re.sub(r"^\w+: \S+\(\d+\) \[.*?\]\s*", "", text)
  return (f"SentencePiece cannot train with vocab_size={vocab_size}"
          + (f": {reason}" if reason else "; allowed: more than the "
             f"{len(SPECIAL)} special pieces."))


def _read_bytes(path: str) -> bytes:
  try:
    return pathlib.Path(path).expanduser().read_bytes()
  except OSError as error:
    raise UserError(f"Tokenizer file {path!r}: {error.strerror}.") from None
