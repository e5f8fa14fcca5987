"""When evaluations get no better."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from bert_jax.metrics.selection import rank


@dataclasses.dataclass
class EarlyStopping:
  """Sees the scores of every evaluation, in order.

  Attributes:
    metric: what is to get better; "": nothing is watched.
    limit: so many evaluations in a row without a better one are enough; None:
      they never are.
    best: the best `rank` until now, seen after `step` steps.
    waited: evaluations since.
  """

  metric: str
  limit: int | None
  best: float | None = None
  step: int = 0
  waited: int = 0

  def see(self, step: int, scores: Mapping[str, float]) -> bool:
    """Whether these are the best until now."""
    if not self.metric:
      return False
    found = rank(self.metric, scores)
    better = self.best is None or found > self.best
    if better:
      self.best, self.step, self.waited = found, step, 0
    else:
      self.waited += 1
    return better

  def over(self) -> bool:
    return self.limit is not None and self.waited >= self.limit

  def state(self) -> dict[str, Any]:
    """What a later one goes on from, as JSON."""
    return {"best": self.best, "step": self.step, "waited": self.waited}

  def go_on(self, state: Mapping[str, Any]) -> None:
    for name, value in state.items():
      setattr(self, name, value)
