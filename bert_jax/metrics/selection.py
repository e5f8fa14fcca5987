"""Which of several evaluations is the best."""

import math
from collections.abc import Mapping

from bert_jax.config import UserError, nearest

# The rank of what was not evaluated, or to no number.
WORST = -1e30
_LESS_IS_BETTER = "loss", "perplexity", "bits_per_byte"


def rank(metric: str, scores: Mapping[str, float]) -> float:
  """How good scores are: more of the metric is better, of a loss or of
  perplexity less.

  Raises:
    UserError: it is not among the scores.
  """
  if metric not in scores:
    raise UserError(f"best={metric}: no such metric" + nearest(metric, scores))
  value = scores[metric] * (-1 if metric.endswith(_LESS_IS_BETTER) else 1)
  return value if math.isfinite(value) else WORST
