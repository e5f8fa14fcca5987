"""Checkpoints: parameters, optimizer, and all that is needed to read them.

Each step's directory stands alone: beside the arrays lie the experiment (its
page's source and its differences from the defaults), the tokenizer, the
fingerprint of the data. Orbax writes in the background and never overwrites.
"""

import dataclasses
import logging
import pathlib
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from orbax.checkpoint import checkpoint_managers as policies

from bert_jax import config
from bert_jax.config import UserError, nearest
from bert_jax.data.tokenizers import LoadedTokenizer, deserialize
from bert_jax.experiment import Experiment
from bert_jax.training.paths import leaves, path_of
from bert_jax.training.step import TrainState

# Orbax tells of every barrier and every thread.
logging.getLogger("absl").setLevel(logging.ERROR)


@dataclasses.dataclass(frozen=True)
class Facts:
  """What a checkpoint holds beside its arrays."""

  experiment: Experiment
  page: str  # the source of the config page; it may define choices
  tokenizer: LoadedTokenizer
  data_fingerprint: str

  def to_json(self) -> dict[str, Any]:
    return {"page": self.page,
            "changes": config.changes(Experiment(), self.experiment),
            "tokenizer": self.tokenizer.serialize(),
            "data_fingerprint": self.data_fingerprint}

  @classmethod
  def from_json(cls, facts: dict[str, Any]) -> "Facts":
    if facts["page"]:
      config.run_page(facts["page"], "the page in the checkpoint")
    return cls(config.override(Experiment(), facts["changes"]), facts["page"],
               deserialize(facts["tokenizer"]), facts["data_fingerprint"])


class Checkpoints:
  """The checkpoints of one work directory.

  Keeps the latest `keep` and, where `best` names a metric, the one in which
  it was largest (smallest for a loss).
  """

  def __init__(self, workdir: pathlib.Path, keep: int = 3, best: str = ""):
    kept = [policies.LatestN(keep)]
    if best:
      kept.append(policies.BestN(
          get_metric_fn=lambda metrics: metrics["rank"], n=1,
          keep_checkpoints_without_metrics=False))
    self._best = best
    self._manager = ocp.CheckpointManager(
        (workdir / "checkpoints").absolute(),
        options=ocp.CheckpointManagerOptions(
            preservation_policy=policies.AnyPreservationPolicy(kept),
            cleanup_tmp_directories=True))

  def save(self, state: TrainState, facts: Facts,
           metrics: dict[str, float]) -> None:
    """Starts to save; returns when the arrays are copied."""
    step = int(state.step)
    if step in self._manager.all_steps():
      return
    rank = self._rank(metrics)
    self._manager.save(step, args=ocp.args.Composite(
        params=ocp.args.PyTreeSave(state.params),
        optimizer=ocp.args.PyTreeSave(_without_params(state)),
        facts=ocp.args.JsonSave(facts.to_json() | {"rank": rank})),
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

  def facts(self) -> Facts:
    """The facts beside the latest state."""
    return Facts.from_json(self._manager.restore(
        self.latest(), args=ocp.args.Composite(
            facts=ocp.args.JsonRestore()))["facts"])

  def restore(self, shape: TrainState, shardings: TrainState) -> TrainState:
    """The latest state, on the devices that `shardings` name."""
    found = self._manager.restore(self.latest(), args=ocp.args.Composite(
        params=_wanted(shape.params, shardings.params),
        optimizer=_wanted(_without_params(shape),
                          _without_params(shardings))))
    return TrainState(params=found["params"], **found["optimizer"])

  def close(self) -> None:
    """Waits for what is being saved."""
    self._manager.wait_until_finished()
    self._manager.close()

  def __enter__(self) -> "Checkpoints":
    return self

  def __exit__(self, *_: Any) -> None:
    self.close()


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

  Raises:
    UserError: there is none.
  """
  path = pathlib.Path(directory).absolute() / "checkpoints"
  if not path.is_dir():
    raise UserError(f"{directory} holds no checkpoints; give the work "
                    "directory of a run.")
  with ocp.CheckpointManager(path) as manager:
    steps = sorted(manager.all_steps())
    if not steps:
      raise UserError(f"{directory} holds no finished checkpoint.")
    facts = {step: manager.restore(step, args=ocp.args.Composite(
        facts=ocp.args.JsonRestore()))["facts"] for step in steps}
  step = max(steps, key=lambda s: (facts[s]["rank"], s))
  with ocp.PyTreeCheckpointer() as reader:
    params_path = path / str(step) / "params"
    shape = reader.metadata(params_path).item_metadata.tree
    params = reader.restore(params_path, restore_args=jax.tree.map(
        lambda _: ocp.RestoreArgs(restore_type=np.ndarray), shape,
        is_leaf=lambda x: hasattr(x, "shape")))
  return Saved(params, Facts.from_json(facts[step]), step)


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
