"""Means as totals and weights, which add up where means of means do not."""

import math
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple


class Mean(NamedTuple):
  """A weighted sum and the sum of its weights; numbers or arrays."""

  total: Any
  weight: Any

  def value(self) -> float:
    """The mean, nan where nothing has weight."""
    return float(self.total / self.weight) if self.weight else math.nan


Means = dict[str, Mean]


def merge(batches: Iterable[Mapping[str, Mean]]) -> Means:
  """Sums totals and weights by name, in float64."""
  merged: Means = {}
  for batch in batches:
    for name, (total, weight) in batch.items():
      old = merged.get(name, Mean(0.0, 0.0))
      merged[name] = Mean(old.total + float(total), old.weight + float(weight))
  return merged


def summarize(means: Mapping[str, Mean]) -> dict[str, float]:
  """Values, and `loss`: the sum of those of its parts, as L = L_MLM + L_NSP.

  With `mlm_loss` comes the perplexity.
  """
  values = {name: Mean(*mean).value() for name, mean in means.items()}
  if "mlm_loss" in values:
    values["perplexity"] = perplexity(values["mlm_loss"])
  return {"loss": sum(value for name, value in values.items()
                      if name.endswith("_loss")), **values}


def perplexity(loss: float) -> float:
  """e to the mean loss in nats; infinite where that overflows."""
  try:
    return math.exp(loss)
  except OverflowError:
    return math.inf
