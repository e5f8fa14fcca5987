"""The kind "multi_label": a text has any number of labels."""

import dataclasses
import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

import numpy as np

from bert_jax.config import UserError
from bert_jax.data.batches.spec import Key
from bert_jax.data.labeled.base import LabeledSet
from bert_jax.data.labeled.texts import TextSet
from bert_jax.data.records import columns as fields
from bert_jax.data.records.columns import Columns
from bert_jax.data.records.tables import Table
from bert_jax.metrics.scores import label_set_scores


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class MultiLabelSet(TextSet):
  """Labels (X, C), 1 for each that holds; outputs: probabilities (X, C).

  In a table the labels stand in one field with `columns.separator` between
  them (none: an empty field), in JSON lines also in a list.
  """

  kind: ClassVar = "multi_label"
  order_key: ClassVar = "classes"
  keys: ClassVar = LabeledSet.keys | {"labels": Key(np.float32, "EC")}
  score_names: ClassVar = ("micro_f1", "macro_f1", "exact_match")

  @classmethod
  def names_of(cls, table: Table, columns: Columns,
               label_names: tuple[str, ...]) -> tuple[str, ...]:
    names = fields.labels_in(itertools.chain.from_iterable(
        _several(value, columns.separator)
        for value in table.column(columns.label)), table.source)
    if not (label_names or names):
      raise UserError(f"The column {columns.label!r} has no label at all.")
    return label_names or names

  @classmethod
  def parse(cls, table: Table, columns: Columns,
            label_names: tuple[str, ...]) -> "MultiLabelSet":
    return dataclasses.replace(super().parse(table, columns, label_names),
                               separator=columns.separator)

  @classmethod
  def label(cls, columns: Columns,
            label_names: tuple[str, ...]) -> Callable[[Any], np.ndarray]:
    number = fields.one_of(label_names)

    def hot(value: Any) -> np.ndarray:
      labels_C = np.zeros(len(label_names), np.float32)
      names = _several(value, columns.separator)
      labels_C[[number(name) for name in names]] = 1
      return labels_C

    return hot

  def labels_X(self) -> np.ndarray:
    if self.labels is not None:
      return self.labels.reshape(-1, len(self.label_names))
    return np.zeros((len(self), len(self.label_names)), np.float32)

  def distinct_labels(self) -> int:
    return len(np.unique(self.labels, axis=0))

  @classmethod
  def describe_label(cls, row: Mapping[str, np.ndarray], example: int,
                     label_names: Sequence[str]) -> str:
    return ",".join(_names(row["labels"][example], label_names)) or "no label"

  def scores(self, outputs: np.ndarray) -> dict[str, float]:
    if self.labels is None:
      return {}
    return label_set_scores(self.labels, outputs > 0.5)

  def predicted_columns(self) -> list[str]:
    return ["predicted_labels",
            *(f"probability_{name}" for name in self.label_names)]

  def predicted_values(self) -> list[Any]:
    return [list(self.label_names)]

  def predictions(self, outputs: np.ndarray) -> list[list[Any]]:
    return [[_names(p, self.label_names), *map(float, p)] for p in outputs]


def _several(value: Any, separator: str) -> list[str]:
  values = (value if isinstance(value, list)
            else fields.spelled(value).split(separator))
  return [name for name in (fields.spelled(v).strip() for v in values) if name]


def _names(probability_C: np.ndarray, label_names: Sequence[str]) -> list[str]:
  return [name for name, p in zip(label_names, probability_C) if p > 0.5]
