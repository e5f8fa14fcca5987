"""Differences of arms from their base, protocol by protocol.

Dimensions: S seeds, R replicates, I items.
"""

import dataclasses
import math
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from bert_jax.metrics import differences, multi_bootstrap
from bert_jax.metrics.differences import Components, Difference, Interval
from bert_jax.metrics.multi_bootstrap import Resampled
from bert_jax.studies.protocols.scores import Score
from bert_jax.studies.reports.comparison import ComparedArm, Comparison


@dataclasses.dataclass(frozen=True, eq=False)
class ArmScores:
  """Of an arm, by one protocol.

  Attributes:
    by_seed: finite ones.
    notes: which are missing, and why.
  """

  name: str
  by_seed: Mapping[int, Score]
  notes: Sequence[str]

  def values_S(self, seeds: Sequence[int]) -> np.ndarray:
    return np.array([self.by_seed[seed].value for seed in seeds])

  @property
  def components(self) -> Components | None:
    """None also where seeds have several numbers of replicates."""
    values = [score.values_R for score in self.by_seed.values()]
    if len({len(value_R) for value_R in values}) != 1:
      return None
    return differences.components(np.stack(values))


@dataclasses.dataclass(frozen=True, eq=False)
class ArmDifference:
  """Of an arm from the base.

  Attributes:
    difference: None: there is none, as `notes` say.
    over_items: other seeds and other items (Multi-Bootstrap, widened).
    p: adjusted for the number of arms (Holm).
  """

  arm: str
  difference: Difference | None
  over_items: Interval
  notes: Sequence[str]
  p: float = math.nan


@dataclasses.dataclass(frozen=True, eq=False)
class ScoreTable:
  """Of one protocol.

  Attributes:
    protocol: its title.
    measure, lower_is_better: of its values; of the first score.
    arms: the base first.
    differences: of the others.
    increments: of the others from the arm before, in a cumulative study.
  """

  protocol: str
  measure: str
  lower_is_better: bool
  arms: Sequence[ArmScores]
  differences: Sequence[ArmDifference]
  increments: Sequence[ArmDifference] = ()

  @property
  def families(self) -> list[tuple[Sequence[ArmDifference], str]]:
    """Differences whose p are adjusted together, and from what they are."""
    both = ((self.differences, "minus the base"),
            (self.increments, "minus the arm before"))
    return [(rows, minus) for rows, minus in both if rows]

  @property
  def notes(self) -> list[str]:
    return list(dict.fromkeys(
        note for part in (*self.arms, *self.differences, *self.increments)
        for note in part.notes))


def tables(comparison: Comparison) -> list[ScoreTable]:
  return [_table(comparison, title) for title in comparison.protocols]


def _table(comparison: Comparison, title: str) -> ScoreTable:
  of_arms = [_arm_scores(arm, title) for arm in comparison.arms]
  base, *others = of_arms
  first = next((score for arm in of_arms for score in arm.by_seed.values()),
               Score(title))
  return ScoreTable(title, first.measure, first.lower_is_better, of_arms,
                    _differences((base, other) for other in others),
                    _differences(zip(of_arms, others))
                    if comparison.cumulative else ())


def _differences(pairs: Iterable[tuple[ArmScores, ArmScores]]
                 ) -> list[ArmDifference]:
  """Of each pair the second minus the first."""
  rows = [_difference(base, arm) for base, arm in pairs]
  adjusted = differences.holm([
      row.difference.p if row.difference else math.nan for row in rows])
  return [dataclasses.replace(row, p=p) for row, p in zip(rows, adjusted)]


def _arm_scores(arm: ComparedArm, title: str) -> ArmScores:
  by_seed, notes = {}, []
  for run in arm.runs:
    score = run.scores.get(title)
    if not run.finished:
      continue  # The report names it once, not by every protocol.
    if score is None:
      notes.append(f"{arm.name}, seed {run.seed}: not scored by {title}.")
    elif score.unscorable:
      notes.append(f"{arm.name}: {title} cannot score it: "
                   f"{score.unscorable}.")
    elif not math.isfinite(score.value):
      notes.append(f"{arm.name}, seed {run.seed}: the score is "
                   f"{score.value:g}; without this seed the mean looks better "
                   "than the arm is.")
    else:
      by_seed[run.seed] = score
  return ArmScores(arm.name, by_seed, list(dict.fromkeys(notes)))


def _difference(base: ArmScores, arm: ArmScores) -> ArmDifference:
  nothing = lambda *notes: ArmDifference(arm.name, None, Interval(), notes)
  if not base.by_seed or not arm.by_seed:
    return nothing()
  seeds = sorted(base.by_seed.keys() & arm.by_seed.keys())
  if not seeds:
    return nothing(f"{arm.name}: no difference, as it has no seed in common "
                   f"with {base.name} ({_list(base.by_seed)} of {base.name}, "
                   f"{_list(arm.by_seed)} of {arm.name}).")
  data = {score.by_seed[seed].data for score in (base, arm) for seed in seeds}
  if len(data) > 1:
    return nothing(f"{arm.name}: no difference from {base.name}, as the scores "
                   "are of different data (fingerprints "
                   f"{', '.join(sorted(data))}).")
  alone = sorted(base.by_seed.keys() ^ arm.by_seed.keys())
  notes = [f"{arm.name}: {_list(alone)} left out of the difference from "
           f"{base.name}, as only one of both has a score of it."
          ] if alone else []
  difference = differences.paired(base.values_S(seeds), arm.values_S(seeds))
  sums = [resampled(scores, seeds) for scores in (base, arm)]
  over_items = (multi_bootstrap.widened(sums[1] - sums[0])
                if None not in sums and sums[0].items == sums[1].items
                else Interval())
  if len(seeds) == 1:
    notes.append(f"{arm.name}: one seed, so there is no interval.")
  return ArmDifference(arm.name, difference, over_items, notes)


def resampled(scores: ArmScores, seeds: Sequence[int]) -> Resampled | None:
  """None where a score is no ratio of sums over items, or the seeds have
  several numbers of replicates."""
  rows = [scores.by_seed[seed] for seed in seeds]
  shapes = {row.totals_RI.shape for row in rows}
  if len(shapes) != 1 or not rows[0].totals_RI.size:
    return None
  return multi_bootstrap.resample_items(
      np.stack([row.totals_RI for row in rows]),
      np.stack([row.weights_RI for row in rows]))


def _list(seeds: Sequence[int]) -> str:
  return ("seed " if len(seeds) == 1 else "seeds ") + ", ".join(
      map(str, sorted(seeds)))
