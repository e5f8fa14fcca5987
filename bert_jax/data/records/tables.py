"""Tables of labeled sets: TSV, CSV, JSON lines, CoNLL files, TFDS by name.

  train.tsv   as GLUE ships it: a tab between fields, quotes are ordinary text
  train.csv   RFC 4180: a field may be quoted and then hold commas and lines
  train.jsonl one JSON object a line
  tfds:NAME:SPLIT

Nothing here opens a file: `labeled.record_files` does. Records with too few or
too many columns are not in the table but among its faults, for whoever reads
it to settle.
"""

import csv
import dataclasses
import io
import json
import logging
import pathlib
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from bert_jax.config import UserError, nearest
from bert_jax.data.records.bad_records import Fault, Faults
from bert_jax.data.records.tfds import tfds_name, tfds_records

JSON = ".jsonl", ".json", ".ndjson"
_LOG = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True, eq=False)
class Table:
  """Records with the columns' names (their numbers where there is no header).

  `lines` are the line numbers of the records in `source`, from 1.
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
    if name in self.columns:
      return self.columns.index(name)
    if name.isdecimal() and int(name) < len(self.columns):
      return int(name)
    raise UserError(f"{self.source}: no column {name!r}"
                    + nearest(name, self.columns))

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
    return _json_table(spec, text)
  if ending == ".tsv":
    numbered = ((i, line.rstrip("\r").split("\t"))
                for i, line in enumerate(text.split("\n"), 1) if line.strip())
  elif ending == ".csv":
    numbered = _csv_records(spec, text)
  else:
    raise UserError(f"{spec}: a table is read from .tsv, .csv or .jsonl files "
                    f"(also compressed) or tfds:NAME:SPLIT, not {ending!r}.")
  return _table(spec, numbered, header)


def format_table(path: str, columns: Sequence[str],
                 records: Iterable[Sequence[Any]]) -> str:
  """The text of a .tsv, .csv or .jsonl file.

  Raises:
    UserError: a field that a TSV file cannot hold.
  """
  ending, text = pathlib.Path(path).suffix, io.StringIO(newline="")
  if ending == ".jsonl":
    for record in records:
      text.write(json.dumps(dict(zip(columns, record)),
                            ensure_ascii=False) + "\n")
    return text.getvalue()
  lines = [list(map(_field, record)) for record in [columns, *records]]
  if ending == ".csv":
    csv.writer(text, lineterminator="\n").writerows(lines)
  else:
    for line in lines:
      if any(set("\t\n") & set(field) for field in line):
        raise UserError(f"{path}: a text has a tab or a line break; write a "
                        ".csv or .jsonl file.")
      text.write("\t".join(line) + "\n")
  return text.getvalue()


def _field(value: Any) -> str:
  """A value as text; lists as their elements, JSON's null as nothing."""
  if isinstance(value, list):
    return " ".join(map(_field, value))
  return "" if value is None else str(value)


def _csv_records(source: str, text: str) -> Iterator[tuple[int, list[str]]]:
  csv.field_size_limit(1 << 30)
  reader, line = csv.reader(io.StringIO(text, newline=""), strict=True), 1
  try:
    for record in reader:
      if record:
        yield line, record
      line = reader.line_num + 1
  except csv.Error as error:
    raise UserError(f"{source}:{line}: {error}.") from None


def _table(source: str, numbered: Iterable[tuple[int, list[str]]],
           header: bool) -> Table:
  numbered = list(numbered)
  if not numbered:
    raise UserError(f"{source} is empty.")
  width = len(numbered[0][1])
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


def _fault(record: list[str], width: int) -> Fault | None:
  if len(record) != width:
    return Fault("with other columns", lambda: f"{len(record)} columns, not "
                 f"the {width} of the first line")
  return _marked(record)


def _marked(record: list[str]) -> Fault | None:
  # Where files were joined: it would stick to a word and not be seen.
  if any("\ufeff" in field for field in record):
    return Fault("with a byte-order mark", lambda: "a byte-order mark amid "
                 "the file")
  return None


def _json_table(source: str, text: str) -> Table:
  columns, records, lines, faults = (), [], [], Faults(source)
  for number, line in enumerate(text.split("\n"), 1):
    if not line.strip():
      continue
    try:
      record = _json_record(line)
      columns = columns or tuple(record)
      records.append([record[name] for name in columns])
      lines.append(number)
    except KeyError:
      faults.add(f"{source}:{number}", _missing(columns, record))
    except Fault as fault:
      faults.add(f"{source}:{number}", fault)
  if not (records or faults.unusable):
    raise UserError(f"{source} is empty.")
  return Table(source, columns, records, lines, faults)


def _json_record(line: str) -> dict[str, Any]:
  try:
    record = json.loads(line)
  except json.JSONDecodeError as error:
    said = str(error)
    raise Fault("that are no JSON", lambda: f"no JSON: {said}") from None
  if not isinstance(record, dict):
    raise Fault("that are no objects", lambda: "one JSON object a line is "
                f"wanted, not a {type(record).__name__}")
  return record


def _missing(columns: Sequence[str], record: dict[str, Any]) -> Fault:
  missing = [name for name in columns if name not in record]
  return Fault("with other columns", lambda: f"lacks {', '.join(missing)}")


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


def parse_conll(spec: str, text: str, word: int = 0,
                tag: int | None = -1) -> Table:
  """Sentences of a CoNLL file: a table of words and tags (None: of words).

  One word a line, its columns between tabs (or spaces where a line has no
  tab); empty lines between sentences; -DOCSTART- lines are left out. `lines`
  are the first of each sentence.
  """
  columns = ("words",) if tag is None else ("words", "tags")
  table = Table(spec, columns, [], [], Faults(spec))
  begin, sentence, fault = 0, [], None
  for number, line in enumerate((text + "\n").split("\n"), 1):
    line = line.rstrip("\r\n")
    if not line.strip() or line.startswith("-DOCSTART-"):
      if fault:
        table.faults.add(*fault)
      elif sentence:
        table.records.append([list(column) for column in zip(*sentence)])
        table.lines.append(begin)
      sentence, fault = [], None
      continue
    if not sentence:
      begin = number
    fields = line.split("\t") if "\t" in line else line.split()
    needed = [word] if tag is None else [word, tag]
    if max(needed) >= len(fields) or len(fields) < len(needed):
      fault = fault or (f"{spec}:{number}", _short(len(fields), needed))
    elif marked := _marked(fields):
      fault = fault or (f"{spec}:{number}", marked)
    sentence.append([fields[i] if i < len(fields) else "" for i in needed])
  return table


def _short(columns: int, needed: list[int]) -> Fault:
  return Fault("without a tag", lambda: (
      f"{columns} columns; the word is expected in column {needed[0]}, its tag "
      f"in column {needed[-1]}, counted from 0"))
