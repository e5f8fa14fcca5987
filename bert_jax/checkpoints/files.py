"""One checkpoint's folder: what it holds, and whether that is intact.

  STEP/params      the parameters
  STEP/optimizer   the rest of the TrainState
  STEP/manifest    what the run is, scores, progress, a checksum of every array,
                   and a digest of all that
"""

import contextlib
import dataclasses
import hashlib
import json
import logging
import pathlib
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp

from bert_jax.checkpoints.checksums import checksums
from bert_jax.checkpoints.damage import Damaged, explained, retried
from bert_jax.checkpoints.manifest import Manifest, check_same_run
from bert_jax.config import UserError
from bert_jax.files import check_local
from bert_jax.training.param_paths import leaves
from bert_jax.training.step import TrainState

# Below this many bytes, one replica writes an array by itself. Orbax lets each
# write a slice, and compiles a program for every slice of every shape: two
# seconds before the first save of a small network on 8 devices.
_LEAST_SLICE = 2**20
# What TensorStore's threads report of arrays that nobody waits for any more.
_REPORTED_LATE = ("Event loop is closed", "Encountered error while reading",
                  "Encountered error while writing")
_REPORTING = 0.2  # seconds that they take for it


def folder(workdir: str | pathlib.Path) -> pathlib.Path:
  """Of the checkpoints of a run."""
  check_local(workdir)
  return pathlib.Path(workdir).absolute() / "checkpoints"


def contents(state: TrainState, manifest: Manifest) -> ocp.args.Composite:
  """All that is saved of a state."""
  values = dataclasses.replace(manifest, checksums=checksums(state)).to_json()
  return ocp.args.Composite(
      params=ocp.args.PyTreeSave(state.params),
      optimizer=ocp.args.PyTreeSave(_without_params(state)),
      manifest=ocp.args.JsonSave(values | {"digest": _digest(values)}))


def writers() -> dict[str, ocp.CheckpointHandler]:
  """What writes each item of `contents`."""
  handlers = ocp.type_handlers
  registry = handlers.create_type_handler_registry(
      (np.number, handlers.ScalarHandler()),
      (np.ndarray, handlers.NumpyHandler()),
      (jax.Array, handlers.ArrayHandler(
          min_slice_bytes_for_replica_parallel=_LEAST_SLICE)))
  return {"manifest": ocp.JsonCheckpointHandler()} | {
      item: ocp.PyTreeCheckpointHandler(type_handler_registry=registry)
      for item in ("params", "optimizer")}


@retried
def read_manifest(folder: pathlib.Path) -> Manifest:
  """
  Raises:
    Damaged: it is not what was written.
    UserError: it cannot be read, was removed, or was written by another
      version of this code.
  """
  return _read_manifest(folder)


def _read_manifest(folder: pathlib.Path) -> Manifest:
  with _reader(folder, ocp.JsonCheckpointHandler) as (reader, _):
    values = reader.restore(folder / "manifest")
  if values.pop("digest", None) != _digest(values):
    raise Damaged("the digest of the manifest is wrong")
  try:
    return Manifest.from_json(values)
  except (KeyError, TypeError):
    raise UserError(
        f"{folder} was written by another version of this code.") from None


@retried
def read_state(folder: pathlib.Path, shape: TrainState, shardings: TrainState,
               expected: Manifest) -> tuple[TrainState, Manifest]:
  """The state on the devices of `shardings`, unchecked, and its manifest.

  Raises:
    Damaged: it is not what was written.
    UserError: it cannot be read, or it is of another run than expected or of
      another shape.
  """
  manifest = _read_manifest(folder)
  check_same_run(manifest, expected)
  with _reader(folder, ocp.PyTreeCheckpointHandler) as (reader, handler):
    _check_shapes(handler.metadata(folder / "params").tree, shape)
    params = reader.restore(folder / "params", args=_restore_args(
        shape.params, shardings.params))
    rest = reader.restore(folder / "optimizer", args=_restore_args(
        _without_params(shape), _without_params(shardings)))
  return TrainState(params=params, **rest), manifest


@retried
def read_params(folder: pathlib.Path, manifest: Manifest) -> Any:
  """The parameters alone, on the host, and checked.

  Raises:
    Damaged: they are not what was written.
    UserError: they cannot be read.
  """
  with _reader(folder, ocp.PyTreeCheckpointHandler) as (reader, handler):
    shape = handler.metadata(folder / "params").tree
    params = reader.restore(folder / "params", restore_args=jax.tree.map(
        lambda _: ocp.RestoreArgs(restore_type=np.ndarray), shape,
        is_leaf=lambda x: hasattr(x, "shape")))
  check({"params": params}, manifest)
  return params


def check(tree: Any, manifest: Manifest) -> None:
  """
  Args:
    tree: a state, or a part of it under the same paths.
    manifest: saved with it.

  Raises:
    Damaged: an array is not what was saved; names it.
  """
  wrong = [path for path, value in checksums(tree).items()
           if manifest.checksums[path] != value]
  if wrong:
    raise Damaged(f"the checksum of {wrong[0]} is wrong")


def _digest(values: dict[str, Any]) -> str:
  return hashlib.blake2b(json.dumps(values, sort_keys=True).encode(),
                         digest_size=16).hexdigest()


def _without_params(state: TrainState) -> dict[str, Any]:
  return {"step": state.step, "seed": state.seed, "opt_state": state.opt_state}


def _restore_args(shape: Any, shardings: Any) -> ocp.args.PyTreeRestore:
  target = jax.tree.map(
      lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s),
      shape, shardings)
  return ocp.args.PyTreeRestore(
      target,
      restore_args=ocp.checkpoint_utils.construct_restore_args(target))


def _check_shapes(saved: Any, shape: TrainState) -> None:
  old = {path: tuple(x.shape) for path, x in leaves(saved).items()}
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
def _reader(folder: pathlib.Path, handler: Callable[..., Any]
            ) -> Iterator[tuple[ocp.Checkpointer, Any]]:
  """Reads for this process alone, which waits for no other: one may have failed
  before it came here, and what is damaged for one may be intact for another.

  Yields the handler too: its `metadata` raises what that of a Checkpointer
  hides.

  Raises:
    As `explained`.
  """
  me = jax.process_index()
  alone = ocp.options.MultiprocessingOptions(
      primary_host=me, active_processes={me},
      barrier_sync_key_prefix=f"process_{me}")
  handler = handler(multiprocessing_options=alone)
  with explained(folder), quiet_orbax(), ocp.Checkpointer(
      handler, multiprocessing_options=alone) as reader:
    yield reader, handler


@contextlib.contextmanager
def quiet_orbax() -> Iterator[None]:
  """Keeps from the terminal what Orbax and TensorStore also raise.

  Orbax logs its exceptions as tracebacks, and TensorStore's threads, after the
  first that meets damage or a full disk, each report that they are too late.
  """
  loggers = [logging.getLogger(name) for name in ("absl", "asyncio")]
  levels, hook = [logger.level for logger in loggers], sys.unraisablehook

  def report(unraisable: Any) -> None:
    if not str(unraisable.exc_value).startswith(_REPORTED_LATE):
      hook(unraisable)

  for logger in loggers:
    logger.setLevel(logging.CRITICAL)
  sys.unraisablehook = report
  try:
    yield
  except Exception:
    time.sleep(_REPORTING)
    raise
  finally:
    for logger, level in zip(loggers, levels):
      logger.setLevel(level)
    sys.unraisablehook = hook
