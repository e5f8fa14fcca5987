"""Pictures of a report: a forest plot of each protocol, and the curves."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from bert_jax.reporting import study_plots
from bert_jax.reporting.study_plots import ForestRow
from bert_jax.studies.reports import curves
from bert_jax.studies.reports.comparison import Comparison
from bert_jax.studies.reports.score_tables import (
    ArmDifference, ScoreTable)

CURVES = "curves"
_AXES = "steps", "tokens", "flops", "seconds"
_OWN = """\
Every arm is measured by its own objective here: where objectives differ, the
curves are not comparable."""
_LINES = """\
Lines are means over seeds, bands one standard deviation. Tokens, FLOPs and
seconds are steps times the mean cost of the arm's step."""


@dataclasses.dataclass(frozen=True, eq=False)
class Picture:
  """Attributes:
    overview: what stands beside study.md.
    views: by name the figures between which study.html switches.
    note: below it.
  """

  title: str
  file: str
  overview: Any
  views: Mapping[str, Any]
  note: str = ""


def draw(comparison: Comparison,
         tables: Sequence[ScoreTable]) -> dict[str, Picture]:
  """Those of `forests`, and CURVES."""
  pictures = forests(comparison, tables)
  key = curves.key_of(comparison)
  arms = curves.of_arms(comparison, key)
  if arms:
    title, measure = ("", "held-out loss") if key == curves.OWN else (
        key.removeprefix("held_out/"), tables[0].measure)
    figures = {axis: study_plots.curves(arms, [axis], title, measure)
               for axis in _AXES}
    if further := curves.minus_base(comparison, key):
      figures["steps, minus the base"] = study_plots.curves(
          further, ["steps"], title, f"{measure}, minus the base")
    pictures[CURVES] = Picture(
        f"Curves: {title or measure}", "study_curves.png",
        study_plots.curves(arms, _AXES, title, measure), figures,
        f"{_OWN} {_LINES}" if key == curves.OWN else _LINES)
  return pictures


def forests(comparison: Comparison,
            tables: Sequence[ScoreTable]) -> dict[str, Picture]:
  """By what they show, as "mlm@1, minus the base"."""
  return {f"{table.protocol}, {minus}": _forest(table, rows, minus, comparison)
          for table in tables for rows, minus in table.families
          if any(row.difference for row in rows)}


def _forest(table: ScoreTable, differences: Sequence[ArmDifference],
            minus: str, comparison: Comparison) -> Picture:
  numbers = {arm.name: i for i, arm in enumerate(comparison.arms)}
  rows = [ForestRow(
      row.arm, numbers[row.arm], row.difference.mean,
      dataclasses.astuple(row.difference.over_seeds),
      dataclasses.astuple(row.over_items))
      for row in differences if row.difference]
  figure = study_plots.forest(
      rows, table.protocol, f"{table.measure}, {minus}",
      "lower" if table.lower_is_better else "higher")
  before = differences is table.increments
  file = f"study_{table.protocol}{' increments' if before else ''}.png"
  return Picture(f"{table.protocol}, {minus}", file.replace(" ", "_"), figure,
                 {minus: figure})
