"""CoNLL files: a word a line, its columns between blanks or tabs."""

import logging
import re

from bert_jax.data.records.bad_records import Fault, Faults
from bert_jax.data.records.tables import Table, marked

_LOG = logging.getLogger(__name__)
_BLANKS = " \t"
# What a word's tag looks like, even where no other word has it.
_ENTITY_TAG = re.compile(r"O$|[BIESLUMW][-_]")


def parse_conll(spec: str, text: str, word: int = 0,
                tag: int | None = -1) -> Table:
  """Sentences of a CoNLL file: a table of words and tags (None: of words).

  Columns are separated by tabs, or in lines without a tab by blanks; any other
  white space belongs to a word. All words have as many columns as the first.
  Empty lines are between sentences, -DOCSTART- lines are left out. So are, and
  are counted, the comments of CoNLL-U (see `_is_comment`) and its lines of
  multiword tokens and empty words (1-2, 8.1), whose words have lines of their
  own. `lines` are the first of each sentence.
  """
  columns = ("words",) if tag is None else ("words", "tags")
  table = Table(spec, columns, [], [], Faults(spec))
  numbered = [(i, _fields(line)) for i, line in enumerate(
      re.split("\r\n|\r|\n", text), 1)]
  width, tags = _layout([fields for _, fields in numbered if fields], tag)
  begin, sentence, fault, skipped = 0, [], None, []
  for number, fields in [*numbered, (len(numbered) + 1, [])]:
    if not fields or fields[0].startswith("-DOCSTART-"):
      if fault:
        table.faults.add(*fault)
      elif sentence:
        table.records.append([list(column) for column in zip(*sentence)])
        table.lines.append(begin)
      sentence, fault = [], None
    elif (not sentence and _is_comment(fields, width, tags, tag)
          or _has_no_word(fields, word)):
      skipped.append(number)
    else:
      begin = begin if sentence else number
      needed = [word] if tag is None else [word, tag]
      wrong = _fault(fields, width, needed)
      fault = fault or wrong and (f"{spec}:{number}", wrong)
      sentence.append([] if wrong else [fields[i] for i in needed])
  if skipped:
    _LOG.warning("%s: %d lines are comments, or multiword tokens of CoNLL-U, "
                 "and are skipped; the first is line %d.", spec, len(skipped),
                 skipped[0])
  return table


def _fields(line: str) -> list[str]:
  """The columns of a line; [] of an empty one."""
  line = line.strip(_BLANKS)
  return re.split(" *\t[ \t]*" if "\t" in line else " +", line) if line else []


def _layout(lines: list[list[str]],
            tag: int | None) -> tuple[int, set[str]]:
  """How many columns the first word has, and the tags of all words, as far as
  the lines are no comments for sure."""
  words = [fields for fields in lines if fields[0][0] != "#"
           and not fields[0].startswith("-DOCSTART-")] or lines
  width = len(words[0]) if words else 0
  column = -1 if tag is None or not tag < width else tag
  return width, {fields[column] for fields in words if len(fields) == width}


def _is_comment(fields: list[str], width: int, tags: set[str],
                tag: int | None) -> bool:
  """Whether the line before a sentence is a comment, not its first word.

  Comments begin with #, as words like #hashtag do. A word has as many columns
  as the others, and a tag that another word has or that is one of entities.
  """
  if fields[0][0] != "#" or len(fields) == width == 1:
    return False
  last = fields[-1 if tag is None or not tag < width else tag] if (
      len(fields) == width) else ""
  return last not in tags and not _ENTITY_TAG.match(last)


def _has_no_word(fields: list[str], word: int) -> bool:
  """Whether the line is CoNLL-U's of a range of words, or of an empty one."""
  return (len(fields) == 10 and word > 0
          and bool(re.fullmatch(r"\d+[-.]\d+", fields[0])))


def _fault(fields: list[str], width: int, needed: list[int]) -> Fault | None:
  count = len(fields)
  if count != width:
    return Fault("with other columns", lambda: (
        f"{count} columns, not the {width} of the first word"))
  if max(needed) >= width or width < len(needed):
    return Fault("without a tag", lambda: (
        f"{count} columns; the word is expected in column {needed[0]}, its tag "
        f"in column {needed[-1]}, counted from 0"))
  return marked(fields)
