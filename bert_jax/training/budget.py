"""Budgets: how much a run may take, as `20min`, `3e15flops` or `2e6tokens`."""

import dataclasses
import re

import numpy as np

from bert_jax.config import UserError
from bert_jax.data.batches.rows import Rows

_SECONDS = {"s": 1, "min": 60, "h": 3600}
_UNITS = (*_SECONDS, "flops", "tokens")
_SAMPLED_ROWS = 256


@dataclasses.dataclass(frozen=True)
class Budget:
  amount: float
  unit: str  # "seconds", "flops" or "tokens"

  @classmethod
  def parse(cls, text: str) -> "Budget":
    """
    Raises:
      UserError: it is not a number with a unit.
    """
    match = re.fullmatch(rf"([\d.e+]+) *({'|'.join(_UNITS)})", text)
    try:
      amount, unit = float(match[1]), match[2]
    except (TypeError, ValueError):
      raise UserError(f"budget={text}: a number and one of "
                      f"{', '.join(_UNITS)}, as in budget=20min, "
                      "budget=3e15flops or budget=2e6tokens.") from None
    if unit in _SECONDS:
      return cls(amount * _SECONDS[unit], "seconds")
    return cls(amount, unit)

  def steps(self, rows: Rows, batch_size: int, flops: float) -> int:
    """The steps that fit in a budget of FLOPs or tokens.

    Tokens are those of the text and of the marks between; their number in a
    row is estimated from some rows of the first epoch.

    Args:
      flops: of a step.

    Raises:
      UserError: not a single step does.
    """
    if self.unit == "flops":
      step = flops
    else:
      sample = np.linspace(0, len(rows) - 1, min(len(rows), _SAMPLED_ROWS))
      step = batch_size * float(np.mean([
          np.count_nonzero(rows.row(0, int(i))["example_ids"])
          for i in sample]))
    return self.enough(step)

  def enough(self, step: float, before: float = 0.0) -> int:
    """The number of steps of that price that fit, after `before`.

    Raises:
      UserError: none.
    """
    steps = int((self.amount - before) / step)
    if steps < 1:
      raise UserError(
          f"The budget of {self.amount:.3g} {self.unit} is not enough: a step "
          f"takes {step:.3g}, and all before and after the steps {before:.3g}.")
    return steps
