"""Builds a corpus: reads, splits, tokenizes and writes."""

import contextlib
import dataclasses
import hashlib
import importlib.metadata
import json
import os
import pathlib
import re
import time
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import tqdm

from bert_jax import files
from bert_jax.config import UserError
from bert_jax.data.batches.splits import held_out
from bert_jax.data.pretraining.build_directory import (
    build_directory, publish, remove_leftovers)
from bert_jax.data.pretraining.corpus import (
    Splits, SPLITS, read_about, is_complete)
from bert_jax.data.text import docstrings, documents
from bert_jax.data.text.documents import Document
from bert_jax.data.tokenizers.base import LoadedTokenizer
from bert_jax.data.tokenizers.choices import Tokenizer

_VERSION = 1
# Text up to this size is read once and kept for the second pass.
_KEPT_CHARACTERS = 1 << 26
_BATCH_CHARACTERS = 1 << 21


def prepare(spec: str, tokenizer: Tokenizer | LoadedTokenizer,
            root: str | os.PathLike, held_out_percent: float) -> Splits:
  """The corpus of a spec in a folder of its own under `root`.

  Built at the first call; reused as long as the spec, the files' sizes and
  dates, the tokenizer and the held-out share are the same. Another process of
  this host that builds it is waited for.
  """
  key = _key(spec, tokenizer, held_out_percent)
  stem = re.sub(r"\W+", "-", spec).strip("-")[:40]
  directory = pathlib.Path(root).absolute() / f"{stem}-{_digest(key)}"
  if isinstance(tokenizer, LoadedTokenizer):
    directory = _same(directory.parent, stem, key) or directory
  if not is_complete(directory):
    with build_directory(directory) as folder:
      if not is_complete(directory):  # Nor while this one waited.
        _write(spec, tokenizer, folder, held_out_percent, key)
        publish(folder, directory)
  remove_leftovers(directory)
  return Splits.open(directory)


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
          directory: str | os.PathLike, held_out_percent: float) -> Splits:
  """Reads, splits, tokenizes and writes; replaces an older corpus there.

  Raises:
    UserError: unreadable text, no text, nothing left to train on, no room or
      no right to write, or `directory` holds something else.
  """
  directory = pathlib.Path(directory).absolute()
  key = _key(spec, tokenizer, held_out_percent)
  is_complete(directory)
  with build_directory(directory) as folder:
    _write(spec, tokenizer, folder / "new", held_out_percent, key)
    if is_complete(directory):
      directory.rename(folder / "old")
    publish(folder / "new", directory)
  return Splits.open(directory)


def _write(spec: str, tokenizer: Tokenizer | LoadedTokenizer,
           directory: pathlib.Path, held_out_percent: float,
           key: dict[str, Any]) -> None:
  if not 0 <= held_out_percent < 100:
    raise UserError(f"The held-out share is {held_out_percent} percent; it "
                    "must be at least 0 and below 100.")
  start = time.perf_counter()
  source = _Source(spec)
  loaded = (tokenizer if isinstance(tokenizer, LoadedTokenizer)
            else _trained(tokenizer, source, held_out_percent))
  tokenizer_seconds = time.perf_counter() - start
  dtype = np.dtype("uint16" if loaded.vocabulary.size <= 1 << 16 else "uint32")
  with contextlib.ExitStack() as stack:
    writers = [stack.enter_context(_Writer(directory / name, dtype))
               for name in SPLITS]
    bar = stack.enter_context(tqdm.tqdm(
        desc="Corpus", unit=" tokens", unit_scale=True, disable=None))
    for batch in _batches(source):
      bar.update(_add(batch, loaded, writers, held_out_percent))
  if not writers[0].documents:
    raise UserError(f"{spec}: no document is left to train on with "
                    f"{held_out_percent} percent held out.")
  seconds = time.perf_counter() - start
  _write_json(directory / "tokenizer.json", loaded.serialize())
  _write_json(directory / "corpus.json", {
      "spec": spec, "splits": {n: w.counts(loaded.fingerprint)
                               for n, w in zip(SPLITS, writers)},
      "seconds": round(seconds, 2),
      "seconds_of_tokenizer": round(tokenizer_seconds, 2),
      "tokens_per_second": round(sum(w.tokens for w in writers) / seconds),
      "vocabulary_size": loaded.vocabulary.size, "dtype": dtype.name,
      "tokenizer": loaded.fingerprint, "key": key})


def _trained(tokenizer: Tokenizer, source: Iterable[Document],
             held_out_percent: float) -> LoadedTokenizer:
  """The tokenizer of the training split."""
  with tqdm.tqdm(source, "Tokenizer", unit=" documents", unit_scale=True,
                 disable=None) as bar:
    return tokenizer.build(
        sentence for document in bar
        if not held_out(document.name, held_out_percent)
        for sentence in document.sentences)


class _Source:
  """Documents of a spec, any number of times; small texts are read once."""

  def __init__(self, spec: str):
    self._spec = spec
    self._kept: list[Document] | None = None
    self._passes = 0

  def __iter__(self) -> Iterator[Document]:
    if self._kept is not None:
      yield from self._kept
      return
    kept, size = [], 0
    self._passes += 1
    for document in documents.read(self._spec, warn=self._passes == 1):
      size += sum(map(len, document.sentences))
      if size <= _KEPT_CHARACTERS:
        kept.append(document)
      else:
        kept.clear()
      yield document
    if size <= _KEPT_CHARACTERS:
      self._kept = kept


def _batches(source: Iterable[Document]) -> Iterator[list[Document]]:
  batch, size = [], 0
  for document in source:
    batch.append(document)
    size += sum(map(len, document.sentences))
    if size >= _BATCH_CHARACTERS:
      yield batch
      batch, size = [], 0
  if batch:
    yield batch


def _add(batch: list[Document], tokenizer: LoadedTokenizer,
         writers: list["_Writer"], held_out_percent: float) -> int:
  """Tokenizes documents and appends each to its split; returns the tokens."""
  texts = [s for document in batch for s in document.sentences]
  tokens_T, lengths_S = tokenizer.encode_flat(texts)
  bytes_S = np.array([len(text.encode()) for text in texts], np.int64)
  held_U = np.array([held_out(d.name, held_out_percent)
                     for d in batch])
  sizes_U = np.array([len(d.sentences) for d in batch])
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

  def __init__(self, directory: pathlib.Path, dtype: np.dtype):
    self._dtype = dtype
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


def _key(spec: str, tokenizer: Tokenizer | LoadedTokenizer,
         held_out_percent: float) -> dict[str, Any]:
  """Everything cheap to know that decides what a build gives."""
  versions = {name: importlib.metadata.version(name)
              for name in ("sentencepiece", "tokenizers")}
  if "embedded" in spec:
    versions |= docstrings.versions()
  return {
      "version": _VERSION, "spec": spec, "held_out_percent": held_out_percent,
      "tokenizer": _key_of(tokenizer), "versions": versions,
      "files": [_name_size_and_date(path) for path in documents.files(spec)]}


def _key_of(tokenizer: Tokenizer | LoadedTokenizer) -> dict[str, Any]:
  if isinstance(tokenizer, LoadedTokenizer):
    return {"fingerprint": tokenizer.fingerprint}
  path = getattr(tokenizer, "path", "")
  return {"name": tokenizer.choice_name, **dataclasses.asdict(tokenizer),
          "file": path and _name_size_and_date(pathlib.Path(path).expanduser())}


def _name_size_and_date(path: pathlib.Path) -> list[Any]:
  try:
    status = path.stat()
  except OSError as error:
    raise UserError(f"{path}: {error.strerror}.") from None
  return [str(path.resolve()), status.st_size, status.st_mtime_ns]


def _digest(key: dict[str, Any]) -> str:
  text = json.dumps(key, sort_keys=True).encode()
  return hashlib.blake2b(text, digest_size=6).hexdigest()


def _write_json(path: pathlib.Path, content: Any) -> None:
  with files.replacing(path) as file:
    file.write(json.dumps(content, indent=2).encode() + b"\n")
