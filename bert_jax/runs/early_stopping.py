"""When evaluations get no better."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from bert_jax.metrics.selection import rank


@dataclasses.dataclass
class EarlyStopping:
  """Follows the scores of every evaluation, in order.

  Attributes:
    metric: what has to improve; "": nothing is followed.
    patience: stop after this many consecutive evaluations without improvement;
      None: never.
    best: the best `rank` until now, of `step`.
    waited: evaluations since.
  """

  metric: str
  patience: int | None
  best: float | None = None
  step: int = 0
  waited: int = 0

  def update(self, step: int, scores: Mapping[str, float]) -> bool:
    """Whether these are the best until now; never once it should stop."""
    if not self.metric or self.should_stop():
      return False
    value = rank(self.metric, scores)
    better = self.best is None or value > self.best
    if better:
      self.best, self.step, self.waited = value, step, 0
    else:
      self.waited += 1
    return better

  def should_stop(self) -> bool:
    return self.patience is not None and self.waited >= self.patience

  def state(self) -> dict[str, Any]:
    """What `load_state` takes, as JSON."""
    return {"best": self.best, "step": self.step, "waited": self.waited}

  def load_state(self, state: Mapping[str, Any]) -> None:
    for name, value in state.items():
      setattr(self, name, value)
