"""The kinds "classification" and "regression": a label for each text."""

import dataclasses
import logging
import re
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np

from bert_jax.data.batches.spec import Key
from bert_jax.data.labeled.base import LabeledSet
from bert_jax.data.labeled.encoded import Encoded, encode_texts
from bert_jax.data.records import columns as fields
from bert_jax.data.records.columns import Columns, Field, clean
from bert_jax.data.records.tables import Table
from bert_jax.metrics.scores import score

# Begins the names of the columns in which `predict` writes probabilities.
PROBABILITY = "probability_"
_MANY_NUMBERS = 20
_LOG = logging.getLogger(__name__)


class OneLabel:
  """What holds of a label for each example, whatever the examples are."""

  def labels_X(self) -> np.ndarray:
    """The labels, or what stands for none."""
    if self.labels is not None:
      return self.labels
    key = self.keys["labels"]
    return np.full(len(self), key.fill, key.dtype)

  def scores(self, outputs: Any) -> dict[str, float]:
    if self.labels is None:
      return {}
    return {name: score(name, self.labels, self.decided(outputs),
                        len(self.label_names))
            for name in self.score_names}

  def decided(self, outputs: np.ndarray) -> np.ndarray:
    """The outputs as labels."""
    return outputs


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class TextSet(OneLabel, LabeledSet):
  """Texts or pairs of texts with one label each.

  Attributes:
    texts_a, texts_b: the texts; the second of each pair, or None.
  """

  texts_a: list[str]
  texts_b: list[str] | None = None

  @classmethod
  def parse(cls, table: Table, columns: Columns,
            label_names: tuple[str, ...]) -> "TextSet":
    readers = cls.text_fields(columns)
    if columns.label:
      label_names = cls.names_of(table, columns, label_names)
      readers["labels"] = ([columns.label], cls.label(columns, label_names))
    table, values = clean(table, columns.bad_records, readers)
    if columns.label:
      values["labels"] = np.array(values["labels"],
                                  cls.keys["labels"].dtype)
    return cls(names=table.names(), table=table, label_names=label_names,
               **values)

  @classmethod
  def text_fields(cls, columns: Columns) -> dict[str, Field]:
    """How the texts are read."""
    # Without labels nothing is learned, and every record gets an answer.
    text = fields.some_text if columns.label else fields.text
    readers = {"texts_a": ([columns.text], text)}
    if columns.pair:
      readers["texts_b"] = [columns.pair], text
    return readers

  @classmethod
  def names_of(cls, table: Table, columns: Columns,
               label_names: tuple[str, ...]) -> tuple[str, ...]:
    """The names of the labels; those of the table if none are given."""
    labels = table.column(columns.label)
    names = fields.labels_in(labels, table.source)
    if not label_names:
      _warn_of_numbers(table.source, names)
      _warn_of_header(table, columns)
    return label_names or names

  @classmethod
  def label(cls, columns: Columns, label_names: tuple[str, ...]) -> Any:
    """What makes a label of a field."""
    return fields.one_of(label_names)

  def texts(self) -> list[str]:
    return self.texts_a + (self.texts_b or [])

  def encode(self, tokenizer: Any, length: int) -> Encoded:
    tokens_T, slices = encode_texts(tokenizer, length, self.texts_a,
                                    self.texts_b)
    return Encoded(tokens_T, slices, of_examples={"labels": self.labels_X()})


def _warn_of_numbers(source: str, names: tuple[str, ...]) -> None:
  """Many classes that are numbers with decimals are rather measurements."""
  if len(names) > _MANY_NUMBERS and all(
      re.fullmatch(r"[-+]?\d*[.,]?\d+([eE][-+]?\d+)?", n) for n in names
      ) and not all(n.isdecimal() for n in names):
    _LOG.warning("%s: %d classes are numbers, as %s and %s. If they measure "
                 "something, set objective=regression.", source, len(names),
                 *names[:2])


def _warn_of_header(table: Table, columns: Columns) -> None:
  """A first line that numbered columns took for a record, though it may name
  them."""
  if columns.header is not None or columns.has_header or not table.lines:
    return
  labels = [fields.spelled(label) for label in table.column(columns.label)]
  if len(labels) > 2 and table.lines[0] == 1 and labels.count(labels[0]) == 1:
    _LOG.warning("%s: columns are given by number, so line 1, of the label %r, "
                 "is an example. If it names the columns, set "
                 "data.columns.header=true.", table.source, labels[0])


class OneClass(OneLabel):
  """One class for each example; outputs: probabilities (X, C)."""

  keys: ClassVar = LabeledSet.keys | {"labels": Key(np.int32, "E", fill=-1)}
  score_names: ClassVar = ("accuracy", "f1", "precision", "recall",
                           "matthews")

  def classes_X(self) -> np.ndarray:
    return self.labels_X()

  def decided(self, outputs: np.ndarray) -> np.ndarray:
    return np.argmax(outputs, axis=-1)

  def score_sums(self, name: str, outputs: np.ndarray
                 ) -> tuple[np.ndarray, np.ndarray] | None:
    answer_X = self.decided(outputs)
    if name == "accuracy":
      return (self.labels == answer_X).astype(float), np.ones(len(self))
    if name == "f1" and len(self.label_names) == 2:
      gold_X, given_X = (x.astype(float) for x in (self.labels, answer_X))
      return 2 * gold_X * given_X, gold_X + given_X
    return None

  def predicted_columns(self) -> list[str]:
    return ["predicted_label",
            *(f"{PROBABILITY}{name}" for name in self.label_names)]

  def predictions(self, outputs: np.ndarray) -> list[list[Any]]:
    return [[self.label_names[best], *map(float, p)]
            for best, p in zip(self.decided(outputs), outputs)]

  @classmethod
  def describe_label(cls, row: Mapping[str, np.ndarray], example: int,
                     label_names: Sequence[str]) -> str:
    label = row["labels"][example]
    return "no label" if label < 0 else label_names[label]


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class ClassificationSet(OneClass, TextSet):
  """One class for each text or pair; outputs: probabilities (X, C)."""

  kind: ClassVar = "classification"
  order_key: ClassVar = "class"


class OneNumber(OneLabel):
  """One number for each example; outputs: numbers (X,)."""

  keys: ClassVar = LabeledSet.keys | {"labels": Key(np.float32, "E")}
  score_names: ClassVar = ("pearson", "spearman")

  def distinct_labels(self) -> int:
    return len(np.unique(self.labels))

  def predicted_columns(self) -> list[str]:
    return ["predicted_value"]

  def predictions(self, outputs: np.ndarray) -> list[list[Any]]:
    return [[float(value)] for value in outputs]

  @classmethod
  def describe_label(cls, row: Mapping[str, np.ndarray], example: int,
                     label_names: Sequence[str]) -> str:
    return f"{row['labels'][example]:g}"


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class RegressionSet(OneNumber, TextSet):
  """A number for each text or pair; outputs: numbers (X,)."""

  kind: ClassVar = "regression"
  order_key: ClassVar = "number"

  @classmethod
  def names_of(cls, table: Table, columns: Columns,
               label_names: tuple[str, ...]) -> tuple[str, ...]:
    return ()

  @classmethod
  def label(cls, columns: Columns, label_names: tuple[str, ...]) -> Any:
    return fields.number
