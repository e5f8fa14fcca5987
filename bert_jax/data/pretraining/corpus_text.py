"""The text that a corpus is built from: its documents, each in its split."""

import contextlib
import dataclasses
import hashlib
import itertools
import logging
import os
import pathlib
import shutil
from collections.abc import Iterator, Sequence
from typing import Any

from bert_jax.config import UserError
from bert_jax.data.batches.splits import FEW, held_out, held_out_names
from bert_jax.data.pretraining.build_directory import build_directory
from bert_jax.data.text import docstrings, documents
from bert_jax.data.text.documents import Document, TextCounts
from bert_jax.data.text.specs import TextSource, text_sources, without

# Text up to this size is read once and kept for the next pass.
_KEPT_CHARACTERS = 1 << 26
_log = logging.getLogger(__name__)


@contextlib.contextmanager
def corpus_text(spec: str, evaluation_spec: str, held_out_percent: float,
                root: pathlib.Path) -> Iterator["CorpusText"]:
  """What the specs name; pipes are copied to files under `root` meanwhile.

  Raises:
    UserError: nothing is there, or the share is none.
  """
  if not 0 <= held_out_percent <= 100:
    raise UserError(f"data.held_out_percent={held_out_percent:g}; allowed: 0 "
                    "to 100.")
  evaluation = text_sources(evaluation_spec) if evaluation_spec else []
  named = text_sources(spec)
  train = without(named, evaluation)
  if len(train) < len(named):
    _log.warning("%s: %d of %d files are those of data.evaluation_text and "
                 "are not trained on.", spec, len(named) - len(train),
                 len(named))
  with contextlib.ExitStack() as stack:
    if any(source.is_stream for source in train + evaluation):
      folder = stack.enter_context(build_directory(root / "pipes"))
      folder.mkdir()
      train = [_copied(source, folder) for source in train]
      evaluation = [_copied(source, folder) for source in evaluation]
    yield CorpusText(spec, evaluation_spec, held_out_percent,
                     _Documents(train), _Documents(evaluation))


def _copied(source: TextSource, folder: pathlib.Path) -> TextSource:
  if not source.is_stream:
    return source
  # Text and evaluation text have pipes of the same names.
  path = folder / f"{source.name}-{len(os.listdir(folder))}"
  with open(source.path, "rb") as stream, open(path, "w+b") as file:
    shutil.copyfileobj(stream, file)
    file.seek(0)
    digest = hashlib.file_digest(file, "blake2b").hexdigest()
  return dataclasses.replace(source, path=str(path), digest=digest)


class _Documents:
  """Those of sources, any number of times; small texts are read once."""

  def __init__(self, sources: Sequence[TextSource]):
    self.sources = sources
    self.counts: TextCounts | None = None  # None: not yet read to the end
    self._kept: list[Document] | None = None if sources else []

  def __iter__(self) -> Iterator[Document]:
    if self._kept is not None:
      yield from self._kept
      return
    kept, size, counts = [], 0, TextCounts()
    for document in documents.read(
        self.sources, warn=self.counts is None, counts=counts):
      size += sum(map(len, document.sentences))
      if size <= _KEPT_CHARACTERS:
        kept.append(document)
      else:
        kept.clear()
      yield document
    self.counts = counts
    if size <= _KEPT_CHARACTERS:
      self._kept = kept


class CorpusText:
  """Documents, and whether each is held out, any number of times.

  Attributes:
    key: everything cheap to know that decides what they are.
  """

  def __init__(self, spec: str, evaluation_spec: str, held_out_percent: float,
               train: _Documents, evaluation: _Documents):
    self.spec = spec
    self._train, self._evaluation = train, evaluation
    self._percent = 0 if evaluation.sources else held_out_percent
    self._few_held_out: frozenset[str] | None = None
    sources = [*train.sources, *evaluation.sources]
    self.key: dict[str, Any] = {
        "spec": spec, "evaluation_spec": evaluation_spec,
        "held_out_percent": held_out_percent,
        "files": [_identity(source) for source in sources if source.is_file],
        "embedded": any(source.path == "embedded" for source in sources)
                    and docstrings.versions()}

  def __iter__(self) -> Iterator[tuple[Document, bool]]:
    if self._few_held_out is None:
      names = [document.name for document in itertools.islice(
          self._train, FEW)]
      self._few_held_out = held_out_names(names, self._percent)
      self._are_few = len(names) < FEW
    for document in self._train:
      yield document, (document.name in self._few_held_out if self._are_few
                       else held_out(document.name, self._percent))
    for document in self._evaluation:
      yield document, True

  @property
  def is_all_held_out(self) -> bool:
    return not self._train.sources or self._percent == 100

  def sentences(self) -> int:
    """Of all documents, once they were read."""
    return sum(part.counts.sentences for part in self._parts())

  def describe(self) -> str:
    """What was read, once it was."""
    return "; for evaluation ".join(str(p.counts) for p in self._parts())

  def _parts(self) -> list[_Documents]:
    return [part for part in (self._train, self._evaluation) if part.sources]


def path_size_and_date(path: str) -> list[Any]:
  """What tells whether a file is the same as before, without reading it."""
  try:
    status = os.stat(path)
  except OSError as error:
    raise UserError(f"{path}: {error.strerror}.") from None
  return [os.path.realpath(path), status.st_size, status.st_mtime_ns]


def _identity(source: TextSource) -> list[Any]:
  if source.digest:
    return [source.name, source.digest]
  return path_size_and_date(source.path)
