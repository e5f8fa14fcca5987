"""Scores, predictions and embeddings of given parameters."""

import itertools
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from bert_jax import metrics
from bert_jax.data import loader
from bert_jax.data.rows import Rows
from bert_jax.data.tasks import Labelled, tags_by_word
from bert_jax.objectives.objective import Batch, Objective
from bert_jax.training.step import Recipe, evaluation_step, summarize


class Evaluator:
  """Evaluates parameters under one recipe; compiled once.

  Every example counts once, masks are fixed, the last batch is filled up with
  rows that weigh nothing.
  """

  def __init__(self, recipe: Recipe, batch_size: int,
               share: Callable[[Mapping[str, np.ndarray]], Batch]):
    self._objective = recipe.network.objective
    self._batch_size = batch_size
    self._share = share

    def step(params: Any, batch: Batch):
      pairs, logits = evaluation_step(recipe, params, batch)
      labelled = self._objective.label_kind is not None
      return pairs, self._objective.predictions(logits) if labelled else None

    self._step = jax.jit(step)

  def outputs(self, params: Any, rows: Rows, batches: int | None = None
              ) -> Iterator[tuple[Mapping[str, np.ndarray], Any, Any]]:
    """(batch, pairs, predictions) of each batch of the set."""
    read = loader.evaluation_batches(
        rows, self._batch_size, process_index=jax.process_index(),
        process_count=jax.process_count())
    for batch in itertools.islice(read, batches):
      yield batch, *self._step(params, self._share(batch))

  def evaluate(self, params: Any, rows: Rows, labelled: Labelled | None = None,
               batches: int | None = None) -> dict[str, float]:
    """The loss and its parts, and the objective's metrics and scores.

    Args:
      labelled: the examples behind the rows, where they have labels.
      batches: at most so many; None: the whole set.
    """
    totals, predicted = None, []
    for batch, pairs, predictions in self.outputs(params, rows, batches):
      totals = pairs if totals is None else jax.tree.map(jnp.add, totals,
                                                         pairs)
      predicted.append((batch, predictions))
    means = _named(summarize(jax.device_get(totals)))
    if labelled is None or labelled.labels is None:
      return means
    return means | scores(self._objective, labelled,
                          by_example(labelled, predicted))

  def predict(self, params: Any, rows: Rows, labelled: Labelled) -> Any:
    """`by_example` of the whole set."""
    return by_example(labelled, [
        (batch, predictions)
        for batch, _, predictions in self.outputs(params, rows)])


def _named(means: dict[str, float]) -> dict[str, float]:
  """Adds perplexity; bits per byte is a pair, whose mean it already is."""
  if "mlm_loss" in means:
    means["perplexity"] = metrics.perplexity(means["mlm_loss"])
  return means


def by_example(labelled: Labelled, predicted: list[tuple[Any, Any]]) -> Any:
  """Predictions in the order of the examples.

  Returns:
    Probabilities (X, C), numbers (X,), or a tag (its number) for every word.
  """
  predicted = [(batch, np.asarray(p)) for batch, p in predicted]
  if labelled.kind == "tags":
    return tags_by_word(labelled, ((batch, np.argmax(p, axis=-1))
                                   for batch, p in predicted))
  found = np.zeros((len(labelled), *predicted[0][1].shape[2:]), np.float32)
  for batch, predictions in predicted:
    real_BE = batch["example_index"] >= 0
    found[batch["example_index"][real_BE]] = predictions[real_BE]
  return found


def scores(objective: Objective, labelled: Labelled,
           found: Any) -> dict[str, float]:
  """The objective's scores of what `by_example` found."""
  if labelled.kind == "tags":
    names = lambda tags: [[labelled.label_names[t] if t >= 0 else ""
                           for t in line] for line in tags]
    return metrics.entity_scores(names(labelled.labels), names(found))
  if labelled.kind == "class":
    found = np.argmax(found, axis=-1)
  return {name: metrics.score(name, labelled.labels, found)
          for name in objective.scores}


