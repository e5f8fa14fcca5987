"""From the columns of a table to examples, bad records reported or skipped."""

import dataclasses
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from bert_jax.config import nearest
from bert_jax.data.records.bad_records import Fault, OnBadRecord
from bert_jax.data.records.tables import Table

# Columns, and what makes a value of theirs; it raises Fault for a bad one.
Field = tuple[Sequence[str], Callable[..., Any]]


@dataclasses.dataclass(frozen=True)
class Columns:
  """Which columns of a labeled set to read, by name or number (from 0).

  Attributes:
    text: the text, or for tags the words.
    pair: the second text; none if empty.
    label: the label, or for tags one for each word; none if empty.
    choices: for multiple choice, a column for each choice, or one column of
      lists.
    separator: between the labels of a text that may have several.
    header: whether the first line names the columns; unless given, it does if
      `text` is a name rather than a number.
    bad_records: what is done about records that cannot be used (fields missing,
      labels unknown or no numbers, texts empty, words without a tag): they
      are an error, or are left out and counted.

  CoNLL files have no names: there the word is in the first column and the tag
  in the last, unless numbers are given.
  """

  text: str = "sentence"
  pair: str = ""
  label: str = "label"
  choices: tuple[str, ...] = ()
  separator: str = ","
  header: bool | None = None
  bad_records: OnBadRecord = "error"

  @property
  def has_header(self) -> bool:
    if self.header is not None:
      return self.header
    return not self.text.isdecimal()


def clean(table: Table, bad_records: OnBadRecord, fields: Mapping[str, Field]
          ) -> tuple[Table, dict[str, list[Any]]]:
  """The records that can be used, and what each field makes of them.

  Raises:
    UserError: a column is missing, or `bad_records` is "error" and records
      cannot be used.
  """
  readers = [([table.index(column) for column in columns], function)
             for columns, function in fields.values()]
  kept, values = [], []
  for i, record in enumerate(table.records):
    try:
      values.append([function(*(record[j] for j in where))
                     for where, function in readers])
      kept.append(i)
    except Fault as fault:
      table.faults.add(table.place(i), fault)
  table.faults.settle(len(kept) + len(table.faults.unusable), bad_records)
  return table.subset(kept), {
      name: [value[f] for value in values] for f, name in enumerate(fields)}


def text(value: Any) -> str:
  """A text as it is."""
  if not isinstance(value, str):
    raise Fault("that are no text", lambda: f"{value!r} is no text")
  return value


def some_text(value: Any) -> str:
  """A text that says something: what a label could belong to."""
  if not text(value).strip():
    raise Fault("with an empty text", lambda: "the text is empty")
  return value


def several(value: Any) -> list[Any]:
  if not isinstance(value, list):
    raise Fault("that are no list", lambda: f"{value!r} is no list")
  return value


def words(value: Any) -> list[str]:
  return [text(word) for word in several(value)]


def number(value: Any) -> float:
  try:
    number = float(value)
  except (TypeError, ValueError):
    number = math.nan
  if not math.isfinite(number):
    raise Fault("with a label that is no number",
                lambda: f"the label {value!r} is no number")
  return number


def one_of(names: Sequence[str]) -> Callable[[Any], int]:
  """A label as its number among `names`."""
  numbers = {name: i for i, name in enumerate(names)}

  def label(value: Any) -> int:
    name = spelled(value)
    if name not in numbers:
      raise Fault("with an unknown label", lambda: f"the label {name!r} is not "
                  f"known{nearest(name, names)}")
    return numbers[name]

  return label


def spelled(label: Any) -> str:
  """A label as a name; JSON's null is none, like an empty field."""
  return "" if label is None else str(label)


def labels_in(labels: Iterable[Any]) -> tuple[str, ...]:
  """All labels but the empty one, by value if all are numbers, else by
  spelling."""
  names = sorted(set(map(spelled, labels)) - {""})
  try:
    return tuple(sorted(names, key=float))
  except ValueError:
    return tuple(names)
