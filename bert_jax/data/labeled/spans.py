"""Questions whose answers are spans of contexts, and the way back to them.

Answers are exact slices of the context, by the places of their tokens, where
google-research/bert's run_squad.py aligns detokenized text with it.
"""

import dataclasses
import json
import math
import pathlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar

import numpy as np

from bert_jax import files
from bert_jax.config import UserError
from bert_jax.data.batches.spec import Key
from bert_jax.data.labeled import record_files, windows
from bert_jax.data.labeled.base import LabeledSet, Predicted, Records
from bert_jax.data.labeled.windows import EncodedSpans, SpanOptions, SpanRows
from bert_jax.data.records.columns import Columns
from bert_jax.data.records.squad import Question
from bert_jax.metrics import squad


@dataclasses.dataclass(frozen=True)
class Answer:
  """A span of a context, in characters, and what the network gave it."""

  text: str
  start: int
  end: int
  start_logit: float
  end_logit: float

  @property
  def score(self) -> float:
    return self.start_logit + self.end_logit


@dataclasses.dataclass(frozen=True)
class SpanPrediction:
  """What was predicted for a question.

  Attributes:
    best: answers with different texts, the best first.
    null: that there is none (the [CLS] of the window most sure that there is
      one).
  """

  best: tuple[Answer, ...]
  null: Answer

  @property
  def text(self) -> str:
    """The best answer."""
    return self.best[0].text if self.best else ""

  @property
  def null_odds(self) -> float:
    """By how much none is preferred to the best answer, in logits."""
    return self.null.score - (self.best[0].score if self.best else 0.0)


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class SpanSet(LabeledSet):
  """Questions about contexts; outputs: X times `SpanPrediction`.

  Attributes:
    questions: with their contexts.
    labels: the answers that are right, none for a question without one; None
      if the set has no labels.
    names: of the articles, as a split goes by them.
  """

  kind: ClassVar = "span"
  order_key: ClassVar = "span"
  in_tables: ClassVar = False
  keys: ClassVar = LabeledSet.keys | {
      # The answer's first and last token in the row; both the window's [CLS]
      # where it does not hold the full answer.
      "start_positions": Key(np.int32, "E", fill=-1),
      "end_positions": Key(np.int32, "E", fill=-1),
      "question_index": Key(np.int32, "E", fill=-1, locates=True),
      # Where in the context an answer stands that begins or ends with this
      # token, -1 where none can.
      "answer_starts": Key(np.int32, "L", fill=-1, locates=True),
      "answer_ends": Key(np.int32, "L", fill=-1, locates=True)}
  rows_type: ClassVar = SpanRows
  # The later ones where some questions have no answer.
  score_names: ClassVar = tuple(
      squad.scores([("a",), ()], ["", ""])
      | squad.best_thresholds([("a",), ()], ["", ""], [0, 0]))
  questions: list[Question]
  options: SpanOptions = SpanOptions()

  @classmethod
  def of(cls, questions: Iterable[Question], options: SpanOptions,
         labeled: bool = True) -> "SpanSet":
    questions = list(questions)
    return cls(names=[q.article for q in questions], questions=questions,
               labels=[q.answers for q in questions] if labeled else None,
               options=options)

  @classmethod
  def read(cls, spec: str, columns: Columns,
           label_names: Sequence[str] = ()) -> "SpanSet":
    raise UserError(f"{spec}: answers that are spans of contexts are read by "
                    "data=squad.")

  @classmethod
  def describe_label(cls, row: Mapping[str, np.ndarray], example: int,
                     label_names: Sequence[str]) -> str:
    first, start, end = (int(row[key][example]) for key in (
        "cls_positions", "start_positions", "end_positions"))
    return ("no answer here" if start == first else
            f"answer in the tokens {start - first} to {end - first}")

  def texts(self) -> list[str]:
    return [*dict.fromkeys(q.context for q in self.questions),
            *(q.text for q in self.questions)]

  def encode(self, tokenizer: Any, length: int) -> EncodedSpans:
    return windows.encode(self.questions, self.options, tokenizer, length)

  def collect(self, predicted: Predicted) -> list[SpanPrediction]:
    spans = [[] for _ in self.questions]
    nulls = [(math.inf, 0.0, 0.0)] * len(self)
    for places, logits_BLF in predicted:
      for b, e in zip(*np.nonzero(places["example_index"] >= 0)):
        here = places["example_ids"][b] == e + 1
        logits, question = logits_BLF[b, here], places["question_index"][b, e]
        spans[question] += best_spans(
            logits, places["answer_starts"][b, here],
            places["answer_ends"][b, here], self.options.max_answer_length,
            self.options.n_best)
        start, end = logits[0].tolist()
        nulls[question] = min(nulls[question], (start + end, start, end))
    return [self._predict(question, of_question, Answer("", 0, 0, *null[1:]))
            for question, of_question, null in zip(
                self.questions, spans, nulls)]

  def _predict(self, question: Question, spans: list[Any],
             null: Answer) -> SpanPrediction:
    best = {}
    for span in sorted(spans, key=lambda s: (-s[2] - s[3], s[:2])):
      best.setdefault(question.context[span[0]:span[1]], span)
    kept = [Answer(text, *span) for text, span in best.items()]
    return SpanPrediction(tuple(kept[:self.options.n_best]), null)

  def answer(self, prediction: SpanPrediction) -> str:
    """What is answered; "": nothing."""
    threshold = self.options.null_threshold
    none = threshold is not None and prediction.null_odds > threshold
    return "" if none else prediction.text

  def scores(self, outputs: Sequence[SpanPrediction]) -> dict[str, float]:
    if self.labels is None:
      return {}
    scores = squad.scores(self.labels, [self.answer(f) for f in outputs])
    if all(self.labels):
      return scores
    return scores | squad.best_thresholds(
        self.labels, [f.text for f in outputs], [f.null_odds for f in outputs])

  def n_best(self, prediction: SpanPrediction) -> list[dict[str, Any]]:
    """The best answers with their probabilities among each other, as
    run_squad.py writes them."""
    null = self.options.null_threshold is not None or not prediction.best
    kept = sorted([*prediction.best, *[prediction.null] * null],
                  key=lambda a: -a.score)
    weights = [math.exp(a.score - kept[0].score) for a in kept]
    return [{"text": a.text, "probability": weight / sum(weights),
             "start_logit": a.start_logit, "end_logit": a.end_logit,
             "start": a.start, "end": a.end}
            for a, weight in zip(kept, weights)]

  def given(self) -> Records:
    return ["id", "question"], [[q.id, q.text] for q in self.questions]

  def distinct_labels(self) -> int:
    return len(self) + 1  # A place is another one in another text.

  def predicted_columns(self) -> list[str]:
    return ["predicted_answer", "probability", "start", "end", "null_odds"]

  def predicted_values(self) -> list[Any]:
    return [question.context for question in self.questions]

  def predictions(self, outputs: Sequence[SpanPrediction]) -> list[list[Any]]:
    records = []
    for of_question in outputs:
      answer = self.answer(of_question)
      chosen = next((one for one in self.n_best(of_question)
                     if one["text"] == answer), None)
      records.append([answer, *(chosen[key] for key in (
          "probability", "start", "end")), of_question.null_odds])
    return records

  def check_output(self, path: str) -> None:
    record_files.check_output(path, (".json", *record_files.WRITTEN))
    if pathlib.Path(path).suffix != ".json":
      super().check_output(path)

  def write(self, path: str, outputs: Sequence[SpanPrediction]) -> None:
    """A table, or for a .json file what the official scripts read.

    Beside `predictions.json` comes `nbest_predictions.json`, and where there
    may be no answer `null_odds_predictions.json`.
    """
    file = pathlib.Path(path)
    if file.suffix != ".json":
      return super().write(path, outputs)
    by_id = lambda values: json.dumps(
        dict(zip([q.id for q in self.questions], values)), indent=2,
        ensure_ascii=False)
    files.write_text(path, by_id(map(self.answer, outputs)))
    files.write_text(str(file.with_name(f"nbest_{file.name}")),
                     by_id(map(self.n_best, outputs)))
    if self.options.null_threshold is not None:
      files.write_text(str(file.with_name(f"null_odds_{file.name}")),
                       by_id(f.null_odds for f in outputs))


def best_spans(logits: np.ndarray, starts: np.ndarray, ends: np.ndarray,
               longest: int, count: int
               ) -> list[tuple[int, int, float, float]]:
  """(start, end, start logit, end logit) of a window's best spans.

  All spans are looked at, where run_squad.py pairs the best starts with the
  best ends.

  Args:
    logits: (tokens, 2).
    starts, ends: in characters, -1 where none can start or end.
    longest: tokens of a span at most.
    count: how many.
  """
  start = np.where(starts >= 0, logits[:, 0], -np.inf)
  end = np.where(ends >= 0, logits[:, 1], -np.inf)
  reach = np.lib.stride_tricks.sliding_window_view(
      np.concatenate([end, np.full(longest - 1, -np.inf)]), longest)
  score = (start[:, None] + reach).ravel()
  best = np.argpartition(-score, min(count, len(score)) - 1)[:count]
  first, further = np.divmod(best[np.isfinite(score[best])], longest)
  last = first + further
  return list(zip(starts[first].tolist(), ends[last].tolist(),
                  logits[first, 0].tolist(), logits[last, 1].tolist()))
