"""Scores, predictions and embeddings of given parameters."""

import dataclasses
import itertools
from collections.abc import Iterator, Sequence
from typing import Any

import flax.errors
import jax
from jax.sharding import Mesh, NamedSharding, PartitionSpec as P

from bert_jax import checkpoint, config, hosts, metrics
from bert_jax.checkpoint import Saved
from bert_jax.config import UserError
from bert_jax.data import loader
from bert_jax.data.datasets import Data, SquadData, TableData
from bert_jax.data.labelled import Labelled
from bert_jax.data.rows import Rows
from bert_jax.experiment import Experiment, recipe
from bert_jax.objectives.objective import Batch
from bert_jax.training import partition
from bert_jax.training.step import Recipe, evaluation_step

# What of a batch says where in the set its predictions belong.
PLACES = ("example_index", "example_ids", "word_index", "question_index",
          "answer_starts", "answer_ends")


class Evaluator:
  """Evaluates parameters under one recipe; compiled once.

  Every example counts once, masks are fixed, the last batch is filled up with
  rows that weigh nothing. Every process gets all that is found.
  """

  def __init__(self, recipe: Recipe, batch_size: int, mesh: Mesh):
    self._objective = recipe.network.objective
    self._batch_size = batch_size
    self._mesh = mesh

    def step(params: Any, batch: Batch):
      pairs, logits = evaluation_step(recipe, params, batch)
      if self._objective.label_kind is None:
        return pairs, None, None
      places = {key: batch[key] for key in PLACES if key in batch}
      return pairs, places, self._objective.predictions(logits)

    self._step = jax.jit(step, out_shardings=NamedSharding(mesh, P()))

  def outputs(self, params: Any, rows: Rows, batches: int | None = None
              ) -> Iterator[tuple[Any, Any, Any]]:
    """(pairs, places, predictions) of each batch of the set.

    Raises:
      UserError: the parameters lack a part that the objective needs.
    """
    read = loader.evaluation_batches(
        rows, self._batch_size,
        partition.local_rows(self._mesh, self._batch_size))
    for batch in itertools.islice(read, batches):
      try:
        found = self._step(params, partition.share(self._mesh, batch))
      except flax.errors.ScopeParamNotFoundError as error:
        part = str(error).split('scope "/')[-1].split('"')[0]
        raise UserError(
            f"The network has no {part}, which objective="
            f"{self._objective.choice_name} needs; train one, starting with "
            "init_from=WORKDIR.") from None
      yield found

  def evaluate(self, params: Any, rows: Rows, labelled: Labelled | None = None,
               batches: int | None = None) -> dict[str, float]:
    """The loss and its parts, and the objective's metrics and scores.

    Args:
      labelled: the examples behind the rows, where they have labels.
      batches: at most so many; None: the whole set, which scores need.
    """
    counted, predicted = [], []
    for pairs, *found in self.outputs(params, rows, batches):
      counted.append(pairs)
      predicted.append(found)
    means = metrics.summarize(metrics.merge(jax.device_get(counted)))
    if labelled is None or batches is not None:
      return means
    return means | labelled.scores(labelled.collect(jax.device_get(predicted)))

  def predict(self, params: Any, rows: Rows, labelled: Labelled) -> Any:
    """What `labelled.collect` gives of the whole set."""
    return labelled.collect(jax.device_get([
        found for _, *found in self.outputs(params, rows)]))


def load(saved: Saved, batch_size: int) -> tuple[Evaluator, Any]:
  """An evaluator on all devices, and the parameters there."""
  mesh = partition.make_mesh()
  devices = partition.row_devices(mesh)
  evaluator = Evaluator(
      recipe(saved.facts.experiment, saved.facts.tokenizer.vocabulary),
      -(-batch_size // devices) * devices, mesh)
  return evaluator, partition.place(
      saved.params, partition.shardings(saved.params, mesh))


def of_workdir(workdir: str, overrides: Sequence[str] = ()
               ) -> dict[str, float]:
  """Scores of a run's network on its held-out data, or on what `overrides`
  name, as in data.evaluation=test.tsv."""
  saved = checkpoint.read(workdir)
  experiment = config.override(saved.facts.experiment, overrides)
  objective = experiment.objective
  prepared = _only_evaluated(experiment.data).prepare(
      experiment.seed, saved.facts.tokenizer, objective.label_kind,
      objective.labels)
  _agree(saved, experiment, prepared.evaluation)
  evaluator, params = load(saved, experiment.batch_size)
  return evaluator.evaluate(params, prepared.evaluation, prepared.labelled,
                            experiment.evaluation_batches)


def _only_evaluated(data: Data) -> Data:
  """An imported network knows no training set, and none is needed here."""
  if isinstance(data, (TableData, SquadData)) and not data.train:
    if not data.evaluation:
      raise UserError("data.evaluation: name the file to evaluate on, as in "
                      "data.evaluation=test.tsv.")
    return dataclasses.replace(data, train=data.evaluation)
  return data


def predict_file(workdir: str, source: str, output: str,
                 overrides: Sequence[str] = ()) -> int:
  """Writes a file's rows with labels and probabilities beside them.

  Returns:
    The number of examples.
  """
  saved = checkpoint.read(workdir)
  experiment = config.override(saved.facts.experiment, overrides)
  labelled = experiment.data.unlabelled(
      source, experiment.objective.label_kind, experiment.objective.labels)
  if hosts.first():
    labelled.check_output(output)
  rows = labelled.rows(
      saved.facts.tokenizer, experiment.data.length,
      experiment.data.examples_per_row, seed=0, shuffle=False)
  _agree(saved, experiment, rows)
  evaluator, params = load(saved, experiment.batch_size)
  found = evaluator.predict(params, rows, labelled)
  if hosts.first():
    labelled.write(output, found)
  return len(labelled)


def _agree(saved: Saved, experiment: Experiment, rows: Rows) -> None:
  hosts.agree({**config.options(experiment), **hosts.code_facts(),
               "checkpoint": str(saved.step), "data": rows.fingerprint})
