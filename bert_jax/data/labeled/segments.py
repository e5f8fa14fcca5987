"""Kinds whose examples have several segments, each with its own [CLS].

All segments of an example lie in one row, and none attends to another; each
has an equal share of the row's tokens at most.
"""

import dataclasses
import functools
import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

import numpy as np

from bert_jax.config import UserError
from bert_jax.data.labeled.base import LabeledSet
from bert_jax.data.labeled.texts import ClassificationSet, RegressionSet
from bert_jax.data.labeled.encoded import (
    Encoded, encode_texts, flatten, paired, room)
from bert_jax.data.records import columns as fields
from bert_jax.data.records.bad_records import Fault
from bert_jax.data.records.columns import Columns, clean
from bert_jax.data.records.tables import Table
from bert_jax.metrics import retrieval
from bert_jax.metrics.scores import accuracy, score


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class MultipleChoiceSet(LabeledSet):
  """Which choice continues, or answers, a text; outputs: (X, choices).

  Attributes:
    texts_a: the contexts.
    choices: as many of each example; where `columns.pair` names a column,
      each begins with that text (SWAG's).
    labels: int32 (X,), the number of the right choice.
    label_names: what a file calls the choices; unless given, 0, 1, ...
  """

  kind: ClassVar = "multiple_choice"
  order_key: ClassVar = "choice"
  keys: ClassVar = ClassificationSet.keys
  score_names: ClassVar = ("accuracy",)
  texts_a: list[str]
  choices: list[list[str]]

  @classmethod
  def parse(cls, table: Table, columns: Columns,
            label_names: tuple[str, ...]) -> "MultipleChoiceSet":
    if not columns.choices:
      raise UserError("data.columns.choices: name the columns of the choices, "
                      "as in data.columns.choices=choice1,choice2.")
    text = fields.some_text if columns.label else fields.text
    count = len(label_names) or _count(table, columns.choices)
    label_names = label_names or tuple(map(str, range(count)))
    begin = [columns.pair] if columns.pair else []
    readers = {
        "texts_a": ([columns.text], text),
        "choices": ([*begin, *columns.choices], functools.partial(
            _choices, text, count, len(begin)))}
    if columns.label:
      readers["labels"] = ([columns.label], fields.one_of(label_names))
    table, values = clean(table, columns.bad_records, readers)
    if columns.label:
      values["labels"] = np.array(values["labels"], np.int32)
    return cls(names=table.names(), table=table, label_names=label_names,
               **values)

  def texts(self) -> list[str]:
    return [*self.texts_a, *itertools.chain.from_iterable(self.choices)]

  def encode(self, tokenizer: Any, length: int) -> Encoded:
    count, examples = len(self.label_names), len(self)
    tokens_T, starts = flatten(tokenizer.encode(self.texts()))
    lengths = np.diff(starts)
    a = np.repeat(np.arange(examples), count)
    slices = paired(tokenizer, starts[a], starts[examples:-1], lengths[a],
                    lengths[examples:], room(tokenizer, length // count, True))
    labels_X = (np.full(examples, -1, np.int32) if self.labels is None
                else self.labels)
    return Encoded(tokens_T, slices, count, {"labels": labels_X})

  @classmethod
  def segments(cls, label_names: Sequence[str]) -> int:
    return len(label_names)

  def distinct_labels(self) -> int:
    return len(self.label_names)  # Of one choice, there is nothing to choose.

  describe_label = ClassificationSet.describe_label

  def scores(self, outputs: np.ndarray) -> dict[str, float]:
    if self.labels is None:
      return {}
    return {"accuracy": accuracy(self.labels, np.argmax(outputs, -1))}

  def predicted_columns(self) -> list[str]:
    return ["predicted_choice",
            *(f"probability_{name}" for name in self.label_names)]

  def predictions(self, outputs: np.ndarray) -> list[list[Any]]:
    return [[self.label_names[int(np.argmax(p))], *map(float, p)]
            for p in outputs]


def _count(table: Table, columns: Sequence[str]) -> int:
  """How many choices the examples have."""
  if len(columns) > 1:
    return len(columns)
  return next((len(value) for value in table.column(columns[0])
               if isinstance(value, list)), 1)


def _choices(text: Callable[[Any], str], count: int, begins: int,
             *values: Any) -> list[str]:
  begin, choices = values[:begins], list(values[begins:])
  if len(choices) == 1 and isinstance(choices[0], list):
    choices = choices[0]
  if len(choices) != count:
    raise Fault("with another number of choices",
                lambda: f"{len(choices)} choices, not {count}")
  return [" ".join([*map(fields.text, begin), text(c)]) for c in choices]


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class EmbeddingSet(RegressionSet):
  """Texts or pairs to be embedded, each for itself; outputs: (X, 1 or 2, D).

  Attributes:
    labels: how alike the texts of a pair are, float32 (X,); None: the second
      text is what a search by the first one should find.
  """

  kind: ClassVar = "embedding"
  order_key: ClassVar = "vectors"
  score_names: ClassVar = RegressionSet.score_names + retrieval.SCORES

  def encode(self, tokenizer: Any, length: int) -> Encoded:
    segments = 1 if self.texts_b is None else 2
    texts = (self.texts_a if self.texts_b is None else
             [t for pair in zip(self.texts_a, self.texts_b) for t in pair])
    tokens_T, slices = encode_texts(tokenizer, length // segments, texts, None)
    return Encoded(tokens_T, slices, segments, {"labels": self.labels_X()})

  @classmethod
  def segments(cls, label_names: Sequence[str]) -> int:
    return 2

  @classmethod
  def describe_label(cls, row: Mapping[str, np.ndarray], example: int,
                     label_names: Sequence[str]) -> str:
    return f"{row['labels'][example]:g}"

  def scores(self, outputs: np.ndarray) -> dict[str, float]:
    if self.texts_b is None:
      return {}
    if self.labels is None:
      return retrieval.retrieval_scores(outputs[:, 0], outputs[:, 1])
    cosine_X = (outputs[:, 0] * outputs[:, 1]).sum(-1)
    return {name: score(name, self.labels, cosine_X)
            for name in RegressionSet.score_names}

  def predicted_columns(self) -> list[str]:
    return ["vector" if self.texts_b is None else "cosine"]

  def predictions(self, outputs: np.ndarray) -> list[list[Any]]:
    if self.texts_b is None:
      return [[[float(f"{x:.6g}") for x in v[0]]] for v in outputs]
    return [[float(v[0] @ v[1])] for v in outputs]
