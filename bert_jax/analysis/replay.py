"""Replays: the batch of any step of a run as text, and the loss of each row.

A run is deterministic, so that a step can be looked at long after it was
taken: its batch, masks and dropout are functions of its number, and its
parameters those of a checkpoint before it and a few steps run again.
"""

import dataclasses
import functools
import pathlib
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np

from bert_jax import config
from bert_jax.checkpoints import environment, reading as checkpoints
from bert_jax.checkpoints.manifest import Manifest
from bert_jax.config import UserError
from bert_jax.data.batches import loader
from bert_jax.experiment import Run, compose
from bert_jax.metrics import weighted
from bert_jax.parallel import mesh
from bert_jax.parallel.layouts import Runner
from bert_jax.reporting import jsonl, terminal
from bert_jax.runs import anomalies
from bert_jax.runs.initialize import batches, first_state, lay_out
from bert_jax.runs.loop import run_steps
from bert_jax.training import numerics
from bert_jax.training.step import TrainState, row_losses


@dataclasses.dataclass(frozen=True, eq=False)
class Replay:
  """A step of a run, looked at before its update.

  Attributes:
    run: the run.
    step: its number: that of the state which it makes.
    origin: where its parameters come from.
    batch: as it is read.
    corrupted: as the network sees it.
    pairs: the (totals_B, weights_B) of every part of the loss.
    each: by part, the losses one by one, as `row_losses` gives them.
    logged: the loss that the run has written of this step alone, if any.
    skipped: the run rolled back before this step and skipped its batch.
  """

  run: Run
  step: int
  origin: str
  batch: Mapping[str, np.ndarray]
  corrupted: Mapping[str, np.ndarray]
  pairs: Mapping[str, tuple[np.ndarray, np.ndarray]]
  each: Mapping[str, Mapping[str, np.ndarray]]
  logged: float | None
  skipped: bool

  def means(self) -> dict[str, float]:
    """`loss` and its parts, over the batch."""
    return weighted.summarize({
        f"{name}_loss": (total_B.sum(), weight_B.sum())
        for name, (total_B, weight_B) in self.pairs.items()})

  def row_loss_B(self) -> np.ndarray:
    """The loss of each row: the sum of its parts' means, 0 without weight."""
    return sum(total_B / np.where(weight_B > 0, weight_B, 1)
               for total_B, weight_B in self.pairs.values())


def replay(workdir: str | pathlib.Path, step: int, nearest: bool = False,
           overrides: Sequence[str] = ()) -> Replay:
  """
  Args:
    workdir: of a run that has saved a checkpoint.
    step: as the logs number it, from 1.
    nearest: take the parameters of the latest checkpoint before the step,
      rather than run the steps between them again.
    overrides: of the layout, which may differ from the run's.

  Raises:
    UserError: there is no such step, or the data has changed.
  """
  workdir = pathlib.Path(workdir)
  manifests = checkpoints.read_manifests(workdir)
  if not manifests:
    raise UserError(f"{workdir} holds no finished checkpoint that is intact, "
                    "which would say what the run is.")
  manifest = manifests[max(manifests)]
  environment.warn(manifest.progress.environment)
  experiment = _laid_out(manifest.experiment, overrides)
  if not 1 <= step <= experiment.steps:
    raise UserError(f"--step {step}: the run in {workdir} has the steps 1 to "
                    f"{experiment.steps}.")
  run = compose(experiment,
                manifest.tokenizer if experiment.init_from else None)
  if run.prepared.fingerprint != manifest.data_fingerprint:
    raise UserError(
        f"The data of the run in {workdir} is not what it was (the "
        "fingerprints differ), so that its batches cannot be reproduced; bring "
        "the text or the tables back as they were.")
  runner, skipped_steps = lay_out(run), anomalies.skipped_steps(workdir)
  state, origin = _before(workdir, run, runner, step, manifest,
                          sorted(s for s in manifests if s < step),
                          skipped_steps, nearest)
  return look(run, runner, state, step, origin, _logged(workdir, run, step),
              step in skipped_steps)


def look(run: Run, runner: Runner, state: TrainState, step: int,
         origin: str = "", logged: float | None = None,
         skipped: bool = False) -> Replay:
  """What a step makes of its batch, with the parameters of `state`."""
  batch = loader.batch(run.prepared.train, run.experiment.batch_size, step - 1)
  # With its own number even where the parameters are older.
  state = state.replace(step=jax.device_put(
      np.int32(step - 1), runner.shardings.step))
  return Replay(run, step, origin, batch, *jax.device_get(
      numerics.jit(functools.partial(row_losses, run.recipe))(
          state, mesh.share(runner.mesh, batch))), logged, skipped)


def _laid_out(experiment: Any, overrides: Sequence[str]) -> Any:
  for override in overrides:
    if override.partition("=")[0].split(".")[0] != "layout":
      raise UserError(f"{override}: a replay changes nothing of the run but "
                      "its layout, as in layout.data=1.")
  return config.override(experiment, overrides)


def _before(workdir: pathlib.Path, run: Run, runner: Runner, step: int,
            manifest: Manifest, saved: Sequence[int],
            skipped_steps: frozenset[int],
            nearest: bool) -> tuple[TrainState, str]:
  """The state before a step, over a mesh, and words for where it is from."""
  start, state = 0, None
  for start in reversed(saved):
    state = checkpoints.read_state(workdir, start, run.shape(),
                                   runner.shardings, manifest)
    if state is not None:
      break
  origin = f"the checkpoint of step {start}"
  if state is None:
    start, origin = 0, "the first ones"
    source = run.experiment.init_from
    source = checkpoints.read_checkpoint(source) if source else None
    state = first_state(run, runner.shardings, source)
  again = step - 1 - start
  if not again:
    return state, origin
  if nearest:
    return state, f"{origin}, where the run had those of step {step - 1}"
  print(f"Running the steps {start + 1} to {step - 1} again.", file=sys.stderr)
  progress = terminal.Progress(step - 1, start)
  for done in run_steps(runner, state, start,
                        batches(run, runner, start, step - 1), skipped_steps):
    state = done.state
    progress.advance(done.step)
  state = jax.block_until_ready(state)
  progress.close()
  return state, f"{origin}, run on to step {step - 1}"


def _logged(workdir: pathlib.Path, run: Run, step: int) -> float | None:
  path = workdir / "metrics.jsonl"
  if run.experiment.log_every != 1 or not path.exists():
    return None
  losses = [line["train/loss"] for line in jsonl.read_jsonl(path)
            if line["step"] == step and "train/loss" in line]
  return losses[-1] if losses else None
