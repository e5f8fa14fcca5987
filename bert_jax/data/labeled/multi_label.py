"""The kind "multi_label": a text has any number of labels."""

import dataclasses
import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

import numpy as np

from bert_jax.config import UserError
from bert_jax.data.batches.spec import Key
from bert_jax.data.labeled.base import LabeledSet, Records
from bert_jax.data.labeled.texts import TextSet
from bert_jax.data.records import columns as fields
from bert_jax.data.records.columns import Columns
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

  @classmethod
  def names_of(cls, labels: list[Any], columns: Columns,
               label_names: tuple[str, ...]) -> tuple[str, ...]:
    names = label_names or fields.labels_in(itertools.chain.from_iterable(
        _several(value, columns.separator) for value in labels))
    if not names:
      raise UserError(f"The column {columns.label!r} has no label at all.")
    return names

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

  @classmethod
  def describe_label(cls, row: Mapping[str, np.ndarray], example: int,
                     label_names: Sequence[str]) -> str:
    return _names(row["labels"][example], label_names) or "no label"

  def scores(self, outputs: np.ndarray) -> dict[str, float]:
    if self.labels is None:
      return {}
    return label_set_scores(self.labels, outputs > 0.5)

  def predictions(self, outputs: np.ndarray) -> Records:
    names = self.label_names
    return (["predicted_labels", *(f"probability_{name}" for name in names)],
            [[_names(p, names), *map(float, p)] for p in outputs])


def _several(value: Any, separator: str) -> list[str]:
  values = (value if isinstance(value, list)
            else fields.spelled(value).split(separator))
  return [name for name in (fields.spelled(v).strip() for v in values) if name]


def _names(probability: np.ndarray, label_names: Sequence[str]) -> str:
  return ",".join(n for n, p in zip(label_names, probability) if p > 0.5)
