"""Layouts of text: where documents and sentences end.

  sentences   a sentence a line, a blank line between documents (as
              google-research/bert's create_pretraining_data.py reads)
  prose       a paragraph a line, a blank line between documents
  wrapped     paragraphs broken over lines, a blank line between them, two or
              more blank lines between documents
  jsonl       a document a line
  verbatim    all as it stands, a line with its end for a sentence, a document a
              file: for tokenizers that keep white space

A reader gives the sentences of documents part by part; None ends a document.
"""

import itertools
import json
from collections.abc import Callable, Iterable, Iterator, Sequence

from bert_jax.config import UserError, nearest
from bert_jax.data.records.surrogates import well_formed
from bert_jax.data.text import sentences as sentences_lib
from bert_jax.data.text.lines import Repairs

# The rest of a longer paragraph or document is another one: what a file without
# line ends or blank lines costs in memory stays bounded.
PARAGRAPH_LIMIT = 1 << 20
DOCUMENT_LIMIT = 1 << 20
# Wrapped text has lines of about this many characters.
_NARROWEST, _WIDEST = 20, 120

Parts = Iterator[list[str] | None]


def recognize(lines: Sequence[str]) -> str:
  """The layout of a text file, from its first lines.

  What could be a sentence a line is read so, as it is the documented format.
  Text is wrapped only where its lines are full: most that a sentence runs over
  had no room for the next word, and sentences end inside lines.
  """
  text = [line.strip() for line in lines if line.strip()]
  several = sum(len(sentences_lib.split(line)) > 1 for line in text)
  if _is_broken(lines) and several > .05 * len(text):
    lengths = sorted(map(len, text))
    width = lengths[int(.95 * (len(lengths) - 1))]
    full = [len(a) + 1 + len(b.split(None, 1)[0]) > width
            for a, b in _running_on(lines)]
    if width >= _NARROWEST and sum(full) > .5 * len(full):
      return "wrapped"
  return "prose" if several > .2 * len(text) else "sentences"


def _is_broken(lines: Sequence[str]) -> bool:
  """Whether sentences run over the ends of lines."""
  pairs = sum(bool(a.strip() and b.strip())
              for a, b in itertools.pairwise(lines))
  return (len(_running_on(lines)) > .25 * pairs
          and max(map(len, lines)) <= _WIDEST)


def _running_on(lines: Sequence[str]) -> list[tuple[str, str]]:
  """Lines and the next, where these look like parts of one sentence."""
  pairs = [(a.strip(), b.strip()) for a, b in itertools.pairwise(lines)]
  return [(a, b) for a, b in pairs
          if a and b and b[0].islower() and a[-1] not in ".!?"]


def _sentence_lines(lines: Iterable[str]) -> Parts:
  return _blocks(lines, lambda line: [line])


def _prose(lines: Iterable[str]) -> Parts:
  return _blocks(lines, sentences_lib.split)


def _blocks(lines: Iterable[str],
            split_line: Callable[[str], list[str]]) -> Parts:
  for line in lines:
    line = line.strip()
    yield split_line(line) if line else None
  yield None


def _wrapped(lines: Iterable[str]) -> Parts:
  paragraph, blanks, size = [], 0, 0
  for line in itertools.chain(lines, ("", "")):
    line = line.strip()
    blanks = 0 if line else blanks + 1
    if line:
      paragraph.append(line)
      size += len(line)
    if paragraph and (blanks or size > PARAGRAPH_LIMIT):
      yield sentences_lib.split(" ".join(paragraph))
      paragraph, size = [], 0
    if blanks == 2:
      yield None


def _verbatim(lines: Iterable[str]) -> Parts:
  for line in lines:
    yield [f"{line}\n"]
  yield None


LAYOUTS = {"sentences": _sentence_lines, "prose": _prose, "wrapped": _wrapped,
           "verbatim": _verbatim}


def records(lines: Iterable[str], field: str, source: str,
            repairs: Repairs) -> Parts:
  """Of JSON lines from `source`.

  Raises:
    UserError: the first record has no readable text.
  """
  good = False
  for number, line in enumerate(lines, 1):
    if not line.strip():
      continue
    place = f"{source}:{number}"
    problem, text = _record_text(line, field)
    if problem and not good:
      raise UserError(f"{source}, line {number}: {problem}")
    if problem:
      repairs.add("records without readable text left out", place)
      continue
    good = True
    yield from record(text, place, repairs)


def record(text: str, place: str, repairs: Repairs) -> Parts:
  """A document that is one text, as those of JSON lines and TFDS."""
  if not text.strip():
    repairs.add("records of no text left out", place)
  text, halves = well_formed(text)
  if halves:
    repairs.add("halves of surrogate pairs replaced", place, halves)
  yield from paragraphs(text)
  yield None


def _record_text(line: str, field: str) -> tuple[str, str]:
  """(what is wrong with a JSON line or "", its text)."""
  try:
    content = json.loads(line)
  except (ValueError, RecursionError) as error:
    return f"no JSON ({error}).", ""
  if not isinstance(content, dict):
    return "not a JSON object with named fields.", ""
  if field not in content:
    return (f"no field {field!r}; choose one with ?field=NAME"
            + nearest(field, content), "")
  if not isinstance(content[field], str):
    return f"field {field!r} is not a text.", ""
  return "", content[field]


def paragraphs(text: str) -> Iterator[list[str]]:
  """A text's sentences, paragraph by paragraph (broken lines are joined)."""
  lines = text.splitlines()
  if len(lines) > 1 and _is_broken(lines):
    yield from filter(None, _wrapped(lines))
  else:
    yield from filter(None, map(sentences_lib.split, lines))


def bounded(parts: Iterable[list[str] | None], place: str,
            repairs: Repairs) -> Iterator[list[str]]:
  """The sentences of each document; empty ones are left out."""
  document, size = [], 0
  for part in itertools.chain(parts, [None]):
    if document and (part is None or size > DOCUMENT_LIMIT):
      if part is not None:
        repairs.add("overlong documents continued as another", place)
      yield document
      document, size = [], 0
    if part:
      document += part
      size += sum(map(len, part))
