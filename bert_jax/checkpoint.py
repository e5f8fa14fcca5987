"""Checkpoints: parameters, optimizer, and all that is needed to read them.

Each step's directory stands alone: beside the arrays lie the experiment (its
page's source and its differences from the defaults), the tokenizer, the
fingerprint of the data. Orbax writes in the background and never overwrites.
"""

import contextlib
import dataclasses
import errno
import functools
import hashlib
import json
import logging
import os
import pathlib
import shutil
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from orbax.checkpoint import checkpoint_managers as policies

from bert_jax import config, hosts
from bert_jax.config import UserError, nearest
from bert_jax.experiment import Experiment
from bert_jax.facts import Facts, check_same
from bert_jax.training.checksum import checksums
from bert_jax.training.paths import leaves, path_of
from bert_jax.training.step import TrainState

# Orbax tells of every barrier and every thread, and prints as tracebacks what
# it also raises.
logging.getLogger("absl").setLevel(logging.CRITICAL)


@dataclasses.dataclass(frozen=True)
class Restored:
  """A checkpoint that a run goes on from."""

  state: TrainState
  progress: dict[str, Any]  # what `save` was given


class Checkpoints:
  """The checkpoints of one work directory.

  Keeps the latest `keep` and, where `best` names a metric, the one in which
  it was largest (smallest for a loss). Every array and the facts carry a
  checksum; what does not agree with it is put aside and the one before used.
  """

  def __init__(self, workdir: pathlib.Path, keep: int = 3, best: str = ""):
    kept = [policies.LatestN(keep)]
    if best:
      kept.append(policies.BestN(
          get_metric_fn=lambda metrics: metrics["rank"], n=1,
          keep_checkpoints_without_metrics=False))
    self._best = best
    self._folder = _folder(workdir)
    _hush_tensorstore()
    with _explained(self._folder):
      self._manager = ocp.CheckpointManager(
          self._folder, options=ocp.CheckpointManagerOptions(
              preservation_policy=policies.AnyPreservationPolicy(kept),
              cleanup_tmp_directories=True))

  def save(self, state: TrainState, facts: Facts, metrics: dict[str, float],
           progress: dict[str, Any]) -> None:
    """Starts to save; returns when the arrays are copied.

    Args:
      state: over a mesh.
      facts: the same throughout a run.
      metrics: of an evaluation of this state, or none.
      progress: what else the run needs to go on, as JSON.

    Raises:
      UserError: this or the save before it failed.
    """
    step = int(state.step)
    if step in self._manager.all_steps():
      return
    rank = self._rank(metrics)
    about = facts.to_json() | {"rank": rank, "progress": progress,
                               "checksums": checksums(state)}
    with _explained(self._folder, self._manager.all_steps()):
      self._manager.save(step, args=ocp.args.Composite(
          params=ocp.args.PyTreeSave(state.params),
          optimizer=ocp.args.PyTreeSave(_without_params(state)),
          facts=ocp.args.JsonSave(about | {"digest": _digest(about)})),
          metrics={"rank": rank} if self._best else None)

  def _rank(self, metrics: dict[str, float]) -> float:
    """How good a checkpoint is; one that was not evaluated comes last."""
    if not self._best:
      return 0.0
    if metrics and self._best not in metrics:
      raise UserError(f"best={self._best}: no such metric"
                      + nearest(self._best, metrics))
    sign = -1 if self._best.endswith("loss") else 1
    return sign * metrics[self._best] if metrics else float("-1e30")

  def latest(self) -> int | None:
    return self._manager.latest_step()

  def restore(self, shape: TrainState, shardings: TrainState, facts: Facts,
              say: Callable[[str], None]) -> Restored | None:
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
    damaged = []
    for step in sorted(self._manager.all_steps(), reverse=True):
      found = _unless_damaged(_read, self._folder / str(step), shape, shardings,
                              facts)
      # All have it before a sum over all devices; what that says, it says to
      # all.
      if hosts.any_of([found is None])()[0] or (
          _unless_damaged(_check, *found) is None):
        damaged.append(self._put_aside(step))
        continue
      if damaged:
        say(f"Damaged: {', '.join(damaged)}; going on from step {step}.")
      state, about = found
      return Restored(state, about["progress"])
    if damaged:
      raise UserError("All checkpoints are damaged; they were moved to "
                      f"{', '.join(damaged)}. Give another workdir to start "
                      "again, or bring them back from a copy.")
    return None

  def _put_aside(self, step: int) -> str:
    """Moves a damaged checkpoint away, so that its step can be saved again."""
    place = self._folder.parent / "damaged" / str(step)
    if hosts.first():
      place.parent.mkdir(exist_ok=True)
      shutil.rmtree(place, ignore_errors=True)
      (self._folder / str(step)).rename(place)
    hosts.any_of([True])()  # Nobody looks before it is gone.
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

  def __enter__(self) -> "Checkpoints":
    return self

  def __exit__(self, *_: Any) -> None:
    self.close()


def _unless_damaged(reader: Callable[..., Any], *arguments: Any) -> Any:
  """What `reader` finds; None where it meets damage, of whatever kind."""
  _hush_tensorstore()
  try:
    return reader(*arguments)
  except UserError:
    raise
  except Exception as error:
    logging.getLogger(__name__).debug("damaged", exc_info=error)
    return None


# What is said of arrays that nobody waits for any more.
_HUSHED = ("Event loop is closed", "Encountered error while reading array",
           "Encountered error while writing array")


@functools.cache
def _hush_tensorstore() -> None:
  """Keeps the tracebacks of TensorStore's threads from the terminal.

  After the first that meets damage or a full disk, whose error is raised, the
  others go on for a while, and each prints that it is too late.
  """
  hook = sys.unraisablehook

  def hushed(unraisable: Any) -> None:
    if not str(unraisable.exc_value).startswith(_HUSHED):
      hook(unraisable)

  sys.unraisablehook = hushed


class _Damaged(Exception):
  """What was read is not what was written."""


def _digest(about: dict[str, Any]) -> str:
  return hashlib.blake2b(json.dumps(about, sort_keys=True).encode(),
                         digest_size=16).hexdigest()


def _alone() -> ocp.options.MultiprocessingOptions:
  """Each process reads by itself, and waits for no other.

  One may have failed before it came here, and what is damaged for one may be
  whole for another.
  """
  me = jax.process_index()
  return ocp.options.MultiprocessingOptions(
      primary_host=me, active_processes={me},
      barrier_sync_key_prefix=f"process_{me}")


def _reader(handler: Callable[..., Any]) -> ocp.Checkpointer:
  return ocp.Checkpointer(handler(multiprocessing_options=_alone()),
                          multiprocessing_options=_alone())


def _about(checkpoint: pathlib.Path) -> dict[str, Any]:
  """The facts of a step's folder, with rank, progress and checksums."""
  with _reader(ocp.JsonCheckpointHandler) as reader:
    about = reader.restore(checkpoint / "facts")
  if "digest" not in about:
    raise UserError(f"{checkpoint} was written by another version of this "
                    "code.")
  if about.pop("digest") != _digest(about):
    raise _Damaged("facts")
  return about


def _read(checkpoint: pathlib.Path, shape: TrainState, shardings: TrainState,
          facts: Facts) -> tuple[TrainState, dict[str, Any]]:
  about = _about(checkpoint)
  check_same(about, facts)
  _check_shapes(checkpoint, shape)
  with _reader(ocp.PyTreeCheckpointHandler) as reader:
    params = reader.restore(checkpoint / "params", args=_wanted(
        shape.params, shardings.params))
    rest = reader.restore(checkpoint / "optimizer", args=_wanted(
        _without_params(shape), _without_params(shardings)))
  return TrainState(params=params, **rest), about


def _check(state: TrainState, about: dict[str, Any]) -> bool:
  _check_sums(checksums(state), about)
  return True


def _check_sums(found: dict[str, int], about: dict[str, Any]) -> None:
  wrong = [path for path, value in found.items()
           if about["checksums"][path] != value]
  if wrong:
    raise _Damaged(", ".join(wrong))


def _check_shapes(checkpoint: pathlib.Path, shape: TrainState) -> None:
  """
  Raises:
    UserError: the parameters there are another network's; names them.
  """
  with _reader(ocp.PyTreeCheckpointHandler) as reader:
    saved = leaves(reader.metadata(checkpoint / "params").item_metadata.tree)
  old = {path: tuple(x.shape) for path, x in saved.items()}
  new = {path: x.shape for path, x in leaves(shape.params).items()}
  differing = [
      f"{path}: {old[path] if path in old else 'nothing'} there, "
      f"{new[path] if path in new else 'nothing'} here"
      for path in sorted(old | new)
      if path not in old or path not in new or old[path] != new[path]]
  if differing:
    raise UserError(
        "The checkpoints here are of another architecture:\n  "
        + "\n  ".join(differing[:20]) + "\nGive another workdir.")


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


def _without_params(state: TrainState) -> dict[str, Any]:
  return {"step": state.step, "seed": state.seed, "opt_state": state.opt_state}


def _wanted(shape: Any, shardings: Any) -> ocp.args.PyTreeRestore:
  target = jax.tree.map(
      lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s),
      shape, shardings)
  return ocp.args.PyTreeRestore(
      target,
      restore_args=ocp.checkpoint_utils.construct_restore_args(target))


@dataclasses.dataclass(frozen=True)
class Saved:
  """A checkpoint as read, its parameters on the host."""

  params: Any
  facts: Facts
  step: int


def read(directory: str | pathlib.Path) -> Saved:
  """The checkpoint that a run is used by: its best, or else its latest.

  A damaged one is passed over, with a warning.

  Raises:
    UserError: there is none.
  """
  found = history(directory)
  for step in sorted(found, key=lambda s: (found[s]["rank"], s), reverse=True):
    params = _unless_damaged(_read_params, _folder(directory) / str(step),
                             found[step])
    if params is not None:
      return Saved(params, Facts.from_json(found[step]), step)
    _warn_of_damage(directory, [step])
  raise UserError(f"{directory} holds no finished checkpoint that is whole.")


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
      multiprocessing_options=_alone())) as manager:
    steps = sorted(manager.all_steps())
  found = {step: about for step in steps if (about := _unless_damaged(
      _about, path / str(step)))}
  if len(found) < len(steps):
    _warn_of_damage(directory, sorted(set(steps) - set(found)))
  return found


def state_at(directory: str | pathlib.Path, step: int, shape: TrainState,
             shardings: TrainState, facts: Facts) -> TrainState | None:
  """The state that was saved at a step, on the devices of `shardings`; None,
  and a warning, where it is damaged. Nothing is changed in the directory."""
  found = _unless_damaged(_read, _folder(directory) / str(step), shape,
                          shardings, facts)
  if found is None or _unless_damaged(_check, *found) is None:
    _warn_of_damage(directory, [step])
    return None
  return found[0]


def _folder(directory: str | pathlib.Path) -> pathlib.Path:
  return pathlib.Path(directory).absolute() / "checkpoints"


def _warn_of_damage(directory: str | pathlib.Path,
                    steps: Sequence[int]) -> None:
  warnings.warn(f"{directory}: passed over the damaged checkpoints "
                f"{', '.join(map(str, steps))}", stacklevel=3)


def _read_params(checkpoint: pathlib.Path, about: dict[str, Any]) -> Any:
  with _reader(ocp.PyTreeCheckpointHandler) as reader:
    shape = reader.metadata(checkpoint / "params").item_metadata.tree
    params = reader.restore(checkpoint / "params", restore_args=jax.tree.map(
        lambda _: ocp.RestoreArgs(restore_type=np.ndarray), shape,
        is_leaf=lambda x: hasattr(x, "shape")))
  _check_sums({f"params/{path}": value
               for path, value in checksums(params).items()}, about)
  return params


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


def start_from(saved: Saved, params: Any) -> tuple[Any, list[str]]:
  """`params` with every parameter that `saved` holds under the same path.

  Returns:
    The parameters, on the host, and the paths that `saved` does not hold.

  Raises:
    UserError: a parameter of the encoder has another shape.
  """
  found, missing = leaves(saved.params), []

  def take(keys: Any, old: Any) -> Any:
    path = path_of(keys)
    if path in found and found[path].shape == old.shape:
      return found[path]
    if path in found and path.startswith("encoder/"):
      raise UserError(f"{path} has the shape {found[path].shape} in the "
                      f"checkpoint, but {old.shape} in this network.")
    missing.append(path)
    return old

  return jax.tree_util.tree_map_with_path(take, params), missing
