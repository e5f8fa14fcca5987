"""Labelled sets and their rows: classes, numbers, or a tag for every word."""

import dataclasses
import hashlib
import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

import numpy as np

from bert_jax.config import UserError, nearest
from bert_jax.data import tables
from bert_jax.data.documents import held_out
from bert_jax.data.formats import Examples, truncated
from bert_jax.data.rows import Rows, assemble

Kind = Literal["class", "number", "tags"]
OUTSIDE = "O"  # the tag of words outside of every entity


@dataclasses.dataclass(frozen=True)
class Columns:
  """Which columns of a labelled set to read, by name or number (from 0).

  Attributes:
    text: the text, or for tags the words.
    pair: the second text; none if empty.
    label: the label, or for tags one for each word; none if empty.
    header: whether the first line names the columns; unless given, it does if
      `text` is a name rather than a number.
    ragged: records with another number of columns are an error or left out.

  CoNLL files have no names: there the word is in the first column and the tag
  in the last, unless numbers are given.
  """

  text: str = "sentence"
  pair: str = ""
  label: str = "label"
  header: bool | None = None
  ragged: tables.Ragged = "error"


@dataclasses.dataclass(frozen=True, eq=False)
class Labelled:
  """A labelled set, X examples.

  Attributes:
    kind: what the labels are.
    names: where each example comes from; what `split` goes by.
    texts_a, texts_b: the texts, or none (tags); the second of each pair.
    words: for tags, the words of each example.
    labels: `class`: int32 (X,); `number`: float32 (X,); `tags`: X arrays of
      int32, one for each word; None if the set has no labels.
    label_names: the classes or tags in the order of their numbers.
    table: the records as they were read, for predictions beside them.
  """

  kind: Kind
  names: list[str]
  texts_a: list[str]
  texts_b: list[str] | None = None
  words: list[list[str]] | None = None
  labels: Any = None
  label_names: tuple[str, ...] = ()
  table: tables.Table | None = None

  def __len__(self) -> int:
    return len(self.names)


def read(spec: str, columns: Columns, kind: Kind,
         label_names: Sequence[str] = ()) -> Labelled:
  """Reads a labelled set (see `tables` for the formats).

  Args:
    label_names: the valid labels, those of the training set for any other;
      if empty, those found here, sorted.

  Raises:
    UserError: naming file, line and what would be valid.
  """
  if kind == "tags":
    return _read_tags(spec, columns, label_names)
  table = _table(spec, columns)
  texts_b = _texts(table, columns.pair) if columns.pair else None
  names = [table.place(i) for i in range(len(table.records))]
  values = table.column(columns.label) if columns.label else None
  labels = None
  if values is not None and kind == "number":
    labels = np.array([_number(v, n) for v, n in zip(values, names)],
                      np.float32)
  elif values is not None:
    label_names = tuple(label_names) or _sorted_labels(map(str, values))
    labels = _numbered(map(str, values), names, label_names)
  return Labelled(kind, names, _texts(table, columns.text), texts_b, None,
                  labels, tuple(label_names), table)


def tagged(examples: Iterable[tuple[str, Sequence[str], Sequence[str] | None]],
           label_names: Sequence[str] = ()) -> Labelled:
  """A set of (name, words, tags) examples; tags None: nothing is known."""
  examples, labels = list(examples), None
  names, words, tags = ([e[i] for e in examples] for i in range(3))
  if tags and tags[0] is not None:
    for name, example_words, example_tags in zip(names, words, tags):
      if len(example_words) != len(example_tags):
        raise UserError(f"{name}: {len(example_words)} words have "
                        f"{len(example_tags)} tags.")
    label_names = tuple(label_names) or _sorted_labels(
        itertools.chain.from_iterable(tags))
    labels = [_numbered(t, itertools.repeat(n), label_names)
              for n, t in zip(names, tags)]
  return Labelled("tags", names, [], None, [list(w) for w in words], labels,
                  tuple(label_names))


def split(labelled: Labelled, percent: float) -> tuple[Labelled, Labelled]:
  """Training and held-out part, by the hash of the examples' names."""
  out = [held_out(name, percent) for name in labelled.names]
  return (_subset(labelled, [i for i, o in enumerate(out) if not o]),
          _subset(labelled, [i for i, o in enumerate(out) if o]))


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
  return _subset(labelled, sorted(by_hash[:count]))


def _subset(labelled: Labelled, chosen: list[int]) -> Labelled:
  def pick(values):
    if values is None or isinstance(values, np.ndarray):
      return None if values is None else values[chosen]
    return [values[i] for i in chosen] if values else values

  table = labelled.table and dataclasses.replace(
      labelled.table, records=pick(labelled.table.records),
      lines=pick(labelled.table.lines))
  return dataclasses.replace(
      labelled, table=table, **{
          field: pick(getattr(labelled, field)) for field in
          ("names", "texts_a", "texts_b", "words", "labels")})


def _table(spec: str, columns: Columns) -> tables.Table:
  header = columns.header
  if header is None:
    header = not columns.text.isdecimal()
  return tables.read_table(spec, header, columns.ragged)


def _texts(table: tables.Table, column: str) -> list[str]:
  texts = table.column(column)
  for i, text in enumerate(texts):
    if not isinstance(text, str):
      raise UserError(f"{table.place(i)}: {column} is no text but {text!r}.")
  return texts


def _read_tags(spec: str, columns: Columns,
               label_names: Sequence[str]) -> Labelled:
  if not spec.startswith("tfds:") and ".json" not in spec:
    word = int(columns.text) if columns.text.isdecimal() else 0
    tag = int(columns.label) if columns.label.isdecimal() else -1
    return tagged([(f"{spec}:{line}", words, tags if columns.label else None)
                   for line, words, tags in tables.read_conll(
                       spec, word, tag if columns.label else None)],
                  label_names)
  table = _table(spec, columns)
  names = [table.place(i) for i in range(len(table.records))]
  tags = table.column(columns.label) if columns.label else [None] * len(names)
  words = table.column(columns.text)
  for name, value in zip(names, words):
    if not isinstance(value, list):
      raise UserError(f"{name}: {columns.text} is no list of words but "
                      f"{value!r}.")
  labelled = tagged(list(zip(names, words, tags)), label_names)
  return dataclasses.replace(labelled, table=table)


def _number(value: Any, name: str) -> float:
  try:
    number = float(value)
  except (TypeError, ValueError):
    number = math.nan
  if not math.isfinite(number):
    raise UserError(f"{name}: the label {value!r} is no number.")
  return number


def _sorted_labels(labels: Iterable[str]) -> tuple[str, ...]:
  """By value if all are numbers, else by spelling."""
  found = sorted(set(labels))
  try:
    return tuple(sorted(found, key=float))
  except ValueError:
    return tuple(found)


def _numbered(labels: Iterable[str], names: Iterable[str],
              label_names: Sequence[str]) -> np.ndarray:
  number = {label: i for i, label in enumerate(label_names)}
  try:
    labels = list(labels)
    return np.fromiter((number[label] for label in labels), np.int32,
                       len(labels))
  except KeyError:
    for label, name in zip(labels, names):
      if label not in number:
        raise UserError(f"{name}: the label {label!r} is not known"
                        + nearest(label, label_names)) from None
    raise


class TaskRows(Rows):
  """Rows of a labelled set; every example once in an epoch, packed.

  Beside the keys of every row: `labels` (class: int32 (E,), -1 where none;
  number: float32 (E,), 0 where none; tags: int32 (L,), at the first piece of
  each word, else -1), `example_index` (int32 (E,), -1 where none) and for tags
  `word_index` (int32 (L,), the word that begins here, else -1).
  """

  def __init__(self, labelled: Labelled, tokenizer: Any, length: int,
               examples_per_row: int, seed: int, shuffle: bool = True):
    if not len(labelled):
      raise UserError("The labelled set has no examples.")
    specials = 2 if labelled.texts_b is None else 3
    if length <= specials:
      raise UserError(f"Rows of {length} tokens hold no text beside {specials} "
                      f"special tokens; allowed: {specials + 1} or more.")
    self.vocabulary = tokenizer.vocabulary
    self.kind = labelled.kind
    if labelled.kind == "tags":
      self.tokens_T, self._examples, self.word_T, self.labels = _encode_words(
          labelled, tokenizer, length - specials)
    else:
      self.tokens_T, self._examples = _encode_texts(
          labelled, tokenizer, length - specials)
      self.labels = _labels(labelled)
    content = hashlib.blake2b(repr((self.kind, labelled.label_names)).encode())
    for array in (self.tokens_T, self._examples.a_start_X,
                  self._examples.lengths_X, self.labels):
      content.update(np.ascontiguousarray(array).tobytes())
    super().__init__(length, examples_per_row, seed, shuffle,
                     (content.hexdigest(), tokenizer.fingerprint))

  def examples(self, epoch: int) -> Examples:
    return self._examples

  def _row(self, examples: Examples,
           example_E: np.ndarray) -> dict[str, np.ndarray]:
    row = assemble(self.tokens_T, self.vocabulary, examples, example_E,
                   self.length)
    row["example_index"] = example_E.astype(np.int32)
    if self.kind != "tags":
      none = np.array(-1 if self.kind == "class" else 0, self.labels.dtype)
      row["labels"] = np.where(example_E < 0, none, self.labels[example_E])
      return row
    row["labels"], row["word_index"] = np.full((2, self.length), -1, np.int32)
    for slot, example in enumerate(example_E[example_E >= 0].tolist()):
      begin = row["cls_positions"][slot] + 1
      start, count = (examples.a_start_X[example],
                      examples.a_length_X[example])
      row["labels"][begin:begin + count] = self.labels[start:start + count]
      row["word_index"][begin:begin + count] = self.word_T[start:start + count]
    return row


def _encode_texts(labelled: Labelled, tokenizer: Any,
                  maximum: int) -> tuple[np.ndarray, Examples]:
  if labelled.texts_b is None:
    tokens_T, start_X1 = _flatten(tokenizer.encode(labelled.texts_a))
    return tokens_T, _single(start_X1, maximum)
  tokens_T, start = _flatten(tokenizer.encode(labelled.texts_a)
                             + tokenizer.encode(labelled.texts_b))
  a_start_X, b_start_X = start[:-1].reshape(2, -1)
  a_length_X, b_length_X = truncated(*np.diff(start).reshape(2, -1), maximum)
  return tokens_T, Examples(a_start_X, a_length_X, b_start_X, b_length_X)


def _labels(labelled: Labelled) -> np.ndarray:
  if labelled.labels is not None:
    return labelled.labels
  if labelled.kind == "class":
    return np.full(len(labelled), -1, np.int32)
  return np.zeros(len(labelled), np.float32)


def _encode_words(
    labelled: Labelled, tokenizer: Any, maximum: int
) -> tuple[np.ndarray, Examples, np.ndarray, np.ndarray]:
  """Tokens, examples, and for each token the word that begins there and the
  word's label, -1 where none."""
  pieces = tokenizer.encode_words(labelled.words)
  tokens_T, starts = _flatten(list(itertools.chain.from_iterable(pieces)))
  count_X = np.array([len(words) for words in pieces])
  start_X1 = starts[np.concatenate([[0], np.cumsum(count_X)])]
  has_pieces = np.diff(starts) > 0
  first_T = starts[:-1][has_pieces]
  word_T, label_T = np.full((2, len(tokens_T)), -1, np.int32)
  words = np.concatenate([np.arange(count) for count in count_X])
  word_T[first_T] = words[has_pieces]
  if labelled.labels is not None:
    label_T[first_T] = np.concatenate(labelled.labels)[has_pieces]
  return tokens_T, _single(start_X1, maximum), word_T, label_T


def _flatten(pieces: list[list[int]]) -> tuple[np.ndarray, np.ndarray]:
  starts = np.concatenate([[0], np.cumsum([len(ids) for ids in pieces])])
  return np.fromiter(itertools.chain.from_iterable(pieces), np.int32,
                     starts[-1]), starts


def _single(start_X1: np.ndarray, maximum: int) -> Examples:
  return Examples(start_X1[:-1], np.minimum(np.diff(start_X1), maximum), None,
                  None)


def by_word(labelled: Labelled, batches: Iterable[
    tuple[Mapping[str, np.ndarray], np.ndarray]]) -> list[np.ndarray]:
  """Probabilities (words, C) of the tags of each example's words.

  Args:
    labelled: X examples.
    batches: (batch, probability_BLC) pairs.

  Words that fell off a row (or have no tokens) are surely `O`, or nothing (all
  zeros) if there is no such tag.
  """
  tags = labelled.label_names
  missing = np.array([tag == OUTSIDE for tag in tags], np.float32)
  found = [np.tile(missing, (len(words), 1)) for words in labelled.words]
  for batch, probability_BLC in batches:
    for b, l in zip(*np.nonzero(batch["word_index"] >= 0)):
      example = batch["example_index"][b, batch["example_ids"][b, l] - 1]
      found[example][batch["word_index"][b, l]] = probability_BLC[b, l]
  return found
