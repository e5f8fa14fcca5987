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


def without_weight(means: Mapping[str, Mean]) -> list[str]:
  """The parts of the loss that nothing has weight in, so that they are nan."""
  return [name for name, (_, weight) in means.items()
          if name.endswith("_loss") and not weight]


def summarize(means: Mapping[str, Mean]) -> dict[str, float]:
  """Values, and `loss`: the sum of those of its parts, as L = L_MLM + L_NSP.

  With `mlm_loss` comes the perplexity; of `nsp_majority`, the share of the
  pairs that are random, what answering always the same gets right.
  """
  values = {name: Mean(*mean).value() for name, mean in means.items()}
  if "nsp_majority" in values:
    share = values["nsp_majority"]
    values["nsp_majority"] = max(share, 1 - share)
  if "mlm_loss" in values:
    values["perplexity"] = perplexity(values["mlm_loss"])
  parts = [value for name, value in values.items() if name.endswith("_loss")]
  return ({"loss": sum(parts)} if parts else {}) | values


def perplexity(loss: float) -> float:
  """e to the mean loss in nats; infinite where that overflows."""
  try:
    return math.exp(loss)
  except OverflowError:
    return math.inf
