"""SQuAD's scores: exact match and F1 of answers, and when to give none.

Equal to the official evaluate-v1.1.py and evaluate-v2.0.py, but for the unit:
fractions here, percents there.
"""

import collections
import re
import string
from collections.abc import Sequence

import numpy as np

_PUNCTUATION = str.maketrans("", "", string.punctuation)
_ARTICLES = re.compile(r"\b(a|an|the)\b")


def normalized(text: str) -> list[str]:
  """The words that count: lower case, no ASCII punctuation, no articles."""
  return _ARTICLES.sub(" ", text.lower().translate(_PUNCTUATION)).split()


def exact(answer: str, prediction: str) -> float:
  return float(normalized(answer) == normalized(prediction))


def f1(answer: str, prediction: str, none_is_a_word: bool = False) -> float:
  """Harmonic mean of the shares of words in common.

  0 where one of them has no words that count; by the rules of SQuAD 2.0
  (`none_is_a_word`) 1 if neither has.
  """
  answer_words, predicted_words = normalized(answer), normalized(prediction)
  if none_is_a_word and not (answer_words and predicted_words):
    return float(answer_words == predicted_words)
  common = (collections.Counter(answer_words)
            & collections.Counter(predicted_words))
  # The script's own order of operations, to the last digit.
  same = common.total()
  if not same:
    return 0.0
  precision, recall = same / len(predicted_words), same / len(answer_words)
  return 2 * precision * recall / (precision + recall)


def each(answers: Sequence[Sequence[str]], predictions: Sequence[str]
         ) -> tuple[np.ndarray, np.ndarray]:
  """(exact match, F1) of each question, against its best answer.

  Args:
    answers: the answers that are right; none where the question has no answer.
      One such question makes all be scored by the rules of SQuAD 2.0.
    predictions: "" for no answer.
  """
  empty = not all(answers)
  best = np.zeros((2, len(answers)))
  for i, (right, prediction) in enumerate(zip(answers, predictions,
                                              strict=True)):
    if empty:
      right = list(filter(normalized, right)) or [""]
    best[0, i] = max(exact(a, prediction) for a in right)
    best[1, i] = max(f1(a, prediction, empty) for a in right)
  return best[0], best[1]


def scores(answers: Sequence[Sequence[str]],
           predictions: Sequence[str]) -> dict[str, float]:
  """`exact` and `f1`; where some questions have no answer, also of those that
  have (HasAns_...) and of those that have not (NoAns_...)."""
  has_answer = np.array([bool(right) for right in answers])
  by_question = dict(zip(("exact", "f1"), each(answers, predictions)))
  means = {name: float(of_each.mean()) for name, of_each in by_question.items()}
  if has_answer.all():
    return means
  for part, chosen in (("HasAns", has_answer), ("NoAns", ~has_answer)):
    if chosen.any():
      means |= {f"{part}_{name}": float(of_each[chosen].mean())
                for name, of_each in by_question.items()}
  return means


def best_thresholds(answers: Sequence[Sequence[str]],
                    predictions: Sequence[str],
                    null_odds: Sequence[float]) -> dict[str, float]:
  """The best `exact` and `f1` over all thresholds of `null_odds`, and those
  thresholds: questions with larger odds are given no answer.

  Args:
    predictions: the answer to each question, were it given one.
    null_odds: how much more likely none is, in any unit.
  """
  answered = np.array([bool(prediction) for prediction in predictions])
  has_answer = np.array([bool(right) for right in answers])
  odds = np.asarray(null_odds, np.float64)
  order = np.argsort(odds, kind="stable")
  results = {}
  for name, of_each in zip(("exact", "f1"), each(answers, predictions)):
    # In the order of the odds, one question more is answered at a time.
    gained = np.where(has_answer, of_each, -answered.astype(float))[order]
    totals = np.cumsum([np.sum(~has_answer), *gained])
    best = int(np.argmax(totals))
    results |= {f"best_{name}": float(totals[best] / len(answers)),
              f"best_{name}_thresh": float(odds[order[best - 1]])
              if best else 0.0}
  return results
