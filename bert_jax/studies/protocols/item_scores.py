"""Applies the network of a run to rows of items, and adds up what each costs.

Dimensions: I items. A measured array has the dimensions of `items` in a batch.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec as P

from bert_jax.data.batches import loader
from bert_jax.experiment import Run
from bert_jax.objectives.base import Batch
from bert_jax.parallel import rules
from bert_jax.parallel.mesh import (
    AXES, local_rows, make_mesh, place, row_devices, share)
from bert_jax.studies.protocols.item_rows import ItemRows
from bert_jax.training import numerics, programs
from bert_jax.training.step import Recipe, row_keys


class Question(NamedTuple):
  """What is asked of a network: `logits` under this name, for these labels."""

  head: str
  labels: str  # the key of the batch


class Totals(NamedTuple):
  """Of each item, float64: nats, right answers, predictions."""

  nats_I: np.ndarray
  hits_I: np.ndarray
  weights_I: np.ndarray


class ItemScorer:
  """Scores parameters of a run; compiled once for each mesh they lie on."""

  def __init__(self, run: Run, rows: ItemRows, question: Question):
    self._recipe, self._rows = run.recipe, rows
    self._batch_size, self._question = run.experiment.batch_size, question
    self._steps: dict[Mesh, Callable[..., Any]] = {}

  def __call__(self, params: Any) -> Totals:
    """
    Args:
      params: of the recipe's network, on a mesh of a layout, or else anywhere:
        then all devices get them.
    """
    mesh, params = _on_mesh(params, self._recipe)
    parts = row_devices(mesh)
    batch_size = -(-self._batch_size // parts) * parts
    if mesh not in self._steps:
      self._steps[mesh] = _asking(self._recipe, self._question, mesh)
    step = self._steps[mesh]
    answers = jax.device_get([
        step(params, share(mesh, batch)) for batch in loader.evaluation_batches(
            self._rows, batch_size, local_rows(mesh, batch_size))])
    return _add_up(answers, self._rows.items)


@programs.once(lambda recipe, question, mesh: (recipe, question, mesh))
def _asking(recipe: Recipe, question: Question, mesh: Mesh
            ) -> Callable[..., Any]:
  placed = dataclasses.replace(
      recipe, network=rules.place(recipe.network, mesh))
  return numerics.jit(functools.partial(answer, placed, question),
                      out_shardings=NamedSharding(mesh, P()))


def answer(recipe: Recipe, question: Question, params: Any, batch: Batch
           ) -> tuple[jax.Array, jax.Array, jax.Array]:
  """Of each prediction: its item, its nats, and whether it is right.

  The batch is seen as it is: the objective corrupts nothing.
  """
  logits = recipe.network.apply(params, batch)[question.head]
  logits = logits.astype(jnp.float32)
  right = jnp.take_along_axis(logits, batch[question.labels][..., None],
                              axis=-1)[..., 0]
  nats = jax.nn.logsumexp(logits, axis=-1) - right
  return batch["items"], nats, right >= logits.max(axis=-1)


def _add_up(answers: list[tuple[np.ndarray, ...]], items: int) -> Totals:
  item, nats, hits = (np.concatenate([x.ravel() for x in column])
                      for column in zip(*answers))
  real = item >= 0
  add = lambda values: np.bincount(item[real], values[real].astype(np.float64),
                                   minlength=items)
  return Totals(add(nats), add(hits), add(real))


def _on_mesh(params: Any, recipe: Recipe) -> tuple[Mesh, Any]:
  sharding = getattr(jax.tree.leaves(params)[0], "sharding", None)
  if isinstance(sharding, NamedSharding) and sharding.mesh.axis_names == AXES:
    return sharding.mesh, params
  mesh = make_mesh()
  return mesh, place(jax.device_get(params), rules.shardings(
      params, mesh, rules.table_of(recipe)))


def obstacle(run: Run, rows: ItemRows, question: Question) -> str:
  """Why the network cannot be asked; "": it can."""
  if not rows.items:
    return "no document is held out that it could be asked about"
  experiment, recipe = run.experiment, run.recipe
  objective = f"objective={experiment.objective.choice_name}"
  positions = experiment.model.max_position_embeddings
  if rows.length > positions:
    return (f"rows of {rows.length} tokens do not fit into model."
            f"max_position_embeddings={positions}")
  seen = numerics.eval_shape(lambda batch: recipe.inputs(
      batch, row_keys(numerics.key(0), batch["row"]), None), run.row())
  if "order" in seen:
    return f"{objective} has an order of its own in which tokens are seen"
  row = {key: value[None] for key, value in rows.empty().items()} | {
      "row": np.zeros(1, np.int32)}
  try:
    outputs = numerics.eval_shape(recipe.network.apply, run.shape().params, row)
  except KeyError as error:
    return f"{objective} reads {error} of a batch, which only its own data has"
  if question.head not in outputs:
    return f"{objective} has no head {question.head!r}"
  shape, expected = outputs[question.head].shape, row[question.labels].shape
  if shape[:-1] != expected:
    return (f"{objective} has a head {question.head!r} of another kind: it "
            f"gives {shape} for labels {expected}")
  return ""
