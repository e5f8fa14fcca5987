"""Intervals over seeds and test items: the Multi-Bootstrap.

Sellam et al. 2022, "The MultiBERTs", section 3: seeds and items are drawn with
replacement, together; base and arm get the same ones. Its percentiles are too
narrow for few seeds: of 3 they miss the truth in 25% of studies instead of 5%.
`widened` corrects that.

Dimensions: S seeds, R replicates, I items. Draws are the first axis of arrays
without a suffix.
"""

import dataclasses

import numpy as np

from bert_jax.metrics.differences import LEVEL, Interval, t_interval

DRAWS = 2000
_BLOCK_NUMBERS = 1 << 22  # of a matrix of counts
_TAIL = (1 - LEVEL) / 2


@dataclasses.dataclass(frozen=True, eq=False)
class Resampled:
  """Scores of seeds on items that were drawn with replacement.

  Attributes:
    values_S: on the items as they are.
    draws: (DRAWS, S), on those of each draw.
    items: their number.
  """

  values_S: np.ndarray
  draws: np.ndarray
  items: int

  def __sub__(self, other: "Resampled") -> "Resampled":
    return Resampled(self.values_S - other.values_S, self.draws - other.draws,
                     self.items)

  def of_seeds(self, seeds: np.ndarray) -> "Resampled":
    """Those at some indices."""
    return Resampled(self.values_S[seeds], self.draws[:, seeds], self.items)


def resample_items(totals_SRI: np.ndarray,
                   weights_SRI: np.ndarray) -> Resampled:
  """Scores that are ratios of sums, in the mean over replicates.

  What is drawn depends on the number of items alone: those who were scored on
  the same items get the same ones.
  """
  seeds, replicates, items = totals_SRI.shape
  ratios = lambda counts: (
      _sums(counts, totals_SRI) / _sums(counts, weights_SRI)).reshape(
          len(counts), seeds, replicates).mean(-1)
  block = max(1, _BLOCK_NUMBERS // items)
  generator = np.random.default_rng(0)
  draws = [ratios(_counts(generator, min(block, DRAWS - start), items))
           for start in range(0, DRAWS, block)]
  return Resampled(ratios(np.ones((1, items)))[0], np.concatenate(draws), items)


def _sums(counts: np.ndarray, values_SRI: np.ndarray) -> np.ndarray:
  return counts @ values_SRI.reshape(-1, values_SRI.shape[-1]).T


def _counts(generator: np.random.Generator, draws: int,
            items: int) -> np.ndarray:
  """How often each item is drawn, in (draws, items)."""
  picks = generator.integers(items, size=(draws, items))
  picks += items * np.arange(draws)[:, None]
  return np.bincount(picks.ravel(), minlength=draws * items).reshape(
      draws, items).astype(np.float64)


def percentiles(difference: Resampled) -> Interval:
  """As published: right for many seeds."""
  return Interval(*map(float, np.quantile(
      _means(difference), (_TAIL, 1 - _TAIL))))


def _means(difference: Resampled) -> np.ndarray:
  """Over seeds that are drawn, too."""
  seeds = difference.draws.shape[1]
  picks = np.random.default_rng(1).integers(
      seeds, size=difference.draws.shape)
  return np.take_along_axis(difference.draws, picks, axis=1).mean(axis=1)


def widened(difference: Resampled) -> Interval:
  """The percentiles, stretched about the mean for few seeds and items.

  To the width of Student's t for the sum of both variances, with
  Satterthwaite's degrees of freedom; at least to that of the t interval over
  seeds alone. Nan of one seed.
  """
  import scipy.stats  # Slow to import.
  difference_S, narrow = difference.values_S, percentiles(difference)
  seeds = len(difference_S)
  if seeds < 2 or not narrow.high > narrow.low:
    return t_interval(difference_S)[0]
  of_seeds = difference_S.var(ddof=1) / seeds
  of_items = difference.draws.mean(axis=1).var(ddof=1)
  freedom = (of_seeds + of_items)**2 / (
      of_seeds**2 / (seeds - 1) + of_items**2 / max(difference.items - 1, 1))
  half = max(
      scipy.stats.t.isf(_TAIL, freedom) * np.sqrt(of_seeds + of_items),
      scipy.stats.t.isf(_TAIL, seeds - 1) * np.sqrt(of_seeds))
  mean, factor = difference_S.mean(), 2 * half / (narrow.high - narrow.low)
  return Interval(float(mean + factor * (narrow.low - mean)),
                  float(mean + factor * (narrow.high - mean)))
