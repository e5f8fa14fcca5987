"""The files of labeled sets: records read from them, predictions written."""

import pathlib
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from bert_jax import files
from bert_jax.config import UserError
from bert_jax.data.records import arrays, conll, formatting, squad, tables
from bert_jax.data.records.bad_records import OnBadRecord
from bert_jax.data.records.squad import Question
from bert_jax.data.records.tables import Table

WRITTEN = ".tsv", ".csv", ".jsonl"


def read_table(spec: str, header: bool) -> Table:
  """Reads all of it; labeled sets are small.

  Args:
    spec: a path, or tfds:NAME:SPLIT.
    header: whether the first line of a TSV or CSV file names the columns.
  """
  if spec.startswith("tfds:"):
    return tables.tfds_table(spec)
  return tables.parse_table(spec, files.suffix(spec), files.read_text(spec),
                            header)


def read_conll(spec: str, word: int = 0, tag: int | None = -1) -> Table:
  """Reads a CoNLL file, as `conll.parse_conll`."""
  return conll.parse_conll(spec, files.read_text(spec), word, tag)


def read_questions(spec: str, bad_records: OnBadRecord = "error",
                   labeled: bool = True) -> list[Question]:
  """Reads questions, as `squad.parse`, from a file or tfds:NAME:SPLIT."""
  if spec.startswith("tfds:"):
    return squad.parse(spec, "", "", bad_records, labeled)
  return squad.parse(spec, files.suffix(spec), files.read_text(spec),
                     bad_records, labeled)


def read_array(spec: str, name: str) -> np.ndarray:
  """An array of an npz file, or that of an npy file, whatever `name` is."""
  with files.reading(spec) as file:
    content = file.read()
  return arrays.array_named(spec, arrays.parse_arrays(spec, content), name)


def write_table(path: str, columns: Sequence[str],
                records: Iterable[Sequence[Any]],
                separator: str = " ") -> None:
  """Writes a .tsv, .csv or .jsonl file, completely or not at all.

  Raises:
    UserError: another ending, what such a file cannot hold (see
      `format_table`), or no room or right to write.
  """
  check_output(path)
  files.write_text(path, formatting.format_table(path, columns, records,
                                                 separator))


def check_output(path: str, endings: Sequence[str] = WRITTEN) -> None:
  """
  Raises:
    UserError: a file with another ending, or in a folder that is not there.
  """
  file = pathlib.Path(path)
  if file.suffix not in endings:
    raise UserError(f"{path}: predictions are written to a file that ends in "
                    f"{', '.join(endings)}, not {file.suffix!r}.")
  files.check_folder(path)
