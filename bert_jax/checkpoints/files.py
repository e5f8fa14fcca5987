"""One checkpoint's folder: what lies in it, and whether that is whole.

  STEP/params      the parameters
  STEP/optimizer   the rest of the TrainState
  STEP/facts       what the run is, rank, progress, a checksum of every array,
                   and a digest of all that
"""

import contextlib
import functools
import hashlib
import json
import pathlib
import sys
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp

from bert_jax.checkpoints.checksums import checksums
from bert_jax.checkpoints.manifest import Manifest, check_same_run
from bert_jax.config import UserError
from bert_jax.training.param_paths import leaves
from bert_jax.training.step import TrainState

# What TensorStore's threads say of arrays that nobody waits for any more.
_HUSHED = ("Event loop is closed", "Encountered error while reading array",
           "Encountered error while writing array")


class Damaged(Exception):
  """What is there is not what was written."""


def contents(state: TrainState,
             about: dict[str, Any]) -> ocp.args.Composite:
  """All that is saved of a state; `about` is JSON."""
  about = about | {"checksums": checksums(state)}
  return ocp.args.Composite(
      params=ocp.args.PyTreeSave(state.params),
      optimizer=ocp.args.PyTreeSave(_without_params(state)),
      facts=ocp.args.JsonSave(about | {"digest": _digest(about)}))


def read_about(folder: pathlib.Path) -> dict[str, Any]:
  """The facts, rank, progress and checksums.

  Raises:
    Damaged: they cannot be read, or are not what was written.
    UserError: they were written by another version of this code.
  """
  with _damage_told(), _reader(ocp.JsonCheckpointHandler) as reader:
    about = reader.restore(folder / "facts")
  if "digest" not in about:
    raise UserError(f"{folder} was written by another version of this code.")
  if about.pop("digest") != _digest(about):
    raise Damaged("the digest of the facts is wrong")
  return about


def read_state(folder: pathlib.Path, shape: TrainState, shardings: TrainState,
               facts: Manifest) -> tuple[TrainState, dict[str, Any]]:
  """The state on the devices of `shardings`, unchecked, and what is about it.

  Raises:
    Damaged: it cannot be read.
    UserError: it is another run's than `facts` say, or of another shape.
  """
  about = read_about(folder)
  check_same_run(about, facts)
  with _damage_told(), _reader(ocp.PyTreeCheckpointHandler) as reader:
    _check_shapes(reader, folder, shape)
    params = reader.restore(folder / "params", args=_wanted(
        shape.params, shardings.params))
    rest = reader.restore(folder / "optimizer", args=_wanted(
        _without_params(shape), _without_params(shardings)))
  return TrainState(params=params, **rest), about


def read_params(folder: pathlib.Path, about: dict[str, Any]) -> Any:
  """The parameters alone, on the host, and checked; Damaged if they are."""
  with _damage_told(), _reader(ocp.PyTreeCheckpointHandler) as reader:
    shape = reader.metadata(folder / "params").item_metadata.tree
    params = reader.restore(folder / "params", restore_args=jax.tree.map(
        lambda _: ocp.RestoreArgs(restore_type=np.ndarray), shape,
        is_leaf=lambda x: hasattr(x, "shape")))
  check({"params": params}, about)
  return params


def check(tree: Any, about: dict[str, Any]) -> None:
  """
  Args:
    tree: a state, or a part of it under the same paths.
    about: what was saved with it.

  Raises:
    Damaged: an array is not what was saved; names it.
  """
  wrong = [path for path, value in checksums(tree).items()
           if about["checksums"][path] != value]
  if wrong:
    raise Damaged(f"the checksum of {wrong[0]} is wrong")


def _digest(about: dict[str, Any]) -> str:
  return hashlib.blake2b(json.dumps(about, sort_keys=True).encode(),
                         digest_size=16).hexdigest()


def _without_params(state: TrainState) -> dict[str, Any]:
  return {"step": state.step, "seed": state.seed, "opt_state": state.opt_state}


def _wanted(shape: Any, shardings: Any) -> ocp.args.PyTreeRestore:
  target = jax.tree.map(
      lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s),
      shape, shardings)
  return ocp.args.PyTreeRestore(
      target,
      restore_args=ocp.checkpoint_utils.construct_restore_args(target))


def _check_shapes(reader: ocp.Checkpointer, folder: pathlib.Path,
                  shape: TrainState) -> None:
  saved = leaves(reader.metadata(folder / "params").item_metadata.tree)
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


def alone() -> ocp.options.MultiprocessingOptions:
  """Each process reads by itself, and waits for no other.

  One may have failed before it came here, and what is damaged for one may be
  whole for another.
  """
  me = jax.process_index()
  return ocp.options.MultiprocessingOptions(
      primary_host=me, active_processes={me},
      barrier_sync_key_prefix=f"process_{me}")


def _reader(handler: Callable[..., Any]) -> ocp.Checkpointer:
  return ocp.Checkpointer(handler(multiprocessing_options=alone()),
                          multiprocessing_options=alone())


@contextlib.contextmanager
def _damage_told() -> Iterator[None]:
  """Turns whatever Orbax meets in damaged files into Damaged."""
  hush_tensorstore()
  try:
    yield
  except (UserError, MemoryError):
    raise
  except Exception as error:
    if "RESOURCE_EXHAUSTED" in str(error):  # Of a device's memory.
      raise
    text = (str(error).splitlines() or [""])[0]
    raise Damaged(f"{type(error).__name__}: {text[:200]}") from None


@functools.cache
def hush_tensorstore() -> None:
  """Keeps the tracebacks of TensorStore's threads from the terminal.

  After the first that meets damage or a full disk, whose error is raised, the
  others go on for a while, and each prints that it is too late.
  """
  hook = sys.unraisablehook

  def hushed(unraisable: Any) -> None:
    if not str(unraisable.exc_value).startswith(_HUSHED):
      hook(unraisable)

  sys.unraisablehook = hushed
