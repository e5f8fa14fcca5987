"""From the columns of a table to examples, bad records reported or skipped."""

import collections
import dataclasses
import logging
import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from bert_jax.config import UserError, nearest
from bert_jax.data.records.bad_records import Fault, OnBadRecord
from bert_jax.data.records.tables import ABSENT, Table

_LOG = logging.getLogger(__name__)

# Columns, and what makes a value of theirs; it raises Fault for a bad one.
Field = tuple[Sequence[str], Callable[..., Any]]


@dataclasses.dataclass(frozen=True)
class Columns:
  """Which columns of a labeled set to read, by name or number (from 0).

  CoNLL files have no names: there the word is in the first column and the tag
  in the last, unless numbers are given.

  Attributes:
    text: name or number (from 0) of the column of the text, or for tagging of
      the words.
    pair: column of the second text of a pair; "": there is none.
    label: column of the label, or for tagging of the tags, one for each word;
      "": there is none.
    choices: for multiple choice, a column for each choice, or one column of
      lists.
    probabilities: for soft labels, a column of the probability of each class,
      in the order of objective.labels, or one column of lists; "": those that
      are called probability_LABEL, as `bert-jax predict` writes them.
    separator: what separates the labels of a text that may have several.
    header: whether the first line names the columns; None: it does, unless
      `text` is a number.
    bad_records: what is done about records that cannot be used (fields missing,
      labels unknown or no numbers, texts empty, words without a tag): they
      are an error, or skipped and counted.
  """

  text: str = "sentence"
  pair: str = ""
  label: str = "label"
  choices: tuple[str, ...] = ()
  probabilities: tuple[str, ...] = ()
  separator: str = ","
  header: bool | None = None
  bad_records: OnBadRecord = "error"

  def __post_init__(self):
    if not self.separator:
      raise UserError("data.columns.separator is empty; it stands between the "
                      "labels of a text, as in data.columns.separator=,.")

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
  readers = [([_index(table, column) for column in columns], function)
             for columns, function in fields.values()]
  usable, values = [], []
  for i, record in enumerate(table.records):
    try:
      _check_present(table, record, readers)
      values.append([function(*(record[j] for j in where))
                     for where, function in readers])
      usable.append(i)
    except Fault as fault:
      table.faults.add(table.place(i), fault)
  table.faults.settle(len(usable) + len(table.faults.unusable), bad_records)
  return table.subset(usable), {
      name: [value[f] for value in values] for f, name in enumerate(fields)}


def _index(table: Table, column: str) -> int:
  index = table.index(column)
  if column not in table.columns:
    _LOG.warning("%s: column number %s, counted from 0, is %r.", table.source,
                 column, table.columns[index])
  return index


def _check_present(table: Table, record: Sequence[Any],
                   readers: Iterable[Field]) -> None:
  missing = [table.columns[j] for where, _ in readers for j in where
             if record[j] is ABSENT]
  if missing:
    raise Fault("with other columns", lambda: f"lacks {', '.join(missing)}")


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
    number = float(value)  # Python takes 1_000 for a number, people do not.
    number = math.nan if "_" in str(value) else number
  except (TypeError, ValueError):
    number = math.nan
  if not math.isfinite(number):
    raise Fault("with a label that is no number",
                lambda: f"the label {value!r} is no number")
  return number


def one_of(names: Sequence[str]) -> Callable[[Any], int]:
  """A label as its number among `names`.

  Raises:
    UserError: two names of the same label.
  """
  numbers = {_compared(spelled(name)): i for i, name in enumerate(names)}
  if len(numbers) < len(names):
    raise UserError(f"Of the labels {', '.join(names)}, two are the same.")

  def label(value: Any) -> int:
    if isinstance(value, (list, dict)):
      raise Fault("with a label that is neither text nor number",
                  lambda: f"{value!r} is no label")
    name = spelled(value)
    if not name:
      raise Fault("without a label", lambda: "the label is missing")
    if _compared(name) not in numbers:
      raise Fault("with an unknown label", lambda: f"the label {name!r} is not "
                  f"known{nearest(name, names)}")
    return numbers[_compared(name)]

  return label


def spelled(label: Any) -> str:
  """A label as a name, without white space around it; "" for none: an empty
  or absent field, JSON's null or NaN."""
  if label is None or label is ABSENT:
    return ""
  if isinstance(label, float):
    if not math.isfinite(label):
      return ""
    label = int(label) if label.is_integer() else label
  return str(label).strip()


def _compared(name: str) -> str:
  """The same for all names of a label: 1.0 is 1."""
  return re.sub(r"^(-?\d+)\.0+$", r"\1", name)


def labels_in(labels: Iterable[Any], source: str = "The labels"
              ) -> tuple[str, ...]:
  """All labels but the empty one, by value if all are numbers, else by
  spelling.

  Args:
    source: where they are, for a warning where one is written in several ways.
  """
  written = collections.Counter(
      label if isinstance(label, str) else spelled(label) for label in labels
      if not isinstance(label, (list, dict)))
  spellings = collections.defaultdict(set)
  for text in written:
    if name := spelled(text):
      spellings[_compared(name)].add(name)
  names = {key: key if len(same) > 1 else min(same)
           for key, same in spellings.items()}
  respelled = {text: names[_compared(spelled(text))] for text in written
               if spelled(text)}
  respelled = {text: name for text, name in respelled.items() if text != name}
  if respelled:
    _LOG.warning("%s: labels that are read as a class of another spelling: %d, "
                 "%s.", source, sum(map(written.get, respelled)),
                 ", ".join(f"{text!r} as {name!r}"
                           for text, name in list(respelled.items())[:3]))
  return _ordered(names.values())


def _ordered(names: Iterable[str]) -> tuple[str, ...]:
  names = sorted(names)
  try:
    values = {name: float(name) for name in names}
  except ValueError:
    return tuple(names)
  if not all(map(math.isfinite, values.values())):
    return tuple(names)
  return tuple(sorted(names, key=values.get))
