"""Budgets with a unit: what the arms of a study get the same of."""

import dataclasses
import pathlib
import tempfile
from typing import Literal

import numpy as np

from bert_jax.config import UserError
from bert_jax.experiment import Experiment, Run, step_flops, workload
from bert_jax.runs import time_budget
from bert_jax.training.param_paths import leaves

Unit = Literal["steps", "tokens", "flops", "seconds", "parameters"]

# Widths of feed-forward layers are multiples of this.
_MULTIPLE = 8
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
  prices = [price(run, unit) for run in (base, arm)]
  return with_steps(experiment, max(1, round(steps * prices[0] / prices[1])))


def price(run: Run, unit: Literal["tokens", "flops", "seconds"]) -> float:
  """Of a step."""
  if unit == "flops":
    return step_flops(run.experiment)
  if unit == "tokens":
    return tokens_per_step(run)
  with tempfile.TemporaryDirectory() as folder:
    return time_budget.measure(run, pathlib.Path(folder) / "measured").step


def tokens_per_step(run: Run) -> float:
  """Real ones, special tokens included, on average over an epoch."""
  examples, row_RE = run.prepared.train.plan(0)
  tokens = np.append(examples.lengths_X, 0)[row_RE].sum(dtype=np.float64)
  return run.experiment.batch_size * float(tokens) / len(row_RE)


def with_steps(experiment: Experiment, steps: int) -> Experiment:
  """With another length, evaluated and saved as many times."""
  ratio = steps / experiment.steps
  return dataclasses.replace(experiment, steps=steps, **{
      name: max(1, round(getattr(experiment, name) * ratio))
      for name in ("evaluate_every", "save_every")})


def _with_parameters(experiment: Experiment, needed: int,
                     arm: Run) -> Experiment:
  model = experiment.model

  def widened(width: int) -> Experiment:
    return dataclasses.replace(experiment, model=dataclasses.replace(
        model, intermediate_size=width))

  def count(width: int) -> int:
    return _parameters(dataclasses.replace(arm, experiment=(
        dataclasses.replace(arm.experiment, model=dataclasses.replace(
            arm.experiment.model, intermediate_size=width)))))

  width = model.intermediate_size
  if abs(count(width) - needed) <= _CLOSE * needed:
    return experiment
  # The number of parameters is linear in the width.
  first, second = (count(_MULTIPLE * i) for i in (1, 2))
  width = _MULTIPLE * max(1, round(1 + (needed - first) / (second - first))
                          if second > first else 1)
  if abs(count(width) - needed) > _CLOSE * needed:
    raise UserError(
        f"--equal parameters: with model.intermediate_size={width} the network "
        f"has {count(width):,} parameters, the base {needed:,}; no width comes "
        "closer. Change its other sizes, or take another unit.")
  return widened(width)


def _parameters(run: Run) -> int:
  return sum(x.size for x in leaves(
      workload(run.experiment).state.params).values())
