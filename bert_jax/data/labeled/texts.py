"""The kinds "classification" and "regression": a label for each text."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np

from bert_jax.data.batches.spec import Key
from bert_jax.data.labeled.base import LabeledSet, Records
from bert_jax.data.labeled.encoded import Encoded, encode_texts
from bert_jax.data.records import columns as fields
from bert_jax.data.records.columns import Columns, clean
from bert_jax.data.records.tables import Table
from bert_jax.metrics.scores import score


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class TextSet(LabeledSet):
  """Texts or pairs of texts with one label each.

  Attributes:
    texts_a, texts_b: the texts; the second of each pair, or None.
  """

  texts_a: list[str]
  texts_b: list[str] | None = None
  score_names: ClassVar[tuple[str, ...]]

  @classmethod
  def parse(cls, table: Table, columns: Columns,
            label_names: tuple[str, ...]) -> "TextSet":
    # Without labels nothing is learned, and every record gets an answer.
    text = fields.some_text if columns.label else fields.text
    readers = {"texts_a": ([columns.text], text)}
    if columns.pair:
      readers["texts_b"] = ([columns.pair], text)
    if columns.label:
      label_names = cls.names_of(table.column(columns.label), columns,
                                 label_names)
      readers["labels"] = ([columns.label], cls.label(columns, label_names))
    table, values = clean(table, columns.bad_records, readers)
    if columns.label:
      values["labels"] = np.array(values["labels"],
                                  cls.keys["labels"].dtype)
    return cls(names=table.names(), table=table, label_names=label_names,
               **values)

  @classmethod
  def names_of(cls, labels: list[Any], columns: Columns,
               label_names: tuple[str, ...]) -> tuple[str, ...]:
    """The names of the labels, of those found if none are given."""
    return label_names or fields.labels_in(labels)

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

  def labels_X(self) -> np.ndarray:
    """The labels, or what stands for none."""
    if self.labels is not None:
      return self.labels
    key = self.keys["labels"]
    return np.full(len(self), key.fill, key.dtype)

  def scores(self, outputs: Any) -> dict[str, float]:
    if self.labels is None:
      return {}
    return {name: score(name, self.labels, self.decided(outputs))
            for name in self.score_names}

  def decided(self, outputs: np.ndarray) -> np.ndarray:
    """The outputs as labels."""
    return outputs


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class ClassificationSet(TextSet):
  """One class for each text or pair; outputs: probabilities (X, C)."""

  kind: ClassVar = "classification"
  order_key: ClassVar = "class"
  keys: ClassVar = LabeledSet.keys | {"labels": Key(np.int32, "E", fill=-1)}
  score_names: ClassVar = ("accuracy", "f1", "precision", "recall",
                           "matthews")

  def classes_X(self) -> np.ndarray:
    return self.labels_X()

  def decided(self, outputs: np.ndarray) -> np.ndarray:
    return np.argmax(outputs, axis=-1)

  def predictions(self, outputs: np.ndarray) -> Records:
    names = self.label_names
    return (["predicted_label", *(f"probability_{name}" for name in names)],
            [[names[best], *map(float, p)]
             for best, p in zip(self.decided(outputs), outputs)])

  @classmethod
  def describe_label(cls, row: Mapping[str, np.ndarray], example: int,
                     label_names: Sequence[str]) -> str:
    label = row["labels"][example]
    return "no label" if label < 0 else label_names[label]


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class RegressionSet(TextSet):
  """A number for each text or pair; outputs: numbers (X,)."""

  kind: ClassVar = "regression"
  order_key: ClassVar = "number"
  keys: ClassVar = LabeledSet.keys | {"labels": Key(np.float32, "E")}
  score_names: ClassVar = ("pearson", "spearman")

  @classmethod
  def names_of(cls, labels: list[Any], columns: Columns,
               label_names: tuple[str, ...]) -> tuple[str, ...]:
    return ()

  @classmethod
  def label(cls, columns: Columns, label_names: tuple[str, ...]) -> Any:
    return fields.number

  def predictions(self, outputs: np.ndarray) -> Records:
    return ["predicted_value"], [[float(value)] for value in outputs]

  @classmethod
  def describe_label(cls, row: Mapping[str, np.ndarray], example: int,
                     label_names: Sequence[str]) -> str:
    return f"{row['labels'][example]:g}"
