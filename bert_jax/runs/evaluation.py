"""Scores, predictions and embeddings of given parameters."""

import itertools
from collections.abc import Iterator
from typing import Any

import flax.errors
import jax
from jax.sharding import Mesh, NamedSharding, PartitionSpec as P

from bert_jax.checkpoints.manager import Checkpoint
from bert_jax.config import UserError
from bert_jax.data.batches import loader, spec
from bert_jax.data.batches.rows import Rows
from bert_jax.data.labeled.base import LabeledSet, kind_of
from bert_jax.experiment import recipe
from bert_jax.metrics import weighted
from bert_jax.objectives.base import Batch
from bert_jax.parallel import rules
from bert_jax.parallel.mesh import (
    local_rows, make_mesh, place, row_devices, share)
from bert_jax.training.step import Recipe, evaluation_step


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
      kind = self._objective.label_kind
      if kind is None:
        return pairs, None, None
      places = spec.locating(kind_of(kind).keys, batch)
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
        local_rows(self._mesh, self._batch_size))
    for batch in itertools.islice(read, batches):
      try:
        found = self._step(params, share(self._mesh, batch))
      except flax.errors.ScopeParamNotFoundError as error:
        part = str(error).split('scope "/')[-1].split('"')[0]
        raise UserError(
            f"The network has no {part}, which objective="
            f"{self._objective.choice_name} needs; train one, starting with "
            "init_from=WORKDIR.") from None
      yield found

  def evaluate(self, params: Any, rows: Rows, labeled: LabeledSet | None = None,
               batches: int | None = None) -> dict[str, float]:
    """The loss and its parts, and the objective's metrics and scores.

    Args:
      labeled: the examples behind the rows, where they have labels.
      batches: at most so many; None: the whole set, which scores need.
    """
    counted, predicted = [], []
    for pairs, *found in self.outputs(params, rows, batches):
      counted.append(pairs)
      predicted.append(found)
    means = weighted.summarize(weighted.merge(jax.device_get(counted)))
    if labeled is None or batches is not None:
      return means
    return means | labeled.scores(labeled.collect(jax.device_get(predicted)))

  def predict(self, params: Any, rows: Rows, labeled: LabeledSet) -> Any:
    """What `labeled.collect` gives of the whole set."""
    return labeled.collect(jax.device_get([
        found for _, *found in self.outputs(params, rows)]))


def load(saved: Checkpoint, batch_size: int) -> tuple[Evaluator, Any]:
  """An evaluator on all devices, and the parameters there."""
  mesh = make_mesh()
  devices = row_devices(mesh)
  evaluator = Evaluator(
      recipe(saved.facts.experiment, saved.facts.tokenizer.vocabulary),
      -(-batch_size // devices) * devices, mesh)
  return evaluator, place(
      saved.params, rules.shardings(saved.params, mesh))
