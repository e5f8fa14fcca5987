"""Documents, streamed from what a spec names (specs.py), in any layout.

The layout of a text file (layouts.py) is recognized from its first 64 KiB
unless the spec names it. What had to be repaired is counted and logged once at
the end; what cannot be read is a UserError.
"""

import collections
import dataclasses
import itertools
import logging
import pathlib
from collections.abc import Iterator, Sequence

from bert_jax import files
from bert_jax.config import UserError, nearest
from bert_jax.data.records.tfds import tfds_name, tfds_records
from bert_jax.data.text import docstrings, layouts, lines as lines_lib
from bert_jax.data.text.lines import Repairs
from bert_jax.data.text.specs import TextSource, text_sources

_JSON_SUFFIXES = (".jsonl", ".ndjson", ".json")
# Longer lines are cut here; those of JSON have to be longer.
LINE_LIMIT = 1 << 20
_RECORD_LIMIT = 1 << 26
_HEAD_CHARACTERS = 1 << 16
_log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Document:
  """Sentences in order; `name` is the same on every machine and in every run.

  It is `file:index` for files, the file as in `TextSource.name`; the qualified
  name such as `numpy.linalg.svd` for the embedded default.
  """

  name: str
  sentences: list[str]


@dataclasses.dataclass
class TextCounts:
  """What was read of a text, and how; `files` of each layout."""

  files: collections.Counter[str] = dataclasses.field(
      default_factory=collections.Counter)
  documents: int = 0
  sentences: int = 0
  words: int = 0
  repairs: Repairs = dataclasses.field(default_factory=Repairs)

  def add(self, document: Document) -> None:
    self.documents += 1
    self.sentences += len(document.sentences)
    self.words += sum(len(s.split()) for s in document.sentences)

  def __str__(self) -> str:
    read_as = ", ".join(
        f"{count:,} {'file' if count == 1 else 'files'} read as {layout}"
        for layout, count in self.files.items())
    return (f"{self.documents:,} documents, {self.sentences:,} sentences, "
            f"{self.words:,} words" + (f"; {read_as}" if read_as else ""))


def read(spec: str | Sequence[TextSource], *, warn: bool = True,
         counts: TextCounts | None = None) -> Iterator[Document]:
  """Streams the documents of a spec, or of what it names, in order.

  Args:
    spec: see specs.py.
    warn: whether to log at the end what had to be repaired.
    counts: complete when the documents are.

  Raises:
    UserError: nothing matches, nothing in it, or it is no readable text.
  """
  sources = text_sources(spec) if isinstance(spec, str) else spec
  counts = TextCounts() if counts is None else counts
  for source in sources:
    for document in _documents(source, counts):
      counts.add(document)
      yield document
  names = spec if isinstance(spec, str) else ",".join(s.path for s in sources)
  if counts.repairs and warn:
    _log.warning("%s: %s.", names, counts.repairs)
  if not counts.documents:
    raise UserError(f"{names}: there is no text in it.")


def _documents(source: TextSource, counts: TextCounts) -> Iterator[Document]:
  if source.path == "embedded":
    for name, sentences in docstrings.documents():
      yield Document(name, sentences)
  elif source.is_file:
    parts = _file_parts(source, counts)
    for i, sentences in enumerate(layouts.bounded(
        parts, source.path, counts.repairs)):
      yield Document(f"{source.name}:{i}", sentences)
  else:
    yield from _tfds_documents(source, counts.repairs)


def _file_parts(source: TextSource, counts: TextCounts) -> layouts.Parts:
  chosen, repairs = source.format, counts.repairs
  if chosen == "auto" and files.suffix(source.path) in _JSON_SUFFIXES:
    chosen = "jsonl"
  limit = _RECORD_LIMIT if chosen == "jsonl" else LINE_LIMIT
  lines = lines_lib.lines(pathlib.Path(source.path), limit, repairs)
  head = _head(lines)
  lines = itertools.chain(head, lines)
  if not head:
    repairs.add("empty files", source.path)
    return iter(())
  if chosen == "auto":
    chosen = layouts.recognize(head)
  counts.files[chosen] += 1
  if chosen == "jsonl":
    return layouts.records(lines, source.field, source.path, repairs)
  return layouts.LAYOUTS[chosen](lines)


def _head(lines: Iterator[str]) -> list[str]:
  head, size = [], 0
  for line in lines:
    head.append(line)
    size += len(line) + 1
    if size >= _HEAD_CHARACTERS:
      break
  return head


def _tfds_documents(source: TextSource,
                    repairs: Repairs) -> Iterator[Document]:
  name, split = tfds_name(source.path)
  for i, record in enumerate(tfds_records(name, split or "train")):
    if source.field not in record:
      raise UserError(f"{source.path}: no field {source.field!r}; choose one "
                      "with ?field=NAME" + nearest(source.field, record))
    text, place = record[source.field], f"{source.path}:{i}"
    if isinstance(text, bytes):
      text = text.decode(errors="replace")
    for sentences in layouts.bounded(
        layouts.record(text, place, repairs), place, repairs):
      yield Document(place, sentences)
