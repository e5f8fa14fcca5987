"""Tables of labeled sets: TSV, CSV, JSON lines, TFDS by name.

  train.tsv   as GLUE ships it: a tab between fields, quotes are ordinary text
  train.csv   RFC 4180: a field may be quoted and then hold commas and lines
  train.jsonl one JSON object a line; a .json file may also be a list of them
  tfds:NAME:SPLIT

Nothing here opens a file: `labeled.record_files` does. Records with too few or
too many columns are not in the table but among its faults, for whoever reads
it to settle. JSON objects need not have the same keys: the columns are all
keys that occur, and only what uses a column misses it.
"""

import csv
import dataclasses
import enum
import io
import itertools
import pathlib
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from bert_jax.config import UserError, nearest
from bert_jax.data.records import json_objects
from bert_jax.data.records.bad_records import Fault, Faults
from bert_jax.data.records.tfds import tfds_name, tfds_records

JSON = ".jsonl", ".json", ".ndjson"


class Absent(enum.Enum):
  """Stands where a JSON object lacks a column."""

  ABSENT = "absent"


ABSENT = Absent.ABSENT


@dataclasses.dataclass(frozen=True, eq=False)
class Table:
  """Records with the columns' names (their numbers where there is no header).

  `lines` are the line numbers of the records in `source`, from 1; in a JSON
  list, the numbers of its elements.
  """

  source: str
  columns: tuple[str, ...]
  records: list[list[Any]]
  lines: list[int]
  faults: Faults

  def column(self, name: str) -> list[Any]:
    index = self.index(name)
    return [record[index] for record in self.records]

  def index(self, name: str) -> int:
    """The column of this name, or of this number, counted from 0."""
    if self.columns.count(name) > 1:
      raise UserError(f"{self.source}: {self.columns.count(name)} columns are "
                      f"called {name!r}; give the number of one, from 0.")
    if name in self.columns:
      return self.columns.index(name)
    if name.isdecimal() and int(name) < len(self.columns):
      return int(name)
    raise UserError(f"{self.source}: no column {name!r}"
                    + nearest(name, self.columns))

  def fields(self, record: int) -> dict[str, Any]:
    """What a record has, by column."""
    return {name: value for name, value in zip(
        self.columns, self.records[record]) if value is not ABSENT}

  def place(self, record: int) -> str:
    return f"{self.source}:{self.lines[record]}"

  def names(self) -> list[str]:
    """A name for each record, the same wherever the file lies."""
    stem = (self.source if self.source.startswith("tfds:")
            else pathlib.Path(self.source).name)
    return [f"{stem}:{line}" for line in self.lines]

  def subset(self, chosen: Sequence[int]) -> "Table":
    return dataclasses.replace(
        self, records=[self.records[i] for i in chosen],
        lines=[self.lines[i] for i in chosen])


def parse_table(spec: str, ending: str, text: str, header: bool) -> Table:
  """The table that a file's text holds.

  Args:
    spec: the file, for messages.
    ending: of its name, without that of a compression.
    header: whether the first line of a TSV or CSV file names the columns.
  """
  if ending in JSON:
    return _json_table(spec, text, ending == ".json"
                       and text.lstrip().startswith("["))
  if ending == ".tsv":
    end = "\n" if "\n" in text else "\r"  # CR alone, as of old Macs.
    numbered = ((i, line.removesuffix("\r").split("\t")) for i, line in
                enumerate(text.removesuffix(end).split(end), 1))
  elif ending == ".csv":
    numbered = _csv_records(spec, text)
  else:
    raise UserError(f"{spec}: a table is read from .tsv, .csv or .jsonl files "
                    f"(also compressed) or tfds:NAME:SPLIT, not {ending!r}.")
  return _table(spec, numbered, header)


def _csv_records(source: str, text: str) -> Iterator[tuple[int, list[str]]]:
  csv.field_size_limit(1 << 30)
  reader, line = csv.reader(io.StringIO(text, newline=""), strict=True), 1
  try:
    for record in reader:
      yield line, record or [""]
      line = reader.line_num + 1
  except csv.Error as error:
    raise UserError(f"{source}:{line}: {error}.") from None


def _table(source: str, numbered: Iterable[tuple[int, list[str]]],
           header: bool) -> Table:
  numbered = list(numbered)
  width = next((len(fields) for _, fields in numbered if not _blank(fields)), 0)
  if not width:
    raise UserError(f"{source} is empty.")
  if width > 1:
    numbered = _without_blank(source, numbered)
  elif header:  # Below it, an empty line is an empty field.
    numbered = list(itertools.dropwhile(lambda n: _blank(n[1]), numbered))
  columns = tuple(numbered[0][1]) if header else tuple(map(str, range(width)))
  table = Table(source, columns, [], [], Faults(source))
  for line, record in numbered[header:]:
    fault = _fault(record, width)
    if fault:
      table.faults.add(f"{source}:{line}", fault)
    else:
      table.records.append(record)
      table.lines.append(line)
  return table


def _blank(fields: Sequence[str]) -> bool:
  """Whether these are the fields of a line with nothing in it."""
  return len(fields) == 1 and not fields[0].strip()


def _without_blank(source: str, numbered: Sequence[tuple[int, list[str]]]
                   ) -> list[tuple[int, list[str]]]:
  records = [(line, fields) for line, fields in numbered if not _blank(fields)]
  json_objects.report_blank(
      source, [line for line, fields in numbered if _blank(fields)],
      records[-1][0])
  return records


def _fault(record: list[str], width: int) -> Fault | None:
  if len(record) != width:
    return Fault("with other columns", lambda: f"{len(record)} columns, not "
                 f"the {width} of the first line")
  return marked(record)


def marked(record: list[str]) -> Fault | None:
  # Where files were joined: it would stick to a word and not be seen.
  if any("\ufeff" in field for field in record):
    return Fault("with a byte-order mark", lambda: "a byte-order mark amid "
                 "the file")
  return None


def _json_table(source: str, text: str, in_list: bool) -> Table:
  faults = Faults(source)
  objects = json_objects.parse_objects(text, faults, in_list)
  if not (objects or faults.unusable):
    raise UserError(f"{source} is empty.")
  columns = tuple(dict.fromkeys(itertools.chain.from_iterable(
      record for _, record in objects)))
  return Table(source, columns,
               [[record.get(name, ABSENT) for name in columns]
                for _, record in objects],
               [number for number, _ in objects], faults)


def tfds_table(spec: str) -> Table:
  name, split = tfds_name(spec)
  if not split:
    raise UserError(f"{spec}: name the split too, as in tfds:glue/sst2:train.")
  source = tfds_records(name, split)
  features = source.dataset_info.features
  columns = tuple(features)
  records = [[_plain(record[c], features[c]) for c in columns]
             for record in source]
  return Table(spec, columns, records, list(range(len(records))),
               Faults(spec))


def _plain(value: Any, feature: Any) -> Any:
  """A TFDS value as a file would have it: text, class names, lists."""
  if isinstance(value, bytes):
    return value.decode("utf-8", errors="replace")
  if hasattr(feature, "int2str"):  # a ClassLabel; -1 where labels are hidden
    return feature.int2str(int(value)) if value >= 0 else ""
  if hasattr(value, "tolist"):
    value = value.tolist()
  if isinstance(value, list):
    inner = getattr(feature, "feature", None)
    return [_plain(element, inner) for element in value]
  return value
