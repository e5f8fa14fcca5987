"""Tables of labelled sets: TSV, CSV, JSON lines, CoNLL files, TFDS by name.

  train.tsv   as GLUE ships it: a tab between fields, quotes are ordinary text
  train.csv   RFC 4180: a field may be quoted and then hold commas and lines
  train.jsonl one JSON object a line
  tfds:NAME:SPLIT

A file may be compressed (.gz, .xz); a byte-order mark is dropped.
"""

import contextlib
import csv
import dataclasses
import gzip
import io
import json
import logging
import lzma
import pathlib
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Literal

from bert_jax.config import UserError, nearest
from bert_jax.data.documents import tfds_name, tfds_records

Ragged = Literal["error", "skip"]
_LOG = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True, eq=False)
class Table:
  """Records with the columns' names (their numbers where there is no header).

  `lines` are the line numbers of the records in `source`, from 1; `skipped`
  counts the records that were left out as they lack columns.
  """

  source: str
  columns: tuple[str, ...]
  records: list[list[Any]]
  lines: list[int]
  skipped: int = 0

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


def read_table(spec: str, header: bool, ragged: Ragged = "error") -> Table:
  """Reads all of it; labelled sets are small.

  Args:
    spec: a path, or tfds:NAME:SPLIT.
    header: whether the first line of a TSV or CSV file names the columns.
    ragged: what to do about records with another number of columns.
  """
  if spec.startswith("tfds:"):
    return _tfds_table(spec)
  suffix, text = read_text(spec)
  if suffix in (".jsonl", ".json", ".ndjson"):
    return _json_table(spec, text, ragged)
  if suffix == ".tsv":
    numbered = ((i, line.rstrip("\r").split("\t"))
                for i, line in enumerate(text.split("\n"), 1) if line.strip())
  elif suffix == ".csv":
    numbered = _csv_records(spec, text)
  else:
    raise UserError(f"{spec}: a table is read from .tsv, .csv or .jsonl files "
                    f"(also .gz, .xz) or tfds:NAME:SPLIT, not {suffix!r}.")
  return _table(spec, numbered, header, ragged)


def write_table(path: str, columns: Sequence[str],
                records: Iterable[Sequence[Any]]) -> None:
  """Writes a .tsv, .csv or .jsonl file, whole or not at all.

  Raises:
    UserError: another ending, a field that a TSV file cannot hold, or no room
      or right to write.
  """
  suffix, text = pathlib.Path(path).suffix, io.StringIO(newline="")
  if suffix == ".jsonl":
    for record in records:
      text.write(json.dumps(dict(zip(columns, record)),
                            ensure_ascii=False) + "\n")
  elif suffix == ".csv":
    csv.writer(text, lineterminator="\n").writerows([columns, *records])
  elif suffix == ".tsv":
    for record in [columns, *records]:
      fields = [" ".join(f) if isinstance(f, list) else str(f) for f in record]
      if any(set("\t\n") & set(field) for field in fields):
        raise UserError(f"{path}: a text has a tab or a line break; write a "
                        ".csv or .jsonl file.")
      text.write("\t".join(fields) + "\n")
  else:
    raise UserError(f"{path}: a table is written to a .tsv, .csv or .jsonl "
                    f"file, not {suffix!r}.")
  part = pathlib.Path(f"{path}.part")
  try:
    part.write_text(text.getvalue(), newline="")
    part.replace(path)
  except OSError as error:
    with contextlib.suppress(OSError):
      part.unlink(missing_ok=True)
    raise UserError(f"{path} cannot be written: {error.strerror}.") from None


def read_text(spec: str) -> tuple[str, str]:
  """A file's suffix (without that of the compression) and its text."""
  path = pathlib.Path(spec)
  opened = {".gz": gzip.open, ".xz": lzma.open}
  compressed = path.suffix in opened
  try:
    with opened[path.suffix](path) if compressed else open(path, "rb") as file:
      text = file.read().decode("utf-8-sig")
  except UnicodeDecodeError as error:
    raise UserError(f"{spec} is not UTF-8: byte {error.start} is "
                    f"{error.object[error.start]:#x}.") from None
  except (OSError, EOFError, lzma.LZMAError) as error:
    reason = getattr(error, "strerror", None) or error
    raise UserError(f"{spec} cannot be read: {reason}.") from None
  return (path.with_suffix("") if compressed else path).suffix, text


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
           header: bool, ragged: Ragged) -> Table:
  numbered = list(numbered)
  if not numbered:
    raise UserError(f"{source} is empty.")
  width = len(numbered[0][1])
  columns = tuple(numbered[0][1]) if header else tuple(map(str, range(width)))
  numbered = numbered[header:]
  good = [(line, record) for line, record in numbered if len(record) == width]
  _check_ragged(source, ragged, len(numbered), [
      f"line {line} has {len(record)}" for line, record in numbered
      if len(record) != width], f"the {width} columns of the first line")
  return Table(source, columns, [record for _, record in good],
               [line for line, _ in good], len(numbered) - len(good))


def _json_table(source: str, text: str, ragged: Ragged) -> Table:
  columns, records, lines, bad = None, [], [], []
  for number, line in enumerate(text.split("\n"), 1):
    if not line.strip():
      continue
    try:
      record = json.loads(line)
    except json.JSONDecodeError as error:
      raise UserError(f"{source}:{number}: no JSON: {error}.") from None
    if not isinstance(record, dict):
      raise UserError(f"{source}:{number}: one JSON object a line is wanted, "
                      f"not a {type(record).__name__}.")
    columns = columns or tuple(record)
    missing = [name for name in columns if name not in record]
    if missing:
      bad.append(f"line {number} lacks {', '.join(missing)}")
    else:
      records.append([record[name] for name in columns])
      lines.append(number)
  if columns is None:
    raise UserError(f"{source} is empty.")
  _check_ragged(source, ragged, len(records) + len(bad), bad,
                "the fields of the first line")
  return Table(source, columns, records, lines, len(bad))


def _check_ragged(source: str, ragged: Ragged, count: int, bad: list[str],
                  wanted: str):
  if not bad:
    return
  shown = "; ".join(bad[:5]) + (" ..." if len(bad) > 5 else "")
  message = (f"{source}: {len(bad)} of {count} records have not {wanted}"
             f": {shown}.")
  if ragged == "error":
    raise UserError(f"{message} Mend them, or leave them out by ragged=skip.")
  _LOG.warning("%s They are left out.", message)


def _tfds_table(spec: str) -> Table:
  name, split = tfds_name(spec)
  if not split:
    raise UserError(f"{spec}: name the split too, as in tfds:glue/sst2:train.")
  found = tfds_records(name, split)
  features = found.dataset_info.features
  columns = tuple(features)
  records = [[_plain(record[c], features[c]) for c in columns]
             for record in found]
  return Table(spec, columns, records, list(range(len(records))))


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


def read_conll(spec: str, word: int = 0, tag: int | None = -1
               ) -> list[tuple[int, list[str], list[str]]]:
  """Sentences of a CoNLL file: first line number, words, tags.

  One word a line, its columns between tabs (or spaces where a line has no
  tab); empty lines between sentences; -DOCSTART- lines are left out.
  """
  _, text = read_text(spec)
  sentences, words, tags = [], [], []
  for number, line in enumerate((text + "\n").split("\n"), 1):
    line = line.rstrip("\r\n")
    if not line.strip() or line.startswith("-DOCSTART-"):
      if words:
        sentences.append((number - len(words), words, tags))
      words, tags = [], []
      continue
    fields = line.split("\t") if "\t" in line else line.split()
    try:
      words.append(fields[word])
      tags.append("" if tag is None else fields[tag])
    except IndexError:
      raise UserError(f"{spec}:{number}: {len(fields)} columns; the word is "
                      f"wanted in column {word}, its tag in column {tag}, "
                      "counted from 0.") from None
    if tag is not None and len(fields) < 2:
      raise UserError(f"{spec}:{number}: a word without a tag.")
  return sentences
