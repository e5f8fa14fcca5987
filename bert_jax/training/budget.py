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
      UserError: it is no number with a unit.
    """
    found = re.fullmatch(rf"([\d.e+]+) *({'|'.join(_UNITS)})", text)
    try:
      amount, unit = float(found[1]), found[2]
    except (TypeError, ValueError):
      raise UserError(f"budget={text}: a number and one of "
                      f"{', '.join(_UNITS)}, as in budget=20min, "
                      "budget=3e15flops or budget=2e6tokens.") from None
    if unit in _SECONDS:
      return cls(amount * _SECONDS[unit], "seconds")
    return cls(amount, unit)

  def steps(self, rows: Rows, batch_size: int, flops_per_token: float) -> int:
    """The steps that a budget of FLOPs or tokens is enough for.

    Tokens are those of the text and of the marks between; their number in a
    row is estimated from some rows of the first epoch. FLOPs are those of the
    products of matrices, for padding too, as the machine does them.

    Raises:
      UserError: not for a single step.
    """
    if self.unit == "flops":
      length = len(rows.empty()["example_ids"])
      step = flops_per_token * batch_size * length
    else:
      sample = np.linspace(0, len(rows) - 1, min(len(rows), _SAMPLED_ROWS))
      step = batch_size * float(np.mean([
          np.count_nonzero(rows.row(0, int(i))["example_ids"])
          for i in sample]))
    return self.enough(step)

  def enough(self, step: float, before: float = 0.0) -> int:
    """How many steps of that price it is enough for, after `before`.

    Raises:
      UserError: none.
    """
    steps = int((self.amount - before) / step)
    if steps < 1:
      raise UserError(
          f"The budget of {self.amount:.3g} {self.unit} is not enough: a step "
          f"takes {step:.3g}, and what stands around the steps {before:.3g}.")
    return steps
