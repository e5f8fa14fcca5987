"""Numbers of a report as text: scores, differences, verdicts."""

import math
from collections.abc import Sequence

import numpy as np

from bert_jax.metrics.differences import Difference, Interval
from bert_jax.reporting import markdown
from bert_jax.studies.reports.score_tables import (
    ArmDifference, ArmScores, ScoreTable)

SIGNIFICANT = 0.05


def scores(table: ScoreTable) -> str:
  """Every arm's own scores, which say less than their differences."""
  further = [name for name in _further(table.arms)]
  varied = any(arm.components for arm in table.arms)
  return markdown.table(
      [f"{table.protocol}", "seeds", "mean", "deviation over seeds",
       *(name.replace("_", " ") for name in further),
       *(["of pretraining seeds", "of fine-tuning seeds"] if varied else [])],
      [_scores(arm, further, varied) for arm in table.arms])


def _scores(arm: ArmScores, further: Sequence[str], varied: bool) -> list[str]:
  value_S = arm.values_S(sorted(arm.by_seed))
  if not len(value_S):
    return [arm.name, "0", *["-"] * (2 + len(further) + 2 * varied)]
  spread = value_S.std(ddof=1) if len(value_S) > 1 else math.nan
  numbers = [value_S.mean(), spread, *(
      np.mean([score.further[name] for score in arm.by_seed.values()])
      for name in further)]
  if varied:
    parts = arm.components
    numbers += ([parts.between_seeds, parts.within_seeds] if parts
                else [math.nan] * 2)
  return [arm.name, str(len(value_S)),
          *("-" if math.isnan(x) else f"{x:.4f}" for x in numbers)]


def _further(arms: Sequence[ArmScores]) -> list[str]:
  """What all scores have."""
  of_all = [score.further for arm in arms for score in arm.by_seed.values()]
  return [name for name in (of_all[0] if of_all else ())
          if all(name in further for further in of_all)]


def differences(rows: Sequence[ArmDifference], what: str,
                lower_is_better: bool) -> str:
  """With what can be said of them.

  Args:
    what: they are, as "mlm@1, minus the base".
  """
  digits = _digits(rows)
  return markdown.table(
      [what, "difference", "over seeds", "over seeds and items", "p",
       "detectable", "verdict"],
      [_difference(row, lower_is_better, digits) for row in rows])


def _difference(row: ArmDifference, lower_is_better: bool,
                digits: int) -> list[str]:
  difference = row.difference
  if difference is None:
    return [row.arm, *["-"] * 5, "not compared"]
  return [row.arm, f"{difference.mean:+.{digits}f}",
          interval(difference.over_seeds, digits),
          interval(row.over_items, digits), _p(row.p),
          "-" if math.isnan(difference.detectable) else
          f"{difference.detectable:.{digits}f}",
          verdict(row, lower_is_better)]


def _digits(rows: Sequence[ArmDifference]) -> int:
  """So that the narrowest interval has two digits."""
  sizes = [(row.difference.over_seeds.high - row.difference.over_seeds.low) / 2
           for row in rows if row.difference]
  sizes = [size for size in sizes if size > 0]
  return min(7, max(3, 1 - math.floor(math.log10(min(sizes))))) if sizes else 4


def interval(limits: Interval, digits: int) -> str:
  if math.isnan(limits.low):
    return "-"
  return f"{limits.low:+.{digits}f} to {limits.high:+.{digits}f}"


def _p(p: float) -> str:
  return "-" if math.isnan(p) else "<.0001" if p < 1e-4 else f"{p:.2g}"


def verdict(row: ArmDifference, lower_is_better: bool) -> str:
  """As "5 seeds cannot tell; 11 would"."""
  difference: Difference = row.difference
  if difference.seeds == 1:
    return "one seed cannot tell"
  if difference.over_seeds == Interval(0.0, 0.0):
    return "equal in every seed"
  if row.p > SIGNIFICANT:
    return f"{difference.seeds} seeds cannot tell{_needed(row)}"
  better = (difference.mean < 0) == lower_is_better
  other_items = ("" if math.isnan(row.over_items.low)
                 or row.over_items.excludes_zero() else ", on these items")
  return ("better" if better else "worse") + other_items


def _needed(row: ArmDifference) -> str:
  difference = row.difference
  if difference.p <= SIGNIFICANT:
    return " among several arms"
  if math.isinf(difference.seeds_needed):
    return "; a million would not"
  if difference.seeds_needed <= difference.seeds:
    return ""
  return f"; {difference.seeds_needed:.0f} would"


def quantity(number: float | None) -> str:
  """As 1,234 or 3.21e+12; "-" of nothing."""
  if number is None:
    return "-"
  return f"{number:,.0f}" if number < 1e9 else f"{number:.4g}"
