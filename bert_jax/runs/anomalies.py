"""Steps that are not finite or without weight, and spikes of the loss."""

import dataclasses
import json
import math
import pathlib
from collections.abc import Mapping
from typing import Any

from bert_jax.config import UserError
from bert_jax.files import write_text
from bert_jax.metrics import weighted

# The weight of a step in the running mean of the loss. Nothing is a spike
# before 1 / _WEIGHT steps.
_WEIGHT = 0.02
_SKIPPED = "skipped.json"


NO_WEIGHT = (
    "Nothing counts in it: every token is special or unknown, or every label "
    "missing or of weight 0, or every example alone in its row.")


class NonFiniteError(UserError):
  """Too many consecutive steps were not finite, or had no weight; `first` was
  the first."""

  def __init__(self, message: str, first: int):
    super().__init__(message)
    self.first = first


class Spike(Exception):
  """The loss of a step is far above the running mean."""

  def __init__(self, step: int, loss: float, mean: float):
    super().__init__(f"loss {loss:.4g} at step {step}, after a running mean "
                     f"of {mean:.4g}")
    self.step = step


@dataclasses.dataclass
class AnomalyDetector:
  """Follows the metrics of every step, in order.

  Attributes:
    max_nonfinite_steps: stop after this many consecutive steps that are not
      finite, or have no weight in a part of the loss. A run that begins with
      a step without weight stops at once.
    deviations: a loss this many standard deviations above the running mean is
      a spike; 0: none is.
    skipped: non-finite steps.
    in_row: consecutive steps until now that were not finite or had no weight.
    count, mean, variance: steps behind the running mean of the loss, it, and
      the variance around it.
  """

  max_nonfinite_steps: int
  deviations: float
  skipped: int = 0
  in_row: int = 0
  count: int = 0
  mean: float = 0.0
  variance: float = 0.0

  def update(self, step: int, sums: Mapping[str, Any]) -> None:
    """
    Raises:
      NonFiniteError: this step is the last of `max_nonfinite_steps` in a row;
        counting starts again.
      Spike: the loss of this step is one.
    """
    finite = not float(sums["skipped"][0])
    empty = weighted.without_weight(sums) if finite else []
    if empty or not finite:
      self.skipped += not finite
      self.in_row += 1
      too_many = self.in_row >= self.max_nonfinite_steps
      if too_many or empty and not self.count:
        first, self.in_row = step - self.in_row + 1, 0
        what = (f"{', '.join(empty)} had no weight" if empty
                else "Loss or gradients were not finite")
        raise NonFiniteError(
            f"{what} in the steps {first} to {step}"
            + f" (max_nonfinite_steps={self.max_nonfinite_steps} in a row)"
            * too_many + "." + f" {NO_WEIGHT}" * bool(empty), first)
      return
    self.in_row = 0
    loss = weighted.summarize(sums)["loss"]
    above = loss - self.mean
    if self.deviations and self.count * _WEIGHT >= 1 and (
        above > self.deviations * math.sqrt(self.variance)):
      raise Spike(step, loss, self.mean)
    self.count += 1
    # The first steps all weigh the same.
    weight = max(_WEIGHT, 1 / self.count)
    self.mean += weight * above
    self.variance = (1 - weight) * (self.variance + weight * above**2)

  def state(self) -> dict[str, float]:
    """What `load_state` takes, as JSON."""
    return {f.name: getattr(self, f.name) for f in dataclasses.fields(self)
            if f.name not in ("max_nonfinite_steps", "deviations")}

  def load_state(self, state: Mapping[str, float]) -> None:
    for name, value in state.items():
      setattr(self, name, value)


def skipped_steps(workdir: pathlib.Path) -> frozenset[int]:
  """Steps whose batches a run skips, as it rolled back before them."""
  path = workdir / _SKIPPED
  return frozenset(json.loads(path.read_text()) if path.exists() else ())


def skip_step(workdir: pathlib.Path, step: int) -> None:
  """Adds a step to them, on disk, before anything else happens."""
  write_text(workdir / _SKIPPED,
             json.dumps(sorted(skipped_steps(workdir) | {step})))
