"""Means as totals and weights."""

import math
from collections.abc import Iterable, Mapping

Pair = tuple[float, float]


def merge(batches: Iterable[Mapping[str, Pair]]) -> dict[str, Pair]:
  """Sums totals and weights by name, in float64."""
  merged: dict[str, Pair] = {}
  for batch in batches:
    for name, (total, weight) in batch.items():
      old_total, old_weight = merged.get(name, (0.0, 0.0))
      merged[name] = old_total + float(total), old_weight + float(weight)
  return merged


def summarize(pairs: Mapping[str, Pair]) -> dict[str, float]:
  """Means, and `loss`: the sum of the means of its parts, as L = L_MLM + L_NSP.

  With `mlm_loss` comes the perplexity.
  """
  means = {name: total / weight if weight else math.nan
           for name, (total, weight) in pairs.items()}
  if "mlm_loss" in means:
    means["perplexity"] = perplexity(means["mlm_loss"])
  return {"loss": sum(value for name, value in means.items()
                      if name.endswith("_loss")), **means}


def perplexity(loss: float) -> float:
  """e to the mean loss in nats; infinite where that overflows."""
  try:
    return math.exp(loss)
  except OverflowError:
    return math.inf
