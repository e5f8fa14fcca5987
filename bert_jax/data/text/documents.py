"""Where text comes from: files, TFDS data sets and the embedded default.

A source is written as one string, a *spec*:

  embedded                      docstrings of this installation (docstrings.py)
  text/*.txt.gz                 a path or a glob
  a.txt,b.jsonl.xz              several, separated by commas
  a.txt?format=prose            with the layout said instead of recognized
  a.jsonl?field=body            JSON lines, the text in another column
  tfds:imdb_reviews:test        a TFDS data set; split `train` unless given
  tfds:glue/sst2?field=sentence

Layouts of a text file (`format=`), recognized from its first 64 KiB:

  sentences   a sentence a line, a blank line between documents (as
              google-research/bert's create_pretraining_data.py reads)
  prose       a paragraph a line, a blank line between documents
  wrapped     paragraphs broken over lines, a blank line between them, two or
              more blank lines between documents
  jsonl       a document a line (names ending in .jsonl, .ndjson or .json)

Files are read as a stream. What had to be repaired is counted and logged once
at the end; what cannot be read is a UserError.
"""

import collections
import dataclasses
import glob
import itertools
import json
import logging
import os
import pathlib
import re
from collections.abc import Callable, Iterable, Iterator, Sequence

from bert_jax.config import UserError, nearest
from bert_jax.data.records.tfds import tfds_name, tfds_records
from bert_jax.data.text import (
    docstrings, lines as files_lib, sentences as sentences_lib)
from bert_jax.files import check_local

FORMATS = ("auto", "sentences", "prose", "wrapped", "jsonl")
_JSON_SUFFIXES = (".jsonl", ".ndjson", ".json")
# Longer lines are cut here, and the rest of a longer document is another one:
# what a file without line ends or blank lines costs in memory stays bounded.
LINE_LIMIT = 1 << 20
DOCUMENT_LIMIT = 1 << 20
_RECORD_LIMIT = 1 << 26
_log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Document:
  """Sentences in order; `name` is the same on every machine and in every run.

  It is `file:index` for files (without the folder), the qualified name such as
  `numpy.linalg.svd` for the embedded default.
  """

  name: str
  sentences: list[str]


def read(spec: str, *, warn: bool = True) -> Iterator[Document]:
  """Streams the documents of a spec (see the module's docstring), in order.

  Logs what had to be repaired when it comes to the end, if `warn`.

  Raises:
    UserError: nothing matches, nothing in it, or it is no readable text.
  """
  documents = 0
  repairs: collections.Counter[str] = collections.Counter()
  for source, options in _sources(spec):
    if source == "embedded":
      read_documents = (Document(n, s) for n, s in docstrings.documents())
    elif source.startswith("tfds:"):
      read_documents = _tfds_documents(source, options, repairs)
    else:
      read_documents = _file_documents(pathlib.Path(source), options, repairs)
    for document in read_documents:
      documents += 1
      yield document
  if repairs and warn:
    _log.warning("%s: %s.", spec,
                 "; ".join(f"{n:,} {what}" for what, n in repairs.items()))
  if not documents:
    raise UserError(f"{spec}: there is no text in it.")


def files(spec: str) -> list[pathlib.Path]:
  """The files that a spec names, in the order in which they are read."""
  return [pathlib.Path(source) for source, _ in _sources(spec)
          if source != "embedded" and not source.startswith("tfds:")]


def _sources(spec: str) -> list[tuple[str, dict[str, str]]]:
  """Files, `tfds:...` and `embedded` in a spec, each with its options."""
  parts = [spec] if os.path.exists(spec) else spec.split(",")
  sources = []
  for part in filter(None, map(str.strip, parts)):
    source, options = _options(part)
    if source == "embedded" or source.startswith("tfds:"):
      sources.append((source, options))
    else:
      sources.extend((path, options) for path in _matches(source))
  if not sources:
    raise UserError("No text is named; give a file, a glob, tfds:NAME or "
                    "embedded.")
  return sources


def _options(part: str) -> tuple[str, dict[str, str]]:
  match = re.fullmatch(r"(.+?)\?(\w+=[^?]*)", part)
  if not match or os.path.exists(part):
    return part, {}
  options = dict(pair.partition("=")[::2] for pair in match[2].split("&"))
  for name in options:
    if name not in ("format", "field"):
      raise UserError(f"{part}: unknown option {name!r}"
                      + nearest(name, ("format", "field")))
  if options.get("format", "auto") not in FORMATS:
    raise UserError(f"{part}: unknown format {options['format']!r}"
                    + nearest(options["format"], FORMATS))
  return match[1], options


def _matches(pattern: str) -> list[str]:
  check_local(pattern)
  pattern = os.path.expanduser(pattern)
  paths = ([pattern] if os.path.exists(pattern)
           else sorted(glob.glob(pattern, recursive=True)))
  paths = [p for p in paths if not os.path.isdir(p)]
  if paths:
    return paths
  if os.path.isdir(pattern):
    raise UserError(f"{pattern} is a folder; name its files, as in "
                    f"'{pattern.rstrip('/')}/*.txt'.")
  folder = pathlib.Path(pattern).parent
  while not folder.is_dir():
    folder = folder.parent
  names = sorted(p.name for p in folder.iterdir())[:20]
  raise UserError(f"No file matches {pattern!r}. In {folder}"
                  + nearest(os.path.basename(pattern), names))


def _file_documents(
    path: pathlib.Path, options: dict[str, str],
    repairs: collections.Counter[str]) -> Iterator[Document]:
  chosen = options.get("format", "auto")
  if chosen == "auto" and _is_json(path):
    chosen = "jsonl"
  limit = _RECORD_LIMIT if chosen == "jsonl" else LINE_LIMIT
  lines = files_lib.lines(path, limit, repairs)
  head = list(itertools.islice(lines, 1))
  if not head:
    repairs["empty files"] += 1
    return
  lines = itertools.chain(head, lines)
  if chosen == "jsonl":
    documents = _records(path, lines, options.get("field", "text"), repairs)
  else:
    if chosen == "auto":
      head = _head(lines)
      chosen = recognize(head)
      lines = itertools.chain(head, lines)
    documents = _LAYOUTS[chosen](lines)
  documents = _bounded(documents, repairs)
  for i, sentences in enumerate(s for s in documents if s):
    yield Document(f"{path.name}:{i}", sentences)


def _is_json(path: pathlib.Path) -> bool:
  return any(s in _JSON_SUFFIXES for s in path.suffixes[-2:])


def _head(lines: Iterator[str]) -> list[str]:
  head, size = [], 0
  for line in lines:
    head.append(line)
    size += len(line) + 1
    if size >= 1 << 16:
      break
  return head


def recognize(lines: Sequence[str]) -> str:
  """The layout of a text file, from its first lines."""
  text = [line for line in lines if line.strip()]
  pairs = [(a.rstrip(), b.lstrip()) for a, b in itertools.pairwise(lines)
           if a.strip() and b.strip()]
  runs_on = sum(b[0].islower() and a[-1] not in ".!?" for a, b in pairs)
  if runs_on > .25 * len(pairs) and max(map(len, text)) <= 120:
    return "wrapped"
  several = sum(len(sentences_lib.split(line)) > 1 for line in text)
  return "prose" if several > .2 * len(text) else "sentences"


def _sentence_lines(lines: Iterable[str]) -> Iterator[list[str] | None]:
  return _blocks(lines, lambda line: [line])


def _prose(lines: Iterable[str]) -> Iterator[list[str] | None]:
  return _blocks(lines, sentences_lib.split)


def _blocks(lines: Iterable[str],
            split_line: Callable[[str], list[str]]
            ) -> Iterator[list[str] | None]:
  """Sentences, line by line; None marks the end of a document."""
  for line in lines:
    line = line.strip()
    yield split_line(line) if line else None
  yield None


def _wrapped(lines: Iterable[str]) -> Iterator[list[str] | None]:
  paragraph, blanks, size = [], 0, 0
  for line in itertools.chain(lines, ("", "")):
    line = line.strip()
    blanks = 0 if line else blanks + 1
    if line:
      paragraph.append(line)
      size += len(line)
    if paragraph and (blanks or size > LINE_LIMIT):
      yield sentences_lib.split(" ".join(paragraph))
      paragraph, size = [], 0
    if blanks == 2:
      yield None


def _records(
    path: pathlib.Path, lines: Iterable[str], field: str,
    repairs: collections.Counter[str]) -> Iterator[list[str] | None]:
  good = False
  for number, line in enumerate(lines, 1):
    if not line.strip():
      continue
    problem, text = _record_text(line, field)
    if problem and not good:
      raise UserError(f"{path}, line {number}: {problem}")
    if problem:
      repairs["records without readable text left out"] += 1
      continue
    good = True
    yield from paragraphs(text)
    yield None


def _record_text(line: str, field: str) -> tuple[str, str]:
  """(what is wrong with a JSON line or "", its text)."""
  try:
    record = json.loads(line)
  except (ValueError, RecursionError) as error:
    return f"no JSON ({error}).", ""
  if not isinstance(record, dict):
    return "not a JSON object with named fields.", ""
  if field not in record:
    return (f"no field {field!r}; choose one with ?field=NAME"
            + nearest(field, record), "")
  if not isinstance(record[field], str):
    return f"field {field!r} is not a text.", ""
  return "", record[field]


def paragraphs(text: str) -> Iterator[list[str]]:
  """A text's sentences, paragraph by paragraph (broken lines are joined)."""
  lines = text.splitlines()
  if len(lines) > 1 and recognize(lines) == "wrapped":
    yield from filter(None, _wrapped(lines))
  else:
    yield from filter(None, map(sentences_lib.split, lines))


def _bounded(
    documents: Iterable[list[str] | None],
    repairs: collections.Counter[str]) -> Iterator[list[str]]:
  document, size = [], 0
  for part in documents:
    if part is None or size > DOCUMENT_LIMIT:
      if part is not None:
        repairs["overlong documents continued as another"] += 1
      yield document
      document, size = [], 0
    if part:
      document += part
      size += sum(map(len, part))
  yield document


_LAYOUTS = {"sentences": _sentence_lines, "prose": _prose, "wrapped": _wrapped}


def _tfds_documents(
    source: str, options: dict[str, str],
    repairs: collections.Counter[str]) -> Iterator[Document]:
  name, split = tfds_name(source)
  field = options.get("field", "text")
  for i, record in enumerate(tfds_records(name, split or "train")):
    if field not in record:
      raise UserError(f"{source}: no field {field!r}; choose one with "
                      f"?field=NAME" + nearest(field, record))
    text = record[field]
    if isinstance(text, bytes):
      text = text.decode(errors="replace")
    for sentences in _bounded(paragraphs(text), repairs):
      if sentences:
        yield Document(f"{source}:{i}", sentences)
