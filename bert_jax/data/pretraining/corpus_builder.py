"""Builds a corpus: reads, splits, tokenizes and writes."""

import contextlib
import dataclasses
import functools
import hashlib
import importlib.metadata
import json
import os
import pathlib
import re
import sys
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import tqdm

from bert_jax import files
from bert_jax.config import UserError, wrapped
from bert_jax.data.pretraining.build_directory import (
    build_directory, publish, remove_leftovers)
from bert_jax.data.pretraining.corpus import (
    Splits, SPLITS, read_about, is_complete)
from bert_jax.data.pretraining.corpus_text import (
    CorpusText, corpus_text, path_size_and_date)
from bert_jax.data.text import documents
from bert_jax.data.text.documents import Document, TextCounts
from bert_jax.data.tokenizers.base import LoadedTokenizer
from bert_jax.data.tokenizers.choices import Tokenizer

_VERSION = 3
_BATCH_CHARACTERS = 1 << 21


def prepare(spec: str, tokenizer: Tokenizer | LoadedTokenizer,
            root: str | os.PathLike, held_out_percent: float,
            evaluation_spec: str = "") -> Splits:
  """The corpus of a spec in a folder of its own under `root`.

  Built at the first call; reused as long as the spec, the files' sizes and
  dates, the tokenizer and the held-out share are the same. Another process of
  this host that builds it is waited for.

  Args:
    evaluation_spec: the text that is held out instead of a share.
  """
  root = pathlib.Path(root).absolute()
  with corpus_text(spec, evaluation_spec, held_out_percent, root) as text:
    key = _key(text, tokenizer)
    stem = re.sub(r"\W+", "-", spec).strip("-")[:40]
    directory = root / f"{stem}-{_digest(key)}"
    if isinstance(tokenizer, LoadedTokenizer):
      directory = _same(root, stem, key) or directory
    if not is_complete(directory):
      with build_directory(directory) as folder:
        if not is_complete(directory):  # Nor while this one waited.
          _write(text, tokenizer, folder, key)
          publish(folder, directory)
  remove_leftovers(directory)
  splits = Splits.open(directory)
  say(spec, splits.description)
  return splits


def train_tokenizer(spec: str, tokenizer: Tokenizer) -> LoadedTokenizer:
  """The tokenizer of all sentences."""
  counts = TextCounts()
  trained = tokenizer.build(
      sentence for document in documents.read(spec, counts=counts)
      for sentence in document.sentences)
  say(spec, str(counts))
  return trained


def cache_folder() -> pathlib.Path:
  """Where corpora are kept."""
  return files.cache_directory() / "corpora"


@functools.cache
def say(spec: str, description: str) -> None:
  """Says it of a text on stderr, once, as a study reads it for every run."""
  # Not print: a progress bar may be on this line.
  tqdm.tqdm.write(wrapped(f"{spec}: {description}.", sys.stderr),
                  file=sys.stderr)


def _same(root: pathlib.Path, stem: str,
          key: dict[str, Any]) -> pathlib.Path | None:
  """A corpus of the same text whose own tokenizer turned out to be this one."""
  for path in sorted(root.glob(f"{stem}-*/corpus.json")):
    # A damaged one is reported when it is opened.
    with contextlib.suppress(UserError):
      about = read_about(path.parent)
      if (about["tokenizer"] == key["tokenizer"]["fingerprint"] and
          about["key"] | {"tokenizer": None} == key | {"tokenizer": None}):
        return path.parent
  return None


def build(spec: str, tokenizer: Tokenizer | LoadedTokenizer,
          directory: str | os.PathLike, held_out_percent: float,
          evaluation_spec: str = "") -> Splits:
  """Reads, splits, tokenizes and writes; replaces an older corpus there.

  Raises:
    UserError: unreadable text, no text, no room or no right to write, or
      `directory` holds something else.
  """
  directory = pathlib.Path(directory).absolute()
  is_complete(directory)
  with (corpus_text(spec, evaluation_spec, held_out_percent,
                    directory.parent) as text,
        build_directory(directory) as folder):
    _write(text, tokenizer, folder / "new", _key(text, tokenizer))
    if is_complete(directory):
      directory.rename(folder / "old")
    publish(folder / "new", directory)
  return Splits.open(directory)


def _write(text: CorpusText, tokenizer: Tokenizer | LoadedTokenizer,
           directory: pathlib.Path, key: dict[str, Any]) -> None:
  start = time.perf_counter()
  loaded = (tokenizer if isinstance(tokenizer, LoadedTokenizer)
            else _trained(tokenizer, text))
  tokenizer_seconds = time.perf_counter() - start
  dtype = np.dtype("uint16" if loaded.vocabulary.size <= 1 << 16 else "uint32")
  with contextlib.ExitStack() as stack:
    writers = [stack.enter_context(_Writer(directory / name, dtype,
                                           loaded.vocabulary.unk_id))
               for name in SPLITS]
    bar = stack.enter_context(tqdm.tqdm(
        desc="Corpus", unit=" tokens", unit_scale=True, disable=None))
    for batch in _batches(text):
      bar.update(_add(batch, loaded, writers))
  seconds = time.perf_counter() - start
  _write_json(directory / "tokenizer.json", loaded.serialize())
  _write_json(directory / "corpus.json", {
      "spec": text.spec, "read": _describe(text, writers),
      "splits": {n: w.counts(loaded.fingerprint)
                 for n, w in zip(SPLITS, writers)},
      "seconds": round(seconds, 2),
      "seconds_of_tokenizer": round(tokenizer_seconds, 2),
      "tokens_per_second": round(sum(w.tokens for w in writers) / seconds),
      "vocabulary_size": loaded.vocabulary.size, "dtype": dtype.name,
      "tokenizer": loaded.fingerprint, "key": key})


def _describe(text: CorpusText, writers: list["_Writer"]) -> str:
  train, held = (f"{writer.documents:,}" for writer in writers)
  empty = text.sentences() - sum(writer.sentences for writer in writers)
  unknown, tokens = (sum(getattr(writer, name) for writer in writers)
                     for name in ("unknown", "tokens"))
  return (f"{text.describe()}; {held} documents held out, {train} to train on"
          + (f"; {empty:,} sentences of no token left out" if empty else "")
          + (f"; {unknown / tokens:.2%} of {tokens:,} tokens are unknown and "
             "never predicted" if unknown else ""))


def _trained(tokenizer: Tokenizer, text: CorpusText) -> LoadedTokenizer:
  """The tokenizer of the training split.

  Raises:
    UserError: nothing is in it.
  """
  if text.is_all_held_out:
    raise UserError(f"{text.spec}: all of it is held out, so that a tokenizer "
                    "has no text to learn from; data.tokenizer.path=FILE "
                    "loads one.")
  with tqdm.tqdm(text, "Tokenizer", unit=" documents", unit_scale=True,
                 disable=None) as bar:
    return tokenizer.build(sentence for document, is_held_out in bar
                           if not is_held_out
                           for sentence in document.sentences)


def _batches(text: CorpusText) -> Iterator[list[tuple[Document, bool]]]:
  batch, size = [], 0
  for document, is_held_out in text:
    batch.append((document, is_held_out))
    size += sum(map(len, document.sentences))
    if size >= _BATCH_CHARACTERS:
      yield batch
      batch, size = [], 0
  if batch:
    yield batch


def _add(batch: list[tuple[Document, bool]], tokenizer: LoadedTokenizer,
         writers: list["_Writer"]) -> int:
  """Tokenizes documents and appends each to its split; returns the tokens."""
  texts = [s for document, _ in batch for s in document.sentences]
  tokens_T, lengths_S = tokenizer.encode_flat(texts)
  bytes_S = np.array([len(text.encode()) for text in texts], np.int64)
  held_U = np.array([is_held_out for _, is_held_out in batch])
  sizes_U = np.array([len(document.sentences) for document, _ in batch])
  document_S = np.repeat(np.arange(len(batch)), sizes_U)
  held_S = held_U[document_S]
  for writer, held in zip(writers, (False, True)):
    chosen_S = (held_S == held) & (lengths_S > 0)
    writer.add(tokens_T[np.repeat(chosen_S, lengths_S)], lengths_S[chosen_S],
               np.bincount(document_S[chosen_S], minlength=len(batch)),
               int(bytes_S[chosen_S].sum()))
  return len(tokens_T)


class _Writer:
  """Appends documents to the files of one split."""

  def __init__(self, directory: pathlib.Path, dtype: np.dtype, unk_id: int):
    self._dtype, self._unk_id, self.unknown = dtype, unk_id, 0
    directory.mkdir(parents=True)
    self._files = [
        open(directory / f"{name}.bin", "wb")
        for name in ("tokens", "sentence_starts", "document_starts")]
    self._hashes = [hashlib.blake2b(digest_size=16) for _ in self._files]
    self.tokens = self.sentences = self.documents = self.bytes = 0
    for i in (1, 2):
      self._append(i, np.zeros(1, np.int64))

  def __enter__(self) -> "_Writer":
    return self

  def __exit__(self, kind: Any, *_: Any) -> None:
    with contextlib.ExitStack() as stack:
      for file in self._files:
        stack.enter_context(file)
      for file in self._files if kind is None else ():
        file.flush()
        os.fsync(file.fileno())

  def add(self, tokens_T: np.ndarray, lengths_S: np.ndarray,
          sizes_U: np.ndarray, bytes_: int) -> None:
    sizes_U = sizes_U[sizes_U > 0]
    self._append(0, tokens_T.astype(self._dtype))
    self._append(1, self.tokens + np.cumsum(lengths_S, dtype=np.int64))
    self._append(2, self.sentences + np.cumsum(sizes_U, dtype=np.int64))
    self.unknown += np.count_nonzero(tokens_T == self._unk_id)
    self.tokens += len(tokens_T)
    self.sentences += len(lengths_S)
    self.documents += len(sizes_U)
    self.bytes += bytes_

  def counts(self, tokenizer_fingerprint: str) -> dict[str, Any]:
    both = hashlib.blake2b(tokenizer_fingerprint.encode(), digest_size=16)
    for part in self._hashes:
      both.update(part.digest())
    return {"documents": self.documents, "sentences": self.sentences,
            "tokens": self.tokens, "bytes": self.bytes,
            "fingerprint": both.hexdigest()}

  def _append(self, i: int, array: np.ndarray) -> None:
    data = array.astype(array.dtype.newbyteorder("<"), copy=False).data
    self._files[i].write(data)
    self._hashes[i].update(data)


def _key(text: CorpusText,
         tokenizer: Tokenizer | LoadedTokenizer) -> dict[str, Any]:
  """Everything cheap to know that decides what a build gives."""
  return text.key | {
      "version": _VERSION, "tokenizer": _key_of(tokenizer),
      "versions": {name: importlib.metadata.version(name)
                   for name in ("sentencepiece", "tokenizers")}}


def _key_of(tokenizer: Tokenizer | LoadedTokenizer) -> dict[str, Any]:
  if isinstance(tokenizer, LoadedTokenizer):
    return {"fingerprint": tokenizer.fingerprint}
  path = getattr(tokenizer, "path", "")
  return {"name": tokenizer.choice_name, **dataclasses.asdict(tokenizer),
          "file": path and path_size_and_date(os.path.expanduser(path))}


def _digest(key: dict[str, Any]) -> str:
  text = json.dumps(key, sort_keys=True).encode()
  return hashlib.blake2b(text, digest_size=6).hexdigest()


def _write_json(path: pathlib.Path, content: Any) -> None:
  with files.replacing(path) as file:
    file.write(json.dumps(content, indent=2).encode() + b"\n")
