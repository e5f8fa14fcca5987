"""The kind "soft_labels": a probability of each class for each text."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

import numpy as np

from bert_jax.config import UserError
from bert_jax.data.batches.spec import Key
from bert_jax.data.labeled.encoded import Encoded
from bert_jax.data.labeled.texts import PROBABILITY, ClassificationSet
from bert_jax.data.records import columns as fields
from bert_jax.data.records.bad_records import Fault
from bert_jax.data.records.columns import Columns, clean
from bert_jax.data.records.tables import Table

_ROUNDING = 0.01  # what probabilities may add up to more or less than 1


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class SoftLabelSet(ClassificationSet):
  """Probabilities of classes, and a class where a table has its column, too.

  Where it has no column of probabilities, that of the class is 1.

  Attributes:
    probabilities: float32 (X, C); None: the labels say it.
  """

  kind: ClassVar[str] = "soft_labels"
  keys: ClassVar = ClassificationSet.keys | {
      "probabilities": Key(np.float32, "EC")}
  probabilities: np.ndarray | None = None

  @classmethod
  def parse(cls, table: Table, columns: Columns,
            label_names: tuple[str, ...]) -> "SoftLabelSet":
    soft = _soft_columns(table, columns)
    if not columns.label or not soft:
      return super().parse(table, columns, label_names)
    label_names, soft = _in_order(table.source, soft, label_names)
    readers = cls.text_fields(columns) | {
        "probabilities": (soft, _probabilities(len(label_names)))}
    if columns.label in table.columns:
      readers["labels"] = [columns.label], fields.one_of(label_names)
    table, values = clean(table, columns.bad_records, readers)
    values["probabilities"] = np.array(
        values["probabilities"], np.float32).reshape(-1, len(label_names))
    if "labels" in values:
      values["labels"] = np.array(values["labels"], np.int32)
    return cls(names=table.names(), table=table, label_names=label_names,
               **values)

  @classmethod
  def head_kind(cls) -> str:
    return ClassificationSet.kind

  @property
  def has_targets(self) -> bool:
    return super().has_targets or self.probabilities is not None

  def classes_X(self) -> np.ndarray:
    if self.labels is None and self.probabilities is not None:
      return self.probabilities.argmax(-1)
    return super().classes_X()

  def counts_C(self) -> np.ndarray:
    if self.labels is None:
      return self.probabilities.sum(0)
    return super().counts_C()

  def probabilities_XC(self) -> np.ndarray:
    """Those of each class; 0 where nothing is known."""
    if self.probabilities is not None:
      return self.probabilities
    numbers_1C = np.arange(len(self.label_names))[None]
    return (self.labels_X()[:, None] == numbers_1C).astype(np.float32)

  def encode(self, tokenizer: Any, length: int) -> Encoded:
    encoded = super().encode(tokenizer, length)
    return dataclasses.replace(encoded, of_examples={
        **encoded.of_examples, "probabilities": self.probabilities_XC()})

  @classmethod
  def describe_label(cls, row: Mapping[str, np.ndarray], example: int,
                     label_names: Sequence[str]) -> str:
    hard = super().describe_label(row, example, label_names)
    soft = ", ".join(f"{name} {p:.3g}" for name, p in zip(
        label_names, row["probabilities"][example]))
    return f"{hard} ({soft})"


def _soft_columns(table: Table, columns: Columns) -> list[str]:
  """The columns of probabilities; none where only the class is there."""
  if columns.probabilities:
    return list(columns.probabilities)
  return [name for name in table.columns if name.startswith(PROBABILITY)]


def _in_order(source: str, soft: list[str], label_names: tuple[str, ...]
              ) -> tuple[tuple[str, ...], list[str]]:
  """The labels' names, and the columns in their order.

  Raises:
    UserError: they are not those of the columns.
  """
  own = tuple(name.removeprefix(PROBABILITY) for name in soft)
  if not label_names and len(soft) > 1:
    return own, soft
  if not label_names:
    raise UserError(f"{source}: the column {soft[0]!r} holds lists of "
                    "probabilities; name their classes by objective.labels.")
  if sorted(own) == sorted(label_names):
    return label_names, [soft[own.index(name)] for name in label_names]
  if len(soft) in (1, len(label_names)) and not any(
      name.startswith(PROBABILITY) for name in soft):
    return label_names, soft
  raise UserError(f"{source}: the columns of probabilities are of "
                  f"{', '.join(own)}; the labels are {', '.join(label_names)}.")


def _probabilities(classes: int) -> Callable[..., np.ndarray]:
  """What makes probabilities of the fields of a record, or of one list."""

  def read(*values: Any) -> np.ndarray:
    several = fields.several(values[0]) if len(values) == 1 else values
    p_C = np.array([fields.number(value) for value in several])
    if len(p_C) != classes:
      raise Fault("with another number of probabilities", lambda: (
          f"{len(p_C)} probabilities of {classes} classes"))
    if p_C.min() < 0 or abs(p_C.sum() - 1) > _ROUNDING:
      raise Fault("with labels that are no probabilities", lambda: (
          f"{', '.join(map(str, several))}: at least 0, and 1 together"))
    return p_C / p_C.sum()

  return read
