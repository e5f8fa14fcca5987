"""Checkpoints: parameters, optimizer, and all that is needed to read them.

Each step's directory stands alone: beside the arrays lie the experiment (its
page's source and its differences from the defaults), the tokenizer, the
fingerprint of the data. Orbax writes in the background and never overwrites.
"""

import contextlib
import dataclasses
import pathlib
import re
import shutil
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import jax
import orbax.checkpoint as ocp
from orbax.checkpoint import checkpoint_managers as policies

from bert_jax import distributed
from bert_jax.checkpoints import environment, files
from bert_jax.checkpoints.damage import Damaged
from bert_jax.checkpoints.manifest import (
    Manifest, OtherOptions, Progress, order)
from bert_jax.config import UserError
from bert_jax.metrics import selection
from bert_jax.training.step import TrainState


class RestoredState(NamedTuple):
  """A checkpoint that a run resumes from."""

  state: TrainState
  manifest: Manifest


class CheckpointManager:
  """The checkpoints of one work directory; a context manager.

  Keeps the latest `keep_checkpoints` and, where `best` names a metric, the
  first one in which it was largest (smallest for a loss). Every array and the
  manifest carry a checksum; what does not agree with it is put aside and the
  one before used.
  """

  def __init__(self, workdir: pathlib.Path, keep_checkpoints: int = 3,
               best: str = ""):
    kept, quality = [policies.LatestN(keep_checkpoints)], None
    if best:
      quality = lambda m: order(m["rank"], m["step"])
      kept.append(policies.BestN(get_metric_fn=quality, n=1,
                                 keep_checkpoints_without_metrics=False))
    self._best = best
    self._folder = files.folder(workdir)
    self._manager = None
    with contextlib.ExitStack() as context:
      context.enter_context(files.quiet_orbax())
      context.enter_context(self._writing())
      self._manager = ocp.CheckpointManager(
          self._folder, item_handlers=files.writers(),
          options=ocp.CheckpointManagerOptions(
              preservation_policy=policies.AnyPreservationPolicy(kept),
              # Without it ranks are not written, and after a restart the best
              # checkpoint would be taken for one of the others.
              best_fn=quality,
              cleanup_tmp_directories=True))
      self._quiet = context.pop_all()

  def save(self, state: TrainState, manifest: Manifest,
           scores: Mapping[str, float] = {}, progress: Progress = Progress(),
           again: bool = False) -> None:
    """Starts to save; returns when the arrays are copied.

    Args:
      state: over a mesh.
      manifest: of the run.
      scores: of an evaluation of this state, or none.
      progress: of the run.
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
    # Without scores it comes last.
    rank = (selection.rank(self._best, scores) if self._best and scores
            else selection.WORST)
    contents = files.contents(state, dataclasses.replace(
        manifest, rank=rank, progress=dataclasses.replace(
            progress, environment=environment.rounding()),
        scores={name: float(value) for name, value in scores.items()}))
    with self._writing():
      self._manager.save(step, args=contents,
                         metrics={"rank": rank, "step": step}
                         if self._best else None)

  def latest(self) -> int | None:
    return self._manager.latest_step()

  def restore(self, shape: TrainState, shardings: TrainState,
              manifest: Manifest,
              say: Callable[[str], None]) -> RestoredState | None:
    """The latest intact state, on the devices that `shardings` name.

    Args:
      shape: of the state.
      shardings: of the state; any mesh will do.
      manifest: of the run that resumes.
      say: gets a sentence if checkpoints had to be put aside.

    Returns:
      None where nothing was saved yet.

    Raises:
      OtherOptions, UserError: one cannot be read, all are damaged, or they
        are another run's; nothing was moved.
    """
    self.wait()
    damaged: dict[int, str] = {}
    for step in sorted(self._manager.all_steps(), reverse=True):
      restored = self._read(step, shape, shardings, manifest)
      if isinstance(restored, RestoredState):
        if damaged:
          places = ", ".join(map(self._put_aside, damaged))
          say(f"Damaged, and put aside: {places}.")
        return restored
      damaged[step] = restored
    if damaged:
      causes = "\n  ".join(f"step {s}: {why}" for s, why in damaged.items())
      raise UserError(
          f"All checkpoints in {self._folder} are damaged, and left as they "
          f"are:\n  {causes}\nGive another workdir to start again, or bring "
          "them back from a copy.")
    return None

  def _read(self, step: int, shape: TrainState, shardings: TrainState,
            manifest: Manifest) -> RestoredState | str:
    """The state, or what damaged it (same on all processes)."""
    restored, reason, unreadable, other = None, "", "", None
    try:
      restored = RestoredState(*files.read_state(
          self._folder / str(step), shape, shardings, manifest))
    except Damaged as error:
      reason = str(error)
    except OtherOptions as error:
      other = error
    except UserError as error:
      unreadable = str(error)
    distributed.assert_equal({}, unreadable)
    if other:
      raise other
    # All have it before a sum over all devices is taken.
    if distributed.any_host([restored is None])()[0]:
      return reason or "another process could not read it"
    try:
      files.check(*restored)
    except Damaged as error:
      return str(error)
    return restored

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
    with self._writing():
      self._manager.wait_until_finished()

  def close(self) -> None:
    """Waits for what is being saved."""
    try:
      self.wait()
    finally:
      self._manager.close()
      self._quiet.close()

  @contextlib.contextmanager
  def _writing(self) -> Iterator[None]:
    """Orbax passes on what a disk refuses in exceptions of many types."""
    saved = self._manager.all_steps() if self._manager else ()
    try:
      yield
    except jax.errors.JaxRuntimeError:
      raise  # Of a device, not of the disk.
    except (OSError, ValueError, RuntimeError) as error:
      steps = (f"The checkpoints of the steps {', '.join(map(str, saved))} are "
               "intact; the same command resumes from the last."
               if saved else "")
      raise UserError(
          f"{self._folder} could not be written: {_reason(error)}"
          f"{self._free(error)} {steps}") from error

  def _free(self, error: Exception) -> str:
    """How much room is left, where that is the reason."""
    if not re.search("No space left|quota exceeded|ENOSPC|EDQUOT", str(error)):
      return ""
    there = next(f for f in (self._folder, *self._folder.parents)
                 if f.exists())
    return f" {shutil.disk_usage(there).free / 1e6:,.0f} MB are free."

  def __enter__(self) -> "CheckpointManager":
    return self

  def __exit__(self, *_: Any) -> None:
    self.close()


def _reason(error: Exception) -> str:
  """The system's own word where there is one, else the first line."""
  if isinstance(error, OSError) and error.strerror:
    return f"{error.strerror}."
  return (str(error).splitlines() or [type(error).__name__])[0][:600]
