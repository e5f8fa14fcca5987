"""Scores of tasks, most of them scikit-learn's.

Every score is defined for every input with an example: where a denominator is
zero it is what its docstring says, without a warning.
"""

import math
from collections.abc import Callable, Sequence

import numpy as np

from bert_jax.config import UserError, nearest


def accuracy(labels: np.ndarray, predictions: np.ndarray) -> float:
  return float(np.mean(labels == predictions))


def _of_classes(name: str, labels: np.ndarray, predictions: np.ndarray,
                classes: int) -> float:
  """Of class 1 where two classes are declared, else the mean over all that
  are, whichever of them occur.

  Zero where its denominator is: nothing predicted, or nothing labeled.
  """
  import sklearn.metrics  # Slow to import.
  return float(getattr(sklearn.metrics, f"{name}_score")(
      labels, predictions, average="macro", zero_division=0,
      labels=[1] if classes == 2 else np.arange(classes)))


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
    (accuracy, matthews, pearson, spearman)}
_OF_CLASSES = "precision", "recall", "f1"


def score(name: str, labels: Sequence, predictions: Sequence,
          classes: int = 0) -> float:
  """A score of all examples of a data set.

  Args:
    name: accuracy, precision, recall, f1, matthews, pearson or spearman.
    labels: one number an example: of a class, or for the correlations any.
    predictions: likewise.
    classes: the number of classes that are declared, for scores of classes.

  Returns:
    The score; nan where there is no example.

  Raises:
    UserError: the name is unknown.
  """
  if name not in (*_SCORES, *_OF_CLASSES):
    raise UserError(f"unknown score {name!r}"
                    + nearest(name, (*_SCORES, *_OF_CLASSES)))
  if not len(labels):
    return math.nan
  labels, predictions = np.asarray(labels), np.asarray(predictions)
  if name in _OF_CLASSES:
    return _of_classes(name, labels, predictions, classes)
  return _SCORES[name](labels, predictions)


def label_set_scores(labels: np.ndarray,
                     predictions: np.ndarray) -> dict[str, float]:
  """Of sets of labels: F1 over all, the mean F1 of the classes, exact match.

  Args:
    labels: (X, C), above 0 where a class holds.
    predictions: likewise.

  A class that is neither a label nor predicted has F1 0. nan where there is no
  example. (scikit-learn's f1_score takes one column, (X, 1), for two classes.)
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
