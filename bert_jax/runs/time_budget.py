"""How many steps a budget of time is enough for."""

import dataclasses
import json
import pathlib
import shutil
import time

import jax
import numpy as np

from bert_jax import distributed
from bert_jax.checkpoints.manager import CheckpointManager
from bert_jax.checkpoints.manifest import Manifest
from bert_jax.experiment import Run
from bert_jax.files import write_text
from bert_jax.runs.clock import Clock
from bert_jax.runs.evaluation import Evaluator
from bert_jax.runs.initialize import batches, first_state, lay_out
from bert_jax.runs.loop import run_steps
from bert_jax.training.budget import Budget

# Of a budget of time, what the steps may take: machines are not even.
_SHARE_OF_TIME = 0.97
_MEASURED_SECONDS = 3.0


def within_budget(run: Run, workdir: pathlib.Path, clock: Clock) -> Run:
  """The run with as many steps as its budget of time is enough for.

  They are measured once and written down, so that the schedule is the same
  after an interruption.
  """
  path, budget = workdir / "budget.json", Budget.parse(run.experiment.budget)
  plan = distributed.broadcast(
      json.loads(path.read_text()) if path.exists() else {"budget": ""})
  if plan["budget"] != run.experiment.budget:
    costs = measure(run, workdir / "measured")
    # Every process measures; all use the figures of process 0.
    step, before, end = distributed.broadcast([
        costs.step + costs.evaluation / run.experiment.evaluate_every,
        clock.used() + costs.start + costs.end, costs.end])
    plan = {"budget": run.experiment.budget, "end": end,
            "steps": budget.enough(step / _SHARE_OF_TIME, before)}
    if distributed.first():
      write_text(path, json.dumps(plan))
  clock.limit(budget.amount - plan["end"])
  return run.with_steps(plan["steps"])


@dataclasses.dataclass(frozen=True)
class Costs:
  """In seconds."""

  start: float  # until the step is compiled
  step: float
  evaluation: float
  end: float  # the last evaluation and save


def measure(run: Run, folder: pathlib.Path) -> Costs:
  """Some steps, an evaluation and a save, all thrown away."""
  experiment, runner = run.experiment, lay_out(run)
  evaluator = Evaluator(runner.recipe, experiment.batch_size, runner.mesh)
  state, times = first_state(run, runner.shardings, None), []
  last = time.monotonic()
  for _, state, _, sums, _ in run_steps(
      runner, state, 0, batches(run, runner, 0, experiment.steps)):
    jax.block_until_ready(sums)
    times.append(time.monotonic() - last)
    enough = len(times) > 2 and sum(times[1:]) > _MEASURED_SECONDS
    if distributed.any_host([enough])()[0]:
      break
    last = time.monotonic()
  first, again = (_seconds(lambda: evaluator.evaluate_run(state.params, run))
                  for _ in range(2))
  manifest = Manifest.of_run(run)
  with CheckpointManager(folder) as checkpoints:
    saving = _seconds(lambda: (checkpoints.save(state, manifest),
                               checkpoints.wait()))
  if distributed.first():
    shutil.rmtree(folder)
  step = float(np.median(times[1:] or times))
  return Costs(times[0] + first, step, again, again + saving)


def _seconds(function) -> float:
  start = time.monotonic()
  function()
  return time.monotonic() - start
