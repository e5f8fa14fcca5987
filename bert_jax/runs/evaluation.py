"""Scores and predictions of given parameters."""

import dataclasses
import functools
import itertools
import re
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec as P

from bert_jax import config
from bert_jax.checkpoints import environment
from bert_jax.checkpoints.reading import Checkpoint
from bert_jax.config import UserError
from bert_jax.data.batches import loader, spec
from bert_jax.data.batches.rows import Rows
from bert_jax.data.labeled.base import LabeledSet
from bert_jax.experiment import Experiment, Run, recipe
from bert_jax.metrics import weighted
from bert_jax.metrics.selection import rank
from bert_jax.metrics.weighted import Mean
from bert_jax.objectives.base import Batch, Means
from bert_jax.parallel import rules
from bert_jax.parallel.mesh import (
    local_rows, make_mesh, place, row_devices, share)
from bert_jax.runs.anomalies import NO_WEIGHT
from bert_jax.training import numerics, programs
from bert_jax.training.adapters import NoAdapter
from bert_jax.training.param_paths import leaves
from bert_jax.training.step import Recipe, evaluation_step


_OF_NETWORK = re.compile("/(embeddings|layers)/")


class Outputs(NamedTuple):
  """Of a batch; without labels only the sums."""

  sums: Means
  places: Batch | None = None
  predictions: Any = None


def predict_batch(recipe: Recipe, params: Any, batch: Batch) -> Outputs:
  """What is evaluated of a batch, a pure function."""
  objective = recipe.objective
  sums, outputs = evaluation_step(recipe, params, batch)
  if objective.label_kind is None:
    return Outputs(sums)
  keys = objective.label_kind.keys
  return Outputs(sums, spec.locating(keys, batch),
                 objective.predictions(outputs))


def collect(outputs: Sequence[Outputs], labeled: LabeledSet) -> Any:
  """The predictions of a set, as `labeled.collect` gives them."""
  return labeled.collect([(o.places, o.predictions) for o in outputs])


def scores(outputs: Sequence[Outputs],
           labeled: LabeledSet | None) -> dict[str, float]:
  """The loss, its parts, metrics and, of a complete labeled set, scores.

  None of no batches.

  Raises:
    UserError: a part of the loss has no weight.
  """
  if not outputs:
    return {}
  sums = weighted.merge(o.sums for o in outputs)
  empty = weighted.without_weight(sums)
  if empty:
    raise UserError(f"{', '.join(empty)} of the evaluation has no weight. "
                    + NO_WEIGHT)
  means = weighted.summarize(sums)
  if labeled is None:
    return means
  return means | labeled.scores(collect(outputs, labeled))


class Evaluator:
  """Evaluates parameters under one recipe; compiled once.

  Every example counts once, masks are fixed, the last batch is filled up with
  rows of zero weight. Every process gets all outputs.
  """

  def __init__(self, recipe: Recipe, batch_size: int, mesh: Mesh):
    self._batch_size, self._mesh = batch_size, mesh
    self._step = _predicting(recipe, mesh)

  def outputs(self, params: Any, rows: Rows,
              batches: int | None = None) -> list[Outputs]:
    """Of each batch of the set, on the host; `batches` at most."""
    read = loader.evaluation_batches(
        rows, self._batch_size, local_rows(self._mesh, self._batch_size))
    return jax.device_get([self._step(params, share(self._mesh, batch))
                           for batch in itertools.islice(read, batches)])

  def evaluate(self, params: Any, rows: Rows, labeled: LabeledSet | None = None,
               batches: int | None = None) -> dict[str, float]:
    """The loss and its parts, and the objective's metrics and scores.

    Args:
      labeled: the examples behind the rows, where they have labels.
      batches: at most; None: the complete set, which scores need.
    """
    return scores(self.outputs(params, rows, batches),
                  labeled if batches is None else None)

  def evaluate_run(self, params: Any, run: Run) -> dict[str, float]:
    """On the held-out data of a run, as its experiment asks for."""
    prepared = run.prepared
    return self.evaluate(params, prepared.evaluation, prepared.evaluation_set,
                         run.experiment.evaluation_batches)

  def predict(self, params: Any, rows: Rows, labeled: LabeledSet) -> Any:
    """What `labeled.collect` gives of the complete set."""
    return collect(self.outputs(params, rows), labeled)


@programs.once(lambda recipe, mesh: (recipe, mesh))
def _predicting(recipe: Recipe, mesh: Mesh) -> Callable[[Any, Batch], Outputs]:
  return numerics.jit(functools.partial(predict_batch, recipe),
                      out_shardings=NamedSharding(mesh, P()))


def check_best(run: Run) -> None:
  """
  Raises:
    UserError: the run's `best` is no score that it will have.
  """
  experiment, labeled = run.experiment, run.prepared.evaluation_set
  if not experiment.best:
    return
  outputs = numerics.eval_shape(
      functools.partial(predict_batch, run.recipe), run.shape().params,
      run.row())
  names = list(weighted.summarize(
      {name: Mean(0.0, 0.0) for name in outputs.sums}))
  if labeled is not None and experiment.evaluation_batches is None:
    if labeled.score_names is None:
      return
    names += labeled.score_names
  rank(experiment.best, dict.fromkeys(names, 0.0))


# What evaluation and prediction have no use for: how a run was trained.
_OF_TRAINING = re.compile(
    r"(?!(model|objective|data|layout|batch_size|evaluation_batches)\b)"
    r"|model\.(\w*dropout_prob|initializer_range|remat)$"
    r"|objective\.(balanced|teacher)$"
    r"|objective\.masking\.(initial_rate|rate_steps)$"
    r"|data\.(tokenizer|augmentation|shots|shots_seed)\b")


def check_overrides(trained: Experiment, experiment: Experiment) -> list[str]:
  """What differs from the run, all of which `load` heeds.

  Raises:
    UserError: an option that cannot apply to a finished run.
  """
  differing = config.changes(trained, experiment)
  for change in differing:
    if _OF_TRAINING.match(change.partition("=")[0]):
      raise UserError(
          f"{change}: the run is trained, and this would change nothing of its "
          "scores or predictions. Options of data, objective, model, layout, "
          "batch_size and evaluation_batches may differ.")
  return differing


def load(checkpoint: Checkpoint, experiment: Experiment,
         rows: Rows) -> tuple[Evaluator, Any]:
  """An evaluator of `rows`, and the parameters on its devices.

  Args:
    experiment: that of the checkpoint, or another one of `check_overrides`;
      its layout counts only where it is not that of the checkpoint, as these
      devices may be others.

  Raises:
    UserError: the parameters lack a part that the objective needs, or are not
      those of such a network.
  """
  environment.warn(checkpoint.manifest.progress.environment)
  trained, params = checkpoint.manifest.experiment, checkpoint.params
  plain = recipe(dataclasses.replace(experiment, adapter=NoAdapter(),
                                     microbatches=None),
                 checkpoint.manifest.tokenizer.vocabulary)
  row = {key: value[None] for key, value in rows.empty().items()} | {
      "row": np.zeros(1, np.int32)}
  state = numerics.eval_shape(plain.init, np.int32(0), row)
  _check_params(plain, params, state.params,
                config.changes(trained, experiment))
  mesh, batch_size = make_mesh(), experiment.batch_size
  if experiment.layout != trained.layout:
    batch_size = _rounded(batch_size, jax.device_count())
    mesh = experiment.layout.build(plain, state, batch_size, row).mesh
  return (Evaluator(plain, _rounded(batch_size, row_devices(mesh)), mesh),
          place(params, rules.shardings(params, mesh, rules.table_of(plain))))


def _rounded(count: int, factor: int) -> int:
  """Up to a multiple of `factor`."""
  return -(-count // factor) * factor


def _check_params(recipe: Recipe, params: Any, shape: Any,
                  differing: Sequence[str]) -> None:
  given, needed = leaves(params), leaves(shape)
  missing = [path for path in needed if path not in given]
  if missing:
    raise UserError(
        f"The network has no {missing[0].rpartition('/')[0]}, which objective="
        f"{recipe.objective.choice_name} needs; train one, starting with "
        "init_from=WORKDIR.")
  other_network = any(change.startswith("model.") for change in differing)
  unlike = [f"{path}: {given[path].shape} there, "
            f"{needed[path].shape if path in needed else 'nothing'} here"
            for path in given
            if (path in needed and needed[path].shape != given[path].shape)
            or (other_network and path not in needed
                and _OF_NETWORK.search(path))]
  if unlike:
    raise UserError(
        "The run's parameters are those of another network than with "
        f"{' '.join(differing)}:\n  " + "\n  ".join(unlike[:20]))
