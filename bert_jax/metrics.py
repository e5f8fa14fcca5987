"""What is counted: (total, weight) pairs, and the scores of tasks.

Pairs add up over microbatches, devices, hosts and batches, where means of
means would be wrong. Every score is defined for every input that has an
example: where a denominator is zero it is what its docstring says, without a
warning.
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
      old_total, old_weight = merged.get(name, (0.0, 0.0))
      merged[name] = old_total + float(total), old_weight + float(weight)
  return merged


def summarize(pairs: Mapping[str, Pair]) -> dict[str, float]:
  """Means, and `loss`: the sum of the means of its parts, as L = L_MLM + L_NSP.

  With `mlm_loss` comes the perplexity.
  """
  means = {name: total / weight if weight else math.nan
           for name, (total, weight) in pairs.items()}
  if "mlm_loss" in means:
    means["perplexity"] = perplexity(means["mlm_loss"])
  return {"loss": sum(value for name, value in means.items()
                      if name.endswith("_loss")), **means}


def perplexity(loss: float) -> float:
  """e to the mean loss in nats; infinite where that overflows."""
  try:
    return math.exp(loss)
  except OverflowError:
    return math.inf


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


_SCORES: dict[str, Callable[[np.ndarray, np.ndarray], float]] = {
    function.__name__: function for function in
    (accuracy, precision, recall, f1, matthews, pearson, spearman)}


def score(name: str, labels: Sequence, predictions: Sequence) -> float:
  """One score of a whole data set.

  Args:
    name: accuracy, precision, recall, f1, matthews, pearson or spearman.
    labels: one number an example: of a class, or for the correlations any.
    predictions: likewise.

  Returns:
    The score; nan where there is no example.

  Raises:
    UserError: the name is unknown.
  """
  if name not in _SCORES:
    raise UserError(f"unknown score {name!r}{nearest(name, _SCORES)}")
  if not len(labels):
    return math.nan
  return _SCORES[name](np.asarray(labels), np.asarray(predictions))


def label_set_scores(labels: np.ndarray,
                     predictions: np.ndarray) -> dict[str, float]:
  """Of sets of labels: F1 over all, the classes' mean F1, and exact match.

  Args:
    labels: (X, C), true where a class holds.
    predictions: likewise.

  As scikit-learn's f1_score: a class that nobody has and nobody predicts has
  0. nan where there is no example.
  """
  if not len(labels):
    return dict.fromkeys(("micro_f1", "macro_f1", "exact_match"), math.nan)
  labels, predictions = labels > 0, predictions > 0
  hits_C = (labels & predictions).sum(0)
  both_C = labels.sum(0) + predictions.sum(0)
  return {
      "micro_f1": float(2 * hits_C.sum() / max(both_C.sum(), 1)),
      "macro_f1": float(np.mean(2 * hits_C / np.maximum(both_C, 1))),
      "exact_match": float((labels == predictions).all(-1).mean())}


def retrieval_scores(queries: np.ndarray,
                     passages: np.ndarray) -> dict[str, float]:
  """How well query i finds passage i among all, by the product of vectors.

  Args:
    queries, passages: (X, D).

  Passages as near as the right one count as nearer, but for copies of it. nan
  where there is no example.
  """
  ranks = []
  for begin in range(0, len(queries), 1024):
    block = queries[begin:begin + 1024] @ passages.T
    rows = np.arange(len(block))
    own = passages[begin + rows]
    score = block[rows, begin + rows]
    nearer = block >= score[:, None]
    for i in rows:
      rivals = np.flatnonzero(nearer[i])
      ranks.append(1 + (~(passages[rivals] == own[i]).all(-1)).sum())
  rank_X = np.array(ranks, np.float64)
  if not len(rank_X):
    return dict.fromkeys(("mrr", "recall_1", "recall_10"), math.nan)
  return {"mrr": float((1 / rank_X).mean()),
          "recall_1": float((rank_X <= 1).mean()),
          "recall_10": float((rank_X <= 10).mean())}


def entities(tags: Tags) -> set[tuple[int, int, str]]:
  """(start, end, kind) of every chunk of B-, I- and O tags, as conlleval.

  An I- that continues no chunk of its kind begins one, so that IOB1 and IOB2
  are both read (Tjong Kim Sang and Buchholz 2000). No tag at all ("") is O.
  """
  found, start, open_kind = set(), 0, None
  for i, tag in enumerate([*tags, "O"]):
    prefix, _, kind = tag.partition("-")
    if prefix == "I" and kind == open_kind:
      continue
    if open_kind is not None:
      found.add((start, i, open_kind))
    start, open_kind = i, None if prefix in ("O", "") else kind
  return found


def entity_scores(
    labels: Sequence[Tags], predictions: Sequence[Tags]
) -> dict[str, float]:
  """What conlleval prints, of sentences of tags.

  An entity is right when bounds and kind are. Precision, recall and F1 are
  zero where their denominator is; `tag_accuracy` is the share of labelled words
  with the right tag, nan where there are none.
  """
  right = predicted = wanted = words = right_words = 0
  for label, prediction in zip(labels, predictions, strict=True):
    to_find, found = entities(label), entities(prediction)
    right += len(to_find & found)
    predicted += len(found)
    wanted += len(to_find)
    pairs = [pair for pair in zip(label, prediction, strict=True) if pair[0]]
    words += len(pairs)
    right_words += sum(a == b for a, b in pairs)
  return {
      "tag_accuracy": right_words / words if words else math.nan,
      "entity_precision": right / max(predicted, 1),
      "entity_recall": right / max(wanted, 1),
      "entity_f1": 2 * right / max(predicted + wanted, 1),
  }
