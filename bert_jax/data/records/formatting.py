"""Tables as text that is read back to the same values.

A CSV or TSV file holds text alone: what is no text is written as JSON writes
it, a list as its elements with a separator between them, and JSON's null, like
a field that a record lacks, as nothing.
"""

import csv
import io
import json
import pathlib
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from bert_jax.config import UserError
from bert_jax.data.records.tables import ABSENT

# What reading would take for an end, in words, and the files that can hold it.
_MARK = "\ufeff", "a byte-order mark", ".jsonl"
_FORBIDDEN = {
    ".csv": (_MARK,),
    ".tsv": (_MARK, ("\t", "a tab", ".csv or .jsonl"),
             ("\n", "a line break", ".csv or .jsonl"))}


def format_table(path: str, columns: Sequence[str],
                 records: Iterable[Sequence[Any]],
                 separator: str = " ") -> str:
  """The text of a .tsv, .csv or .jsonl file.

  Args:
    separator: between the elements of a list, in .tsv and .csv files.

  Raises:
    UserError: a column that is there twice, or a value that could not be read
      back from such a file.
  """
  twice = [name for i, name in enumerate(columns) if name in columns[:i]]
  if twice:
    raise UserError(f"{path}: there would be two columns {twice[0]!r}; rename "
                    "that of the input.")
  ending = pathlib.Path(path).suffix
  if ending == ".jsonl":
    lines = (json.dumps(
        {name: value for name, value in zip(columns, record)
         if value is not ABSENT}, ensure_ascii=False) for record in records)
  else:
    format_line = _csv_line if ending == ".csv" else "\t".join
    lines = map(format_line, _checked(path, ending, (
        [_field(path, value, separator) for value in record]
        for record in [columns, *records])))
  return "".join(f"{line}\n" for line in lines)


def _csv_line(fields: Sequence[str]) -> str:
  line = io.StringIO(newline="")
  # The end of the line decides what is quoted: with it, lone CR and LF are.
  csv.writer(line, lineterminator="\r\n").writerow(fields)
  return line.getvalue().removesuffix("\r\n")


def _checked(path: str, ending: str,
             records: Iterable[list[str]]) -> Iterator[list[str]]:
  """
  Raises:
    UserError: a field that such a file cannot hold.
  """
  for fields in records:
    text = "\0".join(fields)
    for character, name, others in _FORBIDDEN[ending]:
      if character in text:
        raise UserError(f"{path}: a text has {name}, which a {ending} file "
                        f"cannot hold; write a {others} file.")
    if ending == ".tsv" and text.endswith("\r"):
      raise UserError(f"{path}: a text ends in a carriage return, which a "
                      ".tsv file cannot hold; write a .csv or .jsonl file.")
    yield fields


def _field(path: str, value: Any, separator: str) -> str:
  """A value as text."""
  if value is None or value is ABSENT:
    return ""
  if isinstance(value, list):
    elements = [_field(path, element, separator) for element in value]
    for text in elements:
      if separator in text or not text:
        raise UserError(
            f"{path}: the element {text!r} of a list cannot be read back with "
            f"{separator!r} between the elements; write a .jsonl file.")
    return separator.join(elements)
  return (value if isinstance(value, str)
          else json.dumps(value, ensure_ascii=False))
