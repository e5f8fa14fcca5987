"""Budgets with a unit: what the arms of a study get the same of."""

import dataclasses
import functools
import math
import pathlib
import tempfile
from typing import Literal

import numpy as np

from bert_jax.config import UserError
from bert_jax.data.batches.rows import Rows
from bert_jax.experiment import Experiment, Run, step_flops, workload
from bert_jax.runs import time_budget
from bert_jax.training.param_paths import leaves

Unit = Literal["steps", "tokens", "flops", "seconds", "parameters"]

# Widths of feed-forward layers are multiples of this.
_MULTIPLE = 8
# Epochs whose tokens are counted; of a longer run, all are like these.
_EPOCHS = 8
_CLOSE = 0.01  # how far numbers of parameters may be apart


def equalize(experiment: Experiment, arm: Run, base: Run,
             unit: Unit) -> Experiment:
  """The experiment of an arm with the budget of the base.

  Args:
    experiment: the arm's, which `arm` is put together from.
    base: with its steps.
    unit: of what both get the same: steps, real tokens, FLOPs, or seconds as
      measured now; all by the number of steps. Or parameters, by the width of
      the feed-forward layers, at the same steps.

  Raises:
    UserError: it cannot be reached.
  """
  steps = base.experiment.steps
  if unit == "steps":
    return experiment
  if unit == "parameters":
    return _with_parameters(with_steps(experiment, steps), _parameters(base),
                            arm)
  if unit == "tokens":
    return with_steps(experiment, _steps_of(arm, tokens(base)))
  prices = [price(run, unit) for run in (base, arm)]
  return with_steps(experiment, max(1, round(steps * prices[0] / prices[1])))


def price(run: Run, unit: Literal["flops", "seconds"]) -> float:
  """Of a step; its seconds are those of training alone, as all arms are
  evaluated as many times."""
  if unit == "flops":
    return step_flops(run.experiment)
  with tempfile.TemporaryDirectory() as folder:
    return time_budget.measure(run, pathlib.Path(folder) / "measured").step


def tokens(run: Run) -> float:
  """Real ones of all its steps, special tokens included."""
  rows, total = run.prepared.train, 0.0
  epochs, more = divmod(run.experiment.steps * run.experiment.batch_size,
                        len(rows))
  for epoch in range(min(epochs, _EPOCHS)):
    total += _tokens_R(rows, epoch).sum()
  if epochs >= _EPOCHS:
    return total / _EPOCHS * (epochs + more / len(rows))
  return total + _tokens_R(rows, epochs)[:more].sum()


def _steps_of(run: Run, needed: float) -> int:
  """How many come closest to this number of tokens."""
  rows, total = run.prepared.train, 0.0
  for epoch in range(_EPOCHS):
    until_R = total + np.cumsum(_tokens_R(rows, epoch))
    if until_R[-1] >= needed:
      count = epoch * len(rows) + 1 + np.searchsorted(until_R, needed)
      break
    total = until_R[-1]
  else:
    count = needed / total * _EPOCHS * len(rows)
  return max(1, round(count / run.experiment.batch_size))


def _tokens_R(rows: Rows, epoch: int) -> np.ndarray:
  examples, row_RE = rows.plan(epoch)
  lengths_X = np.append(examples.lengths_X, 0)  # -1: no example
  # An epoch with more rows than the first is cut, one with fewer begins again.
  return np.resize(lengths_X[row_RE].sum(1, dtype=np.float64), len(rows))


def with_steps(experiment: Experiment, steps: int) -> Experiment:
  """With another length, evaluated and saved as many times."""
  ratio = steps / experiment.steps
  return dataclasses.replace(experiment, steps=steps, **{
      name: math.ceil(getattr(experiment, name) * ratio)
      for name in ("evaluate_every", "save_every")})


def _with_parameters(experiment: Experiment, needed: int,
                     arm: Run) -> Experiment:
  model = experiment.model

  def widened(width: int) -> Experiment:
    return dataclasses.replace(experiment, model=dataclasses.replace(
        model, intermediate_size=width))

  @functools.cache
  def count(width: int) -> int:
    return _parameters(dataclasses.replace(arm, experiment=(
        dataclasses.replace(arm.experiment, model=dataclasses.replace(
            arm.experiment.model, intermediate_size=width)))))

  width = model.intermediate_size
  if abs(count(width) - needed) <= _CLOSE * needed:
    return experiment
  # The number of parameters is linear in the width.
  each = (count(width + _MULTIPLE) - count(width)) / _MULTIPLE
  if each:
    width += (needed - count(width)) / each
  width = _MULTIPLE * max(1, round(width / _MULTIPLE))
  if abs(count(width) - needed) > _CLOSE * needed:
    raise UserError(
        f"--equal parameters: with model.intermediate_size={width} the network "
        f"has {count(width):,} parameters, the base {needed:,}; no width comes "
        "closer. Change its other sizes, or take another unit.")
  return widened(width)


def _parameters(run: Run) -> int:
  return sum(x.size for x in leaves(
      workload(run.experiment).state.params).values())
