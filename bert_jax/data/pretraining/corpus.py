"""Text, tokenized once, on disk as flat arrays that are mapped into memory.

  DIRECTORY/corpus.json      what it was built from and what came out
  DIRECTORY/tokenizer.json   trained on the training split only
  DIRECTORY/{train,held_out}/
    tokens.bin               uint16, or uint32 above 65,536
    sentence_starts.bin      int64, in tokens, S + 1
    document_starts.bin      int64, in sentences, U + 1

Flat arrays and not ArrayRecord: decoding a record costs 0.2 ms, and a sentence
of a mapped array costs nothing until it is touched. Which token begins a word
is known from its id (`Vocabulary.word_start_V`).

A directory is built under another name and renamed when it is complete, so an
interrupted build never looks finished (`build_directory`). Memory is bounded by
a constant.
"""

import dataclasses
import json
import os
import pathlib
from typing import Any

import numpy as np

from bert_jax.config import UserError
from bert_jax.data.tokenizers.base import LoadedTokenizer
from bert_jax.data.tokenizers.choices import deserialize
from bert_jax.data.tokenizers.vocabulary import fingerprint

SPLITS = ("train", "held_out")
_MEND = "Delete the folder {}; it is built again when it is needed."


@dataclasses.dataclass(frozen=True, eq=False)
class Corpus:
  """One split: tokens of sentences of documents, all end to end.

  Sentence s is `tokens_T[sentence_starts_S1[s]:sentence_starts_S1[s + 1]]` and
  never empty; document u has sentences `document_starts_U1[u]` up to (not
  including) `document_starts_U1[u + 1]`, at least one.
  """

  directory: pathlib.Path
  tokens_T: np.ndarray
  sentence_starts_S1: np.ndarray
  document_starts_U1: np.ndarray
  fingerprint: str  # of the arrays and the tokenizer
  vocabulary_size: int
  counts: dict[str, Any]  # documents, sentences, tokens, bytes of text

  @classmethod
  def open(cls, directory: str | os.PathLike) -> "Corpus":
    """Opens one split's folder.

    Raises:
      UserError: not a corpus, or a file of it is truncated.
    """
    directory = pathlib.Path(directory).absolute()
    about = read_about(directory.parent)
    if directory.name not in about["splits"]:
      raise UserError(f"{directory} is no split of a corpus; there are "
                      f"{', '.join(about['splits'])}.")
    counts = about["splits"][directory.name]
    arrays = [_map(directory / f"{name}.bin", dtype, length)
              for name, dtype, length in (
                  ("tokens", about["dtype"], counts["tokens"]),
                  ("sentence_starts", "int64", counts["sentences"] + 1),
                  ("document_starts", "int64", counts["documents"] + 1))]
    return cls(directory, *arrays, counts["fingerprint"],
               about["vocabulary_size"], counts)

  def __reduce__(self) -> Any:
    """A copy in another process maps the same files."""
    return _reopened, (self.directory, self.fingerprint)


def _reopened(directory: pathlib.Path, expected: str) -> Corpus:
  corpus = Corpus.open(directory)
  if corpus.fingerprint != expected:
    raise UserError(f"{directory} was replaced by another corpus while it was "
                    "used; start again.")
  return corpus


@dataclasses.dataclass(frozen=True, eq=False)
class Splits:
  """A corpus: what is trained on, what never is, and the tokenizer of both.

  `description` says what was read, and how.
  """

  train: Corpus
  held_out: Corpus
  tokenizer: LoadedTokenizer
  description: str = ""

  @classmethod
  def open(cls, directory: str | os.PathLike) -> "Splits":
    """Opens what `build` made; a UserError if it is no complete corpus."""
    directory = pathlib.Path(directory).absolute()
    splits = [Corpus.open(directory / name) for name in SPLITS]
    state = _read_json(directory / "tokenizer.json")
    about = read_about(directory)
    if fingerprint(state) != about["tokenizer"]:
      raise UserError(f"{directory / 'tokenizer.json'} is not the tokenizer "
                      "that the corpus was built with. "
                      + _MEND.format(directory))
    return cls(*splits, deserialize(state), about["read"])


def is_complete(directory: pathlib.Path) -> bool:
  """
  Raises:
    UserError: something else is there.
  """
  if (directory / "corpus.json").exists():
    return True
  if directory.exists() and (
      not directory.is_dir() or any(directory.iterdir())):
    raise UserError(f"{directory} is there and holds no corpus; choose another "
                    "folder, or delete this one if a corpus is what it was.")
  return False


def _map(path: pathlib.Path, dtype: str, length: int) -> np.ndarray:
  dtype = np.dtype(dtype).newbyteorder("<")
  expected = length * dtype.itemsize
  try:
    actual = path.stat().st_size
  except OSError as error:
    remedy = _MEND.format(path.parents[1]) if isinstance(
        error, FileNotFoundError) else ""
    raise UserError(f"{path}: {error.strerror}. {remedy}") from None
  if actual != expected:
    raise UserError(f"{path} has {actual:,} bytes, expected {expected:,}: it "
                    f"is damaged. {_MEND.format(path.parents[1])}")
  if not length:
    return np.zeros(0, dtype)  # an empty file cannot be mapped
  return np.memmap(path, dtype, "r")


def read_about(directory: pathlib.Path) -> dict[str, Any]:
  """What corpus.json says, which has all that it should have."""
  about = _read_json(directory / "corpus.json")
  kinds = {"splits": dict, "dtype": str, "tokenizer": str, "key": dict,
            "vocabulary_size": int, "read": str}
  split = {"fingerprint": str, "tokens": int, "sentences": int,
           "documents": int}
  complete = _has(about, kinds) and all(
      _has(about["splits"].get(name), split) for name in SPLITS)
  if not complete:
    raise UserError(f"{directory / 'corpus.json'} is damaged: it lacks what it "
                    f"should say. {_MEND.format(directory)}")
  return about


def _has(content: Any, kinds: dict[str, type]) -> bool:
  return isinstance(content, dict) and all(
      isinstance(content.get(name), kind) for name, kind in kinds.items())


def _read_json(path: pathlib.Path) -> Any:
  try:
    return json.loads(path.read_text())
  except FileNotFoundError as error:
    mend = _MEND.format(path.parent) if path.parent.is_dir() else ""
    raise UserError(f"{path}: {error.strerror}; that is no complete corpus. "
                    + mend) from None
  except OSError as error:
    raise UserError(f"{path} cannot be read: {error.strerror}.") from None
  except ValueError as error:
    raise UserError(f"{path} is damaged: {error}. "
                    + _MEND.format(path.parent)) from None
