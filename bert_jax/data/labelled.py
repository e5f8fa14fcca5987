"""Labelled sets: what is special about a kind of label lies in one class.

A kind says how its labels are read, where they lie in a row, how predictions
come back in the order of the examples, and what those are worth.

Dimensions: X examples, E of them in a row of L tokens; T tokens of the set. An
example may have several segments in its row, each with a [CLS] of its own.
"""

import dataclasses
import hashlib
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np

from bert_jax.config import UserError, nearest
from bert_jax.data import tables
from bert_jax.data.columns import Columns
from bert_jax.data.documents import held_out
from bert_jax.data.formats import Examples
from bert_jax.data.rows import Rows, assemble
from bert_jax.data.tables import Table

# Of each batch: its keys of evaluate.PLACES, and the objective's predictions.
Predicted = Sequence[tuple[Mapping[str, np.ndarray], np.ndarray]]
Records = tuple[list[str], list[list[Any]]]  # columns, and records
KINDS: dict[str, type["Labelled"]] = {}


@dataclasses.dataclass(frozen=True, eq=False)
class Encoded:
  """A labelled set in tokens.

  Attributes:
    tokens_T: all texts end to end.
    slices: the texts of every segment, `segments` of them for each example.
    of_examples: by batch key, an array that leads with X; in a row it leads
      with E.
    of_tokens: by batch key, int32 (T,); in a row (L,), at the tokens of each
      segment's first text.
    positions: by batch key, int32 (X,): a place counted from the example's
      first [CLS]; in a row (E,), counted from the row's beginning.

  Where nothing is, a row has -1 (whole numbers) or 0.
  """

  tokens_T: np.ndarray
  slices: Examples
  segments: int = 1
  of_examples: Mapping[str, np.ndarray] = dataclasses.field(
      default_factory=dict)
  of_tokens: Mapping[str, np.ndarray] = dataclasses.field(default_factory=dict)
  positions: Mapping[str, np.ndarray] = dataclasses.field(default_factory=dict)

  def __len__(self) -> int:
    return len(self.slices) // self.segments

  @property
  def lengths_X(self) -> np.ndarray:
    """Tokens of each example with all its special ones."""
    return self.slices.lengths_X.reshape(-1, self.segments).sum(1)

  def arrays(self) -> list[np.ndarray]:
    slices = self.slices
    return [self.tokens_T, slices.a_start_X, slices.lengths_X,
            *self.of_examples.values(), *self.of_tokens.values(),
            *self.positions.values()]


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class Labelled:
  """A labelled set of X examples; a member for each kind of label.

  What holds something for each example is a list or an array, and nothing
  else is.

  Attributes:
    names: of the examples; what `split` goes by.
    labels: None if the set has none.
    label_names: the classes or tags in the order of their numbers.
    table: the records as they were read, for predictions beside them.
  """

  kind: ClassVar[str]
  names: list[str]
  labels: Any = None
  label_names: tuple[str, ...] = ()
  table: Table | None = None

  def __init_subclass__(cls, **kwargs: Any):
    super().__init_subclass__(**kwargs)
    if "kind" in vars(cls):
      KINDS[cls.kind] = cls

  def __len__(self) -> int:
    return len(self.names)

  def subset(self, chosen: Sequence[int]) -> "Labelled":
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
           label_names: Sequence[str] = ()) -> "Labelled":
    """Reads a set (see `tables` for the formats).

    Args:
      label_names: the valid labels, those of the training set for any other;
        if empty, those found here, sorted.

    Raises:
      UserError: naming file, line and what would be valid.
    """
    return cls.parse(tables.read_table(spec, columns.has_header), columns,
                     tuple(label_names))

  @classmethod
  def parse(cls, table: Table, columns: Columns,
            label_names: tuple[str, ...]) -> "Labelled":
    """The examples of a table."""
    raise NotImplementedError

  @classmethod
  def blank(cls, length: int, examples: int,
            label_names: Sequence[str]) -> dict[str, np.ndarray]:
    """The batch keys of its own that an empty row has."""
    raise NotImplementedError

  @classmethod
  def told(cls, row: Mapping[str, np.ndarray], example: int,
           label_names: Sequence[str]) -> str:
    """The label of an example in a row, in words; "" if nothing can be said."""
    return ""

  def texts(self) -> list[str]:
    """All text, for a tokenizer to learn from."""
    raise NotImplementedError

  def encode(self, tokenizer: Any, length: int) -> Encoded:
    """The examples in tokens, each truncated to rows of `length`."""
    raise NotImplementedError

  def rows(self, tokenizer: Any, length: int, examples_per_row: int, seed: int,
           shuffle: bool = True) -> Rows:
    return TaskRows(self, tokenizer, length, examples_per_row, seed, shuffle)

  def collect(self, predicted: Predicted) -> Any:
    """Predictions in the order of the examples, (X, ...)."""
    shape = predicted[0][1].shape[2:]
    found = np.zeros((len(self), *shape), np.float32)
    for places, predictions in predicted:
      real_BE = places["example_index"] >= 0
      found[places["example_index"][real_BE]] = predictions[real_BE]
    return found

  def scores(self, found: Any) -> dict[str, float]:
    """The official metrics of what `collect` gave; {} without labels."""
    raise NotImplementedError

  def predictions(self, found: Any) -> Records:
    """What `predict` writes beside what was read, a record an example."""
    raise NotImplementedError

  def given(self) -> Records:
    """What was read."""
    return list(self.table.columns), self.table.records

  def write(self, path: str, found: Any) -> None:
    """Writes what was read, and beside it what `collect` gave, to a table."""
    (given, records), (columns, beside) = self.given(), self.predictions(found)
    tables.write_table(path, [*given, *columns],
                       [[*r, *b] for r, b in zip(records, beside)])


def kind_of(name: str) -> type[Labelled]:
  if name not in KINDS:
    raise UserError(f"unknown kind of label {name!r}" + nearest(name, KINDS))
  return KINDS[name]


def split(labelled: Labelled, percent: float) -> tuple[Labelled, Labelled]:
  """Training and held-out part, by the hash of the examples' names."""
  out = [held_out(name, percent) for name in labelled.names]
  return (labelled.subset([i for i, o in enumerate(out) if not o]),
          labelled.subset([i for i, o in enumerate(out) if o]))


def first(labelled: Labelled, count: int | None) -> Labelled:
  """So many examples (None: all), drawn by the hash of their names.

  A larger count keeps those of a smaller one; the order stays.
  """
  if count is None:
    return labelled
  if not 0 < count <= len(labelled):
    raise UserError(f"{count} examples are wanted of a set of {len(labelled)}.")
  by_hash = sorted(range(len(labelled)), key=lambda i: hashlib.blake2b(
      f"first {labelled.names[i]}".encode(), digest_size=8).digest())
  return labelled.subset(sorted(by_hash[:count]))


class TaskRows(Rows):
  """Rows of a labelled set; every example once in an epoch, packed.

  Beside the keys of every row: `example_index` (int32 (E,), -1 where none) and
  what the kind's `encode` says.
  """

  def __init__(self, labelled: Labelled, tokenizer: Any, length: int,
               examples_per_row: int, seed: int, shuffle: bool = True):
    if not len(labelled):
      raise UserError("The labelled set has no examples.")
    self.vocabulary = tokenizer.vocabulary
    self.encoded = labelled.encode(tokenizer, length)
    content = hashlib.blake2b(
        repr((labelled.kind, labelled.label_names)).encode())
    for array in self.encoded.arrays():
      content.update(np.ascontiguousarray(array).tobytes())
    super().__init__(length, examples_per_row, seed, shuffle,
                     (content.hexdigest(), tokenizer.fingerprint))

  def examples(self, epoch: int) -> Encoded:
    return self.encoded

  def _row(self, encoded: Encoded,
           example_E: np.ndarray) -> dict[str, np.ndarray]:
    none_E, segments = example_E < 0, np.arange(encoded.segments)
    segment_E = np.where(none_E[:, None], -1, example_E[:, None]
                         * encoded.segments + segments[None]).ravel()
    row = assemble(encoded.tokens_T, self.vocabulary, encoded.slices,
                   segment_E, self.length)
    row["example_index"] = example_E.astype(np.int32)
    row["example_mask"] = (~none_E).astype(np.float32)
    for key, values in encoded.of_examples.items():
      row[key] = values[example_E]
      row[key][none_E] = -1 if values.dtype.kind == "i" else 0
    for key, values in encoded.positions.items():
      first_E = row["cls_positions"][::encoded.segments]
      row[key] = np.where(none_E, -1, first_E + values[example_E]
                          ).astype(np.int32)
    for key, values in encoded.of_tokens.items():
      row[key] = np.full(self.length, -1, np.int32)
      for slot, segment in enumerate(segment_E[segment_E >= 0].tolist()):
        begin = row["cls_positions"][slot] + 1
        start, count = (encoded.slices.a_start_X[segment],
                        encoded.slices.a_length_X[segment])
        row[key][begin:begin + count] = values[start:start + count]
    return row
