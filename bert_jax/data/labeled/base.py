"""Labeled sets: what is special about a kind of label lies in one class.

A kind says how its labels are read, where they lie in a row, how predictions
come back in the order of the examples, and what those are worth.

Dimensions: X examples, E of them in a row of L tokens.
"""

import dataclasses
import hashlib
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np

from bert_jax.config import UserError
from bert_jax.data.batches.spec import KEYS, Key, Keys
from bert_jax.data.batches.splits import held_out_names
from bert_jax.data.labeled import record_files
from bert_jax.data.labeled.augmentation import Augmentation, NoAugmentation
from bert_jax.data.labeled.encoded import Encoded
from bert_jax.data.labeled.rows import TaskRows
from bert_jax.data.records import formatting
from bert_jax.data.records.columns import Columns
from bert_jax.data.records.tables import Table

# Of each batch: what locates its predictions, and those of the objective.
Predicted = Sequence[tuple[Mapping[str, np.ndarray], np.ndarray]]
Records = tuple[list[str], list[list[Any]]]  # columns, and records
KINDS: dict[str, type["LabeledSet"]] = {}


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class LabeledSet:
  """A labeled set of X examples; a member for each kind of label.

  What holds something for each example is a list or an array, and nothing
  else is.

  Attributes:
    names: of the examples; what `split` goes by.
    labels: None if the set has none.
    label_names: the classes or tags in the order of their numbers.
    table: the records as they were read, for predictions beside them.
    separator: between the elements of a list where a file holds text alone.
  """

  kind: ClassVar[str]  # the name of the kind, under which it is in KINDS
  # Part of what rows are shuffled by: another one gives another order.
  order_key: ClassVar[str]
  # Whether `read` finds the examples in tables (TSV, JSON lines, ...).
  in_tables: ClassVar[bool] = True
  keys: ClassVar[Keys] = KEYS | {
      "example_index": Key(np.int32, "E", fill=-1, locates=True)}
  rows_type: ClassVar[type[TaskRows]] = TaskRows
  # Of what `scores` gives of a set with labels; None: not known before.
  score_names: ClassVar[tuple[str, ...] | None] = None
  names: list[str]
  labels: Any = None
  label_names: tuple[str, ...] = ()
  table: Table | None = None
  separator: str = " "

  def __init_subclass__(cls, **kwargs: Any):
    super().__init_subclass__(**kwargs)
    if "kind" in vars(cls):
      KINDS[cls.kind] = cls

  @classmethod
  def head_kind(cls) -> str:
    """The kind of labels that a head for these predicts."""
    return cls.kind

  @property
  def has_targets(self) -> bool:
    """Whether anything can be learned from it."""
    return self.labels is not None

  def __len__(self) -> int:
    return len(self.names)

  def subset(self, chosen: Sequence[int]) -> "LabeledSet":
    """These examples, in this order."""
    def pick(value: Any) -> Any:
      if isinstance(value, np.ndarray):
        return value[chosen]
      return [value[i] for i in chosen]

    fields = {field.name: getattr(self, field.name)
              for field in dataclasses.fields(self)}
    return dataclasses.replace(
        self, table=self.table and self.table.subset(chosen),
        **{name: pick(value) for name, value in fields.items()
           if isinstance(value, (list, np.ndarray))})

  @classmethod
  def read(cls, spec: str, columns: Columns,
           label_names: Sequence[str] = ()) -> "LabeledSet":
    """Reads a set (see `tables` for the formats).

    Args:
      label_names: the valid labels, those of the training set for any other;
        if empty, those found here, sorted.

    Raises:
      UserError: naming file, line and what would be valid.
    """
    return cls.parse(record_files.read_table(spec, columns.has_header), columns,
                     tuple(label_names))

  @classmethod
  def parse(cls, table: Table, columns: Columns,
            label_names: tuple[str, ...]) -> "LabeledSet":
    """The examples of a table."""
    raise NotImplementedError

  @classmethod
  def segments(cls, label_names: Sequence[str]) -> int:
    """Segments with a [CLS] that an example has at most."""
    return 1

  @classmethod
  def describe_label(cls, row: Mapping[str, np.ndarray], example: int,
                     label_names: Sequence[str]) -> str:
    """The label of an example in a row, in words; "" if nothing can be said."""
    return ""

  @classmethod
  def describe_token_label(cls, row: Mapping[str, np.ndarray], token: int,
                           label_names: Sequence[str]) -> str:
    """The label of a token; "" if it has none."""
    return ""

  def texts(self) -> list[str]:
    """All text, for a tokenizer to learn from."""
    raise NotImplementedError

  def encode(self, tokenizer: Any, length: int) -> Encoded:
    """The examples in tokens, each truncated to rows of `length`."""
    raise NotImplementedError

  def rows(self, tokenizer: Any, length: int, examples_per_row: int, seed: int,
           shuffle: bool = True,
           augmentation: Augmentation = NoAugmentation()) -> TaskRows:
    return self.rows_type(self, tokenizer, length, examples_per_row, seed,
                          shuffle, augmentation)

  def classes_X(self) -> np.ndarray:
    """What `subsample` draws as many of: classes, or 0 where there are none."""
    return np.zeros(len(self), np.int32)

  def counts_C(self) -> np.ndarray:
    """How often each label occurs."""
    return np.bincount(self.labels, minlength=len(self.label_names))

  def distinct_labels(self) -> int:
    """How many different labels the examples have."""
    return np.count_nonzero(self.counts_C())

  def collect(self, predicted: Predicted) -> Any:
    """Predictions in the order of the examples, (X, ...)."""
    return gathered(predicted, "example_index", len(self), "examples")

  def scores(self, outputs: Any) -> dict[str, float]:
    """The official metrics of what `collect` gave; {} without labels."""
    raise NotImplementedError

  @property
  def deciding_score(self) -> str | None:
    """The one that examples are compared by; None: not known before."""
    return self.score_names[0] if self.score_names else None

  def score_sums(self, name: str, outputs: Any
                 ) -> tuple[np.ndarray, np.ndarray] | None:
    """(totals_X, weights_X) of a score that is the ratio of their sums; None of
    others, as correlations."""
    return None

  def fingerprint(self) -> str:
    """Of texts and labels, wherever they were read and whatever tokenizer they
    are for."""
    content = hashlib.blake2b(digest_size=16)
    for field in dataclasses.fields(self):
      value = getattr(self, field.name)
      if field.name not in ("names", "table"):
        content.update(repr((field.name, _plain(value))).encode())
    return content.hexdigest()

  def predicted_columns(self) -> list[str]:
    """What `predict` writes beside what was read."""
    raise NotImplementedError

  def predictions(self, outputs: Any) -> list[list[Any]]:
    """Those columns, a record an example."""
    raise NotImplementedError

  def predicted_values(self) -> list[Any]:
    """Texts, or lists of them, that predictions are made of."""
    return list(self.label_names)

  def given(self) -> Records:
    """What was read."""
    return list(self.table.columns), self.table.records

  def check_output(self, path: str) -> None:
    """Raises UserError where `write` could not; before much is computed."""
    record_files.check_output(path)
    columns, records = self.given()
    formatting.format_table(
        path, [*columns, *self.predicted_columns()],
        [*records, *([value] for value in self.predicted_values())],
        self.separator)

  def write(self, path: str, outputs: Any) -> None:
    """Writes what was read, and beside it what `collect` gave, to a table."""
    columns, records = self.given()
    record_files.write_table(
        path, [*columns, *self.predicted_columns()],
        [[*record, *predicted] for record, predicted in zip(
            records, self.predictions(outputs), strict=True)], self.separator)


def _plain(value: Any) -> Any:
  """Arrays as lists, which `repr` spells out."""
  if isinstance(value, np.ndarray):
    return value.tolist()
  return list(map(_plain, value)) if isinstance(value, list) else value


def gathered(predicted: Predicted, index: str, count: int,
             units: str) -> np.ndarray:
  """Predictions in the order of their `index`, (count, ...).

  Raises:
    ValueError: not every one of the units has one prediction.
  """
  outputs = np.zeros((count, *predicted[0][1].shape[2:]), np.float32)
  count_N = np.zeros(count, np.int32)
  for places, predictions in predicted:
    real = places[index] >= 0
    outputs[places[index][real]] = predictions[real]
    np.add.at(count_N, places[index][real], 1)
  if (count_N != 1).any():
    raise ValueError(f"{(count_N != 1).sum()} of {count} {units} do not have "
                     "one prediction each.")
  return outputs


def split(labeled: LabeledSet, percent: float) -> tuple[LabeledSet, LabeledSet]:
  """Training and held-out part, by the hash of the examples' names.

  Raises:
    UserError: one of them is empty.
  """
  chosen = held_out_names(labeled.names, percent)
  out = [name in chosen for name in labeled.names]
  if len(set(out)) < 2:
    raise UserError(
        f"data.held_out_percent={percent:g} of {len(labeled)} examples leaves "
        f"none to {'train' if all(out) else 'evaluate'} on; name a file for "
        "evaluation by data.evaluation, or set another percentage.")
  return (labeled.subset([i for i, o in enumerate(out) if not o]),
          labeled.subset([i for i, o in enumerate(out) if o]))


def subsample(labeled: LabeledSet, shots: int | None, seed: int) -> LabeledSet:
  """`shots` examples of each class (None: all), another sample for each `seed`.

  They are drawn by the hash of their names: more of them keep those of fewer.
  Where examples have no class, `shots` in all. The order stays.
  """
  if shots is None:
    return labeled
  chosen: dict[int, list[int]] = {}
  by_hash = sorted(range(len(labeled)), key=lambda i: hashlib.blake2b(
      f"{seed} {labeled.names[i]}".encode(), digest_size=8).digest())
  class_X = labeled.classes_X().tolist()
  for i in by_hash:
    chosen.setdefault(class_X[i], []).append(i)
  for number, examples in chosen.items():
    if not 0 < shots <= len(examples):
      of = (f"of {labeled.label_names[number]!r}" if len(chosen) > 1
            else "examples")
      raise UserError(f"data.shots={shots}: there are {len(examples)} {of}.")
  return labeled.subset(sorted(
      i for examples in chosen.values() for i in examples[:shots]))
