"""What several seeds say of one score."""

import dataclasses
import math
import statistics
from collections.abc import Sequence


@dataclasses.dataclass(frozen=True)
class SeedStatistics:
  """Of a score over the seeds.

  Attributes:
    count: seeds.
    median, mean: nan if there is a seed without a score.
    deviation: the sample's standard deviation; nan of one seed.
    low, high: the 95% confidence interval of the mean, by Student's t.
  """

  count: int
  median: float
  mean: float
  deviation: float
  low: float
  high: float

  @classmethod
  def of(cls, values: Sequence[float]) -> "SeedStatistics":
    count, nan = len(values), math.nan
    if not count or any(map(math.isnan, values)):
      return cls(count, nan, nan, nan, nan, nan)
    median, mean = statistics.median(values), statistics.fmean(values)
    if count == 1:
      return cls(1, median, mean, nan, nan, nan)
    import scipy.stats  # Slow to import.
    deviation = statistics.stdev(values)
    half = float(scipy.stats.t.ppf(0.975, count - 1)) * deviation / count**0.5
    return cls(count, median, mean, deviation, mean - half, mean + half)
