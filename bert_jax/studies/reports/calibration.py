"""Whether the intervals hold: the base against itself, under other seeds.

Seeds of one arm are divided into a pseudo base and a pseudo arm, in many ways.
Their true difference is zero, so that 5% of the 95% intervals exclude zero.

Dimensions: S seeds.
"""

import dataclasses
import math
from collections.abc import Callable

import numpy as np

from bert_jax.metrics import differences, multi_bootstrap
from bert_jax.metrics.differences import Interval
from bert_jax.metrics.multi_bootstrap import Resampled
from bert_jax.reporting import markdown
from bert_jax.studies.reports.score_tables import ArmScores, resampled

LEAST_SEEDS = 12
GROUPS = 3, 5, 8  # seeds of a pseudo arm
MOST_PAIRINGS = 1000
_SIMULATIONS = 400


@dataclasses.dataclass(frozen=True)
class Share:
  """Of intervals that exclude zero.

  Attributes:
    interval: its kind.
    seeds: of each pseudo arm.
    pairings: that were made.
    share: of them.
    low, high: where 95% of such shares are if the t interval is right: of
      simulated studies of as many seeds with normal scores and the same
      pairings. They share seeds, and a binomial of their number would be
      narrower than the truth.
  """

  interval: str
  seeds: int
  pairings: int
  share: float
  low: float
  high: float


def shares(scores: ArmScores) -> list[Share]:
  """Of each kind of interval, for pseudo arms of each size that the seeds are
  enough for."""
  seeds = sorted(scores.by_seed)
  values_S = scores.values_S(seeds)
  both = resampled(scores, seeds)
  rows = []
  for size in GROUPS:
    if len(seeds) < 2 * size:
      continue
    pairs = pairings(len(seeds), size)
    allowed = simulated_range(len(seeds), pairs)
    excluded = {"t over seeds": t_share(values_S, pairs)}
    if both is not None:
      excluded["Multi-Bootstrap"] = _share(both, pairs, multi_bootstrap.widened)
      excluded["Multi-Bootstrap, percentiles as published"] = _share(
          both, pairs, multi_bootstrap.percentiles)
    rows += [Share(name, size, len(pairs), share, *allowed)
             for name, share in excluded.items()]
  return rows


def table(scores: ArmScores) -> str:
  """Of `shares`, in Markdown."""
  percent = lambda share: f"{100 * share:.1f}%"
  return markdown.table(
      ["interval", "seeds of an arm", "pairings", "exclude zero",
       "allowed by the seeds"],
      [[row.interval, str(row.seeds), str(row.pairings), percent(row.share),
        f"{percent(row.low)} to {percent(row.high)}"]
       for row in shares(scores)])


def pairings(seeds: int, size: int) -> np.ndarray:
  """Of disjoint groups, in (pairings, 2, size): all, or some of a fixed draw.

  Two groups are paired once, seed by seed in the order that they were drawn.
  """
  generator = np.random.default_rng(0)
  chosen: dict[tuple, np.ndarray] = {}
  limit = min(MOST_PAIRINGS, math.comb(seeds, 2 * size)
              * math.comb(2 * size, size) // 2)
  while len(chosen) < limit:
    both = generator.permutation(seeds)[:2 * size].reshape(2, size)
    chosen.setdefault(tuple(sorted(tuple(sorted(g)) for g in both.tolist())),
                      both)
  return np.stack(list(chosen.values()))


def t_share(values_S: np.ndarray, pairs: np.ndarray) -> float:
  """Of t intervals that exclude zero."""
  import scipy.stats  # Slow to import.
  difference = values_S[pairs[:, 1]] - values_S[pairs[:, 0]]
  return float(np.mean(scipy.stats.ttest_1samp(
      difference, 0, axis=1).pvalue < 1 - differences.LEVEL))


def _share(scores: Resampled, pairs: np.ndarray,
           interval: Callable[[Resampled], Interval]) -> float:
  return float(np.mean([
      interval(scores.of_seeds(arm) - scores.of_seeds(base)).excludes_zero()
      for base, arm in pairs]))


def simulated_range(seeds: int, pairs: np.ndarray) -> tuple[float, float]:
  """Where the share is in 95% of studies whose scores are normal."""
  generator = np.random.default_rng(0)
  low, high = np.percentile(
      [t_share(generator.normal(size=seeds), pairs)
       for _ in range(_SIMULATIONS)], [2.5, 97.5])
  return float(low), float(high)
