"""Runs beside each other: what to compare, and the report of it."""

import dataclasses
import glob
import pathlib
from collections.abc import Sequence
from typing import Any

from bert_jax.config import UserError
from bert_jax.studies import definition
from bert_jax.studies.reports import (
    comparison, missing_scores, pictures, report, score_tables)
from bert_jax.studies.reports.comparison import Comparison


@dataclasses.dataclass(frozen=True, eq=False)
class Report:
  """Of a comparison; a notebook shows it as a table."""

  comparison: Comparison

  def __repr__(self) -> str:
    return report.markdown_of(self.comparison)

  def _repr_markdown_(self) -> str:
    return repr(self)

  def forest(self) -> Any:
    """A figure of the differences from the base with their intervals, by the
    protocol that decides.

    Raises:
      UserError: there is no difference yet.
    """
    drawn = pictures.forests(self.comparison,
                             score_tables.tables(self.comparison))
    if not drawn:
      raise UserError("There is nothing to draw: no arm has a score of a seed "
                      "that the base has, too.")
    return next(iter(drawn.values())).overview

  def write(self, folder: str | pathlib.Path) -> None:
    """Writes study.md with pictures beside it, and study.html by itself."""
    folder = pathlib.Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    report.write(folder, self.comparison)


def compare(*runs: str | pathlib.Path,
            protocols: Sequence[str] = ()) -> Report:
  """The differences of runs from the first one, or of a study's arms from its
  base, with intervals.

  Args:
    runs: work directories, or patterns as "runs/base_*". Those whose options
      are equal but for the seed are one arm; the first one's arm is the base.
      Or the folder of one study.
    protocols: titles; the first one decides. Runs without a score are scored.
      (): all that every run was scored by, or mlm.

  Raises:
    UserError: a folder is no run, or they cannot be compared.
  """
  folders = [pathlib.Path(path) for run in runs for path in (
      sorted(glob.glob(str(run))) or [str(run)])]
  studies = [folder for folder in folders if definition.read(folder)]
  if not studies:
    return Report(comparison.read_runs(
        folders, missing_scores.score_missing(folders, protocols)))
  if len(folders) > 1:
    raise UserError(f"{studies[0]} is a study: give it alone, or runs only.")
  if protocols:
    raise UserError(f"{studies[0]} is a study, whose protocols are its own; "
                    "compare the folders of its runs by others.")
  return Report(comparison.read_study(studies[0]))
