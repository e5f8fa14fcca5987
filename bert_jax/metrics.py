"""What is counted: (total, weight) pairs, and the scores of tasks.

Pairs are what a training or evaluation step returns: they add up over
microbatches, devices, hosts and batches, where means of means would be wrong.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np

from bert_jax.config import UserError, nearest

Pair = tuple[float, float]
Tags = Sequence[str]


def merge(batches: Iterable[Mapping[str, Pair]]) -> dict[str, Pair]:
  """Sums totals and weights by name, in float64."""
  merged: dict[str, Pair] = {}
  for batch in batches:
    for name, (total, weight) in batch.items():
      old_total, old_weight = merged.setdefault(name, (0.0, 0.0))
      merged[name] = old_total + float(total), old_weight + float(weight)
  return merged


def mean(pairs: Mapping[str, Pair]) -> dict[str, float]:
  """Total by weight; nan where nothing was counted."""
  return {name: float(total) / float(weight) if weight else math.nan
          for name, (total, weight) in pairs.items()}


def perplexity(loss: float) -> float:
  """e to the mean loss in nats; infinite where that overflows."""
  try:
    return math.exp(loss)
  except OverflowError:
    return math.inf


def bits_per_byte(nats: float, size: float) -> float:
  """Summed loss in nats over the text it was paid for, in UTF-8 bytes.

  Unlike perplexity, comparable between tokenizers.
  """
  return nats / math.log(2) / size if size else math.nan


def accuracy(labels: np.ndarray, predictions: np.ndarray) -> float:
  return float(np.mean(labels == predictions))


def precision(labels: np.ndarray, predictions: np.ndarray) -> float:
  return _of_classes("precision_score", labels, predictions)


def recall(labels: np.ndarray, predictions: np.ndarray) -> float:
  return _of_classes("recall_score", labels, predictions)


def f1(labels: np.ndarray, predictions: np.ndarray) -> float:
  return _of_classes("f1_score", labels, predictions)


def _of_classes(function: str, labels, predictions) -> float:
  """Of class 1 where there are classes 0 and 1 only, else the classes' mean.

  Zero where its denominator is: nothing predicted, or nothing to find.
  """
  import sklearn.metrics  # Slow to import.
  binary = max(labels.max(), predictions.max()) <= 1
  return float(getattr(sklearn.metrics, function)(
      labels, predictions, average="binary" if binary else "macro",
      zero_division=0))


def matthews(labels: np.ndarray, predictions: np.ndarray) -> float:
  """Zero where labels or predictions are constant, as in scikit-learn."""
  import sklearn.metrics
  if _constant(labels) or _constant(predictions):
    return 0.0
  return float(sklearn.metrics.matthews_corrcoef(labels, predictions))


def pearson(labels: np.ndarray, predictions: np.ndarray) -> float:
  """nan where labels or predictions are constant."""
  if _constant(labels) or _constant(predictions):
    return math.nan
  return float(np.corrcoef(labels, predictions)[0, 1])


def spearman(labels: np.ndarray, predictions: np.ndarray) -> float:
  """Pearson of the ranks, equal values sharing theirs; nan as there."""
  import scipy.stats
  return pearson(scipy.stats.rankdata(labels),
                 scipy.stats.rankdata(predictions))


def _constant(values: np.ndarray) -> bool:
  return bool(np.all(values == values[0]))


def entities(tags: Tags) -> set[tuple[int, int, str]]:
  """(start, end, kind) of every chunk of B-, I- and O tags, as conlleval.

  An I- that continues no chunk of its kind begins one, so that IOB1 and IOB2
  are both read. (Tjong Kim Sang and Buchholz 2000, conlleval.)
  """
  found, start, open_kind = set(), 0, None
  for i, tag in enumerate([*tags, "O"]):
    prefix, _, kind = tag.partition("-")
    if prefix == "I" and kind == open_kind:
      continue
    if open_kind is not None:
      found.add((start, i, open_kind))
    start, open_kind = i, None if prefix == "O" else kind
  return found


def _count_entities(
    labels: Sequence[Tags], predictions: Sequence[Tags]
) -> tuple[int, int, int]:
  """How many entities are right, predicted, and to be found."""
  pairs = [(entities(label), entities(prediction))
           for label, prediction in zip(labels, predictions, strict=True)]
  return (sum(len(label & prediction) for label, prediction in pairs),
          sum(len(prediction) for _, prediction in pairs),
          sum(len(label) for label, _ in pairs))


def entity_precision(
    labels: Sequence[Tags], predictions: Sequence[Tags]
) -> float:
  right, predicted, _ = _count_entities(labels, predictions)
  return right / max(predicted, 1)


def entity_recall(labels: Sequence[Tags], predictions: Sequence[Tags]) -> float:
  right, _, wanted = _count_entities(labels, predictions)
  return right / max(wanted, 1)


def entity_f1(labels: Sequence[Tags], predictions: Sequence[Tags]) -> float:
  right, predicted, wanted = _count_entities(labels, predictions)
  return 2 * right / max(predicted + wanted, 1)


def tag_accuracy(labels: Sequence[Tags], predictions: Sequence[Tags]) -> float:
  """The share of words with the right tag."""
  right = [label == prediction
           for pair in zip(labels, predictions, strict=True)
           for label, prediction in zip(*pair, strict=True)]
  return float(np.mean(right))


# Of one label an example: whole numbers, for the correlations also real ones.
OF_LABELS: dict[str, Callable[..., float]] = {
    function.__name__: function for function in
    (accuracy, precision, recall, f1, matthews, pearson, spearman)}
# Of one sequence of tags an example.
OF_TAGS: dict[str, Callable[..., float]] = {
    function.__name__: function for function in
    (tag_accuracy, entity_precision, entity_recall, entity_f1)}


def scores(
    names: Iterable[str], labels: Sequence, predictions: Sequence
) -> dict[str, float]:
  """Scores of a whole data set by the names in OF_LABELS and OF_TAGS.

  Args:
    names: what to compute.
    labels: one label or one sequence of tags for every example.
    predictions: likewise.

  Returns:
    A number for every name; nan where there is no example at all.

  Raises:
    UserError: a name is unknown.
  """
  known = OF_LABELS | OF_TAGS
  result = {}
  for name in names:
    if name not in known:
      raise UserError(f"unknown metric {name!r}{nearest(name, known)}")
    arrays = ((np.asarray(labels), np.asarray(predictions))
              if name in OF_LABELS else (labels, predictions))
    result[name] = known[name](*arrays) if len(labels) else math.nan
  return result
