"""Checkpoints: parameters, optimizer, and all that is needed to read them.

Each step's directory stands alone: beside the arrays lie the experiment (its
page's source and its differences from the defaults), the tokenizer, the
fingerprint of the data. Orbax writes in the background and never overwrites.
"""

import contextlib
import dataclasses
import errno
import logging
import os
import pathlib
import shutil
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import orbax.checkpoint as ocp
from orbax.checkpoint import checkpoint_managers as policies

from bert_jax import config, distributed
from bert_jax.checkpoints import files
from bert_jax.checkpoints.files import Damaged
from bert_jax.checkpoints.manifest import Manifest
from bert_jax.config import UserError
from bert_jax.experiment import Experiment
from bert_jax.metrics import selection
from bert_jax.training.step import TrainState

# Orbax tells of every barrier and every thread, and prints as tracebacks what
# it also raises; so do the tasks that it leaves behind.
for _name in ("absl", "asyncio"):
  logging.getLogger(_name).setLevel(logging.CRITICAL)


@dataclasses.dataclass(frozen=True)
class RestoredState:
  """A checkpoint that a run goes on from."""

  state: TrainState
  progress: dict[str, Any]  # what `save` was given


class CheckpointManager:
  """The checkpoints of one work directory.

  Keeps the latest `keep_checkpoints` and, where `best` names a metric, the
  first one in which it was largest (smallest for a loss). Every array and the
  facts carry a checksum; what does not agree with it is put aside and the one
  before used.
  """

  def __init__(self, workdir: pathlib.Path, keep_checkpoints: int = 3,
               best: str = ""):
    kept, order = [policies.LatestN(keep_checkpoints)], None
    if best:
      order = lambda m: _order(m["rank"], m["step"])
      kept.append(policies.BestN(get_metric_fn=order, n=1,
                                 keep_checkpoints_without_metrics=False))
    self._best = best
    self._folder = _folder(workdir)
    files.hush_tensorstore()
    with _explained(self._folder):
      self._manager = ocp.CheckpointManager(
          self._folder, options=ocp.CheckpointManagerOptions(
              preservation_policy=policies.AnyPreservationPolicy(kept),
              # Without it ranks are not written, and after a restart the best
              # checkpoint would be taken for one of the others.
              best_fn=order,
              cleanup_tmp_directories=True))

  def save(self, state: TrainState, facts: Manifest, metrics: dict[str, float],
           progress: dict[str, Any], again: bool = False) -> None:
    """Starts to save; returns when the arrays are copied.

    Args:
      state: over a mesh.
      facts: the same throughout a run.
      metrics: of an evaluation of this state, or none.
      progress: what else the run needs to go on, as JSON.
      again: in the place of what was saved of this step, if anything.

    Raises:
      UserError: this or the save before it failed.
    """
    step = int(state.step)
    if step in self._manager.all_steps():
      if not again:
        return
      self.wait()
      self._manager.delete(step)
    rank = self._rank(metrics)
    about = facts.to_json() | {
        "rank": rank, "progress": progress,
        "scores": {name: float(value) for name, value in metrics.items()}}
    with _explained(self._folder, self._manager.all_steps()):
      self._manager.save(step, args=files.contents(state, about),
                         metrics={"rank": rank, "step": step}
                         if self._best else None)

  def _rank(self, metrics: dict[str, float]) -> float:
    """How good a checkpoint is; one that was not evaluated comes last."""
    if not self._best:
      return 0.0
    return selection.rank(self._best, metrics) if metrics else selection.WORST

  def latest(self) -> int | None:
    return self._manager.latest_step()

  def restore(self, shape: TrainState, shardings: TrainState, facts: Manifest,
              say: Callable[[str], None]) -> RestoredState | None:
    """The latest whole state, on the devices that `shardings` name.

    Args:
      shape: of the state.
      shardings: of the state; any mesh will do.
      facts: of the run that goes on.
      say: is told of checkpoints that had to be put aside.

    Returns:
      None where nothing was saved yet.

    Raises:
      UserError: all are damaged, or they are another run's.
    """
    self.wait()
    damaged: dict[int, str] = {}
    for step in sorted(self._manager.all_steps(), reverse=True):
      found = self._read(step, shape, shardings, facts)
      if isinstance(found, RestoredState):
        if damaged:
          places = ", ".join(map(self._put_aside, damaged))
          say(f"Damaged: {places}; resuming from step {step}.")
        return found
      damaged[step] = found
    if damaged:
      causes = "\n  ".join(f"step {s}: {why}" for s, why in damaged.items())
      raise UserError(
          f"All checkpoints in {self._folder} are damaged, and left as they "
          f"are:\n  {causes}\nGive another workdir to start again, or bring "
          "them back from a copy.")
    return None

  def _read(self, step: int, shape: TrainState, shardings: TrainState,
            facts: Manifest) -> RestoredState | str:
    """What is there, or on every process why it is of no use to one."""
    found, why = None, ""
    try:
      found = files.read_state(self._folder / str(step), shape, shardings,
                               facts)
    except Damaged as error:
      why = str(error)
    # All have it before a sum over all devices is taken.
    if distributed.any_host([found is None])()[0]:
      return why or "another process could not read it"
    state, about = found
    try:
      files.check(state, about)
    except Damaged as error:
      return str(error)
    return RestoredState(state, about["progress"])

  def _put_aside(self, step: int) -> str:
    """Moves a damaged checkpoint away, so that its step can be saved again."""
    place = self._folder.parent / "damaged" / str(step)
    if distributed.first():
      place.parent.mkdir(exist_ok=True)
      shutil.rmtree(place, ignore_errors=True)
      (self._folder / str(step)).rename(place)
    distributed.any_host([True])()  # Nobody looks before it is gone.
    self._manager.reload()
    return str(place)

  def wait(self) -> None:
    """Until what was saved is on disk."""
    with _explained(self._folder, self._manager.all_steps()):
      self._manager.wait_until_finished()

  def close(self) -> None:
    """Waits for what is being saved."""
    try:
      self.wait()
    finally:
      self._manager.close()

  def __enter__(self) -> "CheckpointManager":
    return self

  def __exit__(self, *_: Any) -> None:
    self.close()


@contextlib.contextmanager
def _explained(folder: pathlib.Path,
               kept: Sequence[int] = ()) -> Iterator[None]:
  """Turns what a disk refuses into a UserError.

  Orbax and TensorStore pass on the words of the operating system, but in
  exceptions of many types.
  """
  try:
    yield
  except Exception as error:
    causes = [os.strerror(code) for code in (
        errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EROFS, errno.EPERM,
        errno.EIO)]
    cause = next((c for c in causes if c in str(error)), None)
    if cause is None:
      raise
    there = next(f for f in (folder, *folder.parents) if f.exists())
    free = shutil.disk_usage(there).free
    whole = (f"The checkpoints of the steps {', '.join(map(str, kept))} are "
             "whole; the same command goes on from the last. " if kept else "")
    raise UserError(f"{folder} could not be written: {cause} ({free / 1e6:,.0f}"
                    f" MB are free). {whole}") from error


@dataclasses.dataclass(frozen=True)
class Checkpoint:
  """A checkpoint as read.

  Attributes:
    params: on the host; those of the plain network, an adapter being merged.
    scores: of its evaluation, if there was one.
  """

  params: Any
  facts: Manifest
  step: int
  scores: dict[str, float] = dataclasses.field(default_factory=dict)


def read(directory: str | pathlib.Path) -> Checkpoint:
  """The checkpoint that a run is used by: its best, or else its latest.

  A damaged one is passed over, with a warning.

  Raises:
    UserError: there is none.
  """
  found = history(directory)
  best = found and Manifest.from_json(found[max(found)]).experiment.best
  for step in sorted(found, reverse=True, key=lambda s: _order(
      found[s]["rank"] if best else selection.WORST, s)):
    try:
      params = files.read_params(_folder(directory) / str(step), found[step])
    except Damaged as error:
      _warn_of_damage(directory, step, error)
    else:
      facts = Manifest.from_json(found[step])
      return Checkpoint(jax.device_get(facts.experiment.adapter.merge(params)),
                   facts, step, found[step]["scores"])
  raise UserError(f"{directory} holds no finished checkpoint that is whole.")


def _order(rank: float, step: int) -> tuple[float, int]:
  """What orders checkpoints: of equally good ones the first is the best, as
  EarlyStopping has it, and of those that have no rank the last."""
  return rank, step if rank == selection.WORST else -step


def history(directory: str | pathlib.Path) -> dict[int, dict[str, Any]]:
  """What lies beside the arrays of each finished checkpoint, by step.

  Nothing is changed there, so that a run may go on at the same time.

  Raises:
    UserError: there is no folder of checkpoints.
  """
  path = _folder(directory)
  if not path.is_dir():
    raise UserError(f"{directory} holds no checkpoints; give the work "
                    "directory of a run.")
  with ocp.CheckpointManager(path, options=ocp.CheckpointManagerOptions(
      create=False, read_only=True,
      multiprocessing_options=files.alone())) as manager:
    steps = sorted(manager.all_steps())
  found = {}
  for step in steps:
    try:
      found[step] = files.read_about(path / str(step))
    except Damaged as error:
      _warn_of_damage(directory, step, error)
  return found


def state_at(directory: str | pathlib.Path, step: int, shape: TrainState,
             shardings: TrainState, facts: Manifest) -> TrainState | None:
  """The state that was saved at a step, on the devices of `shardings`; None,
  and a warning, where it is damaged. Nothing is changed in the directory."""
  try:
    state, about = files.read_state(_folder(directory) / str(step), shape,
                                    shardings, facts)
    files.check(state, about)
  except Damaged as error:
    _warn_of_damage(directory, step, error)
    return None
  return state


def _folder(directory: str | pathlib.Path) -> pathlib.Path:
  return pathlib.Path(directory).absolute() / "checkpoints"


def _warn_of_damage(directory: str | pathlib.Path, step: int,
                    error: Damaged) -> None:
  warnings.warn(f"{directory}: the checkpoint of step {step} is damaged and "
                f"was passed over ({error})", stacklevel=3)


def resolve(experiment: Experiment,
            overrides: Sequence[str] = ()) -> Experiment:
  """The overridden experiment, on the network of its `init_from`, if any.

  Overrides of the network's options hold there too.
  """
  experiment = config.override(experiment, overrides)
  if not experiment.init_from:
    return experiment
  model = read(experiment.init_from).facts.experiment.model
  return config.override(dataclasses.replace(experiment, model=model),
                         [o for o in overrides if o.startswith("model.")])
