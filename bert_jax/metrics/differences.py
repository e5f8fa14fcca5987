"""Paired differences of scores: how large they are, and how sure that is.

Dimensions: S seeds, R replicates (fine-tunings of one pretraining seed), I
items (documents, examples). Base and arm have the same seeds, in the same
order, and were scored on the same items.
"""

import dataclasses
import math
from collections.abc import Sequence

import numpy as np

LEVEL = 0.95  # of all intervals
POWER = 0.8
MOST_SEEDS = 1e6


@dataclasses.dataclass(frozen=True)
class Interval:
  """Of nan: there is none."""

  low: float = math.nan
  high: float = math.nan

  def excludes_zero(self) -> bool:
    return self.low > 0 or self.high < 0


@dataclasses.dataclass(frozen=True)
class Difference:
  """Of an arm from the base, in the mean over seeds.

  Attributes:
    seeds: pairs.
    mean: arm minus base.
    over_seeds: other seeds, the same items (t).
    p: that seeds alone make such a mean (t); nan of one seed.
    detectable: the smallest difference that this many seeds see with a power
      of 80%; nan of one seed.
    seeds_needed: that see this mean with that power; inf if over a million,
      nan of one seed.
  """

  seeds: int
  mean: float
  over_seeds: Interval
  p: float
  detectable: float
  seeds_needed: float


def paired(base_S: np.ndarray, arm_S: np.ndarray) -> Difference:
  """Of one value a seed: the mean over its replicates, if it has several."""
  difference_S = arm_S - base_S
  interval, p = t_interval(difference_S)
  mean, deviation = difference_S.mean(), deviation_of(difference_S)
  return Difference(len(difference_S), float(mean), interval, p,
                    detectable(deviation, len(difference_S)),
                    seeds_needed(abs(mean), deviation))


def deviation_of(values_S: np.ndarray) -> float:
  """The sample's standard deviation; nan of one value."""
  return float(values_S.std(ddof=1)) if len(values_S) > 1 else math.nan


def t_interval(difference_S: np.ndarray) -> tuple[Interval, float]:
  """The interval of the mean, and p; without either of a single value."""
  import scipy.stats  # Slow to import.
  if len(difference_S) < 2 or not np.isfinite(difference_S).all():
    return Interval(), math.nan
  if np.ptp(difference_S) == 0:  # scipy warns that nothing varies.
    value = float(difference_S[0])
    return Interval(value, value), float(value == 0)
  test = scipy.stats.ttest_1samp(difference_S, 0)
  interval = test.confidence_interval(LEVEL)
  return Interval(float(interval.low), float(interval.high)), float(test.pvalue)


def holm(p_values: Sequence[float]) -> list[float]:
  """p adjusted for their number (Holm 1979); nan counts as no test."""
  tested = sorted((p, i) for i, p in enumerate(p_values) if not math.isnan(p))
  adjusted, largest = [math.nan] * len(p_values), 0.0
  for rank, (p, i) in enumerate(tested):
    largest = max(largest, min(1.0, p * (len(tested) - rank)))
    adjusted[i] = largest
  return adjusted


def power(difference: float, deviation: float, seeds: float) -> float:
  """That a two-sided paired t test at 5% sees a difference.

  Args:
    deviation: of the differences of single seeds.
    seeds: above 1.
  """
  import scipy.stats
  limit = scipy.stats.t.isf((1 - LEVEL) / 2, seeds - 1)
  # Beyond, the power is 1 or, to scipy, nan.
  effect = min(difference / deviation * math.sqrt(seeds), 20 * limit)
  t = scipy.stats.nct(seeds - 1, effect)
  with np.errstate(all="ignore"):  # scipy 1.13 warns of what underflows.
    right, other = float(t.sf(limit)), float(t.cdf(-limit))
  # Of the other sign; newer ones have nan where it is about 0.
  return right + (0.0 if math.isnan(other) else other)


def detectable(deviation: float, seeds: int) -> float:
  """The difference that is seen with a power of 80%; nan of one seed."""
  import scipy.optimize
  if not deviation > 0:
    return deviation
  high = 1.0
  while power(high, 1.0, seeds) < POWER:
    high *= 2
  return deviation * float(scipy.optimize.brentq(
      lambda effect: power(effect, 1.0, seeds) - POWER, 0.0, high))


def seeds_needed(difference: float, deviation: float) -> float:
  """To see a difference with a power of 80%: at least 2; inf of too many."""
  import scipy.optimize
  if math.isnan(difference) or math.isnan(deviation):
    return math.nan
  excess = lambda seeds: power(difference, deviation, seeds) - POWER
  if deviation == 0:
    return 2.0 if difference else math.inf
  if excess(2.0) >= 0:
    return 2.0
  if excess(MOST_SEEDS) < 0:
    return math.inf
  return float(math.ceil(scipy.optimize.brentq(excess, 2.0, MOST_SEEDS)))


@dataclasses.dataclass(frozen=True)
class Components:
  """Standard deviations of scores, by what varies.

  Attributes:
    between_seeds: of pretraining seeds.
    within_seeds: of replicates of one pretraining seed.
  """

  between_seeds: float
  within_seeds: float


def components(values_SR: np.ndarray) -> Components | None:
  """Of pretraining seeds and of replicates, by a two-way analysis of variance
  with random effects; None: there are not two of each.

  Replicate r has the same seed under every pretraining seed. What it does to
  all of them alike is no noise of their means, so these are compared with the
  interaction, not with all that varies between replicates.
  """
  seeds, replicates = values_SR.shape
  if min(seeds, replicates) < 2:
    return None
  within = values_SR.var(axis=1, ddof=1).mean()
  means = values_SR.mean(axis=1).var(ddof=1)
  # The interaction: what is left of `within` without the replicates' own means.
  shared = values_SR.mean(axis=0).var(ddof=1)
  interaction = max(0.0, within - shared) * seeds / (seeds - 1)
  return Components(math.sqrt(max(0.0, means - interaction / replicates)),
                    math.sqrt(within))
