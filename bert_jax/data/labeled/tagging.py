"""The kind "tagging": a tag for every word."""

import dataclasses
import itertools
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, ClassVar

import numpy as np

from bert_jax import files
from bert_jax.config import UserError
from bert_jax.data.batches.examples import Examples
from bert_jax.data.batches.spec import Key
from bert_jax.data.labeled import record_files, windows
from bert_jax.data.labeled.base import LabeledSet, Predicted, gathered
from bert_jax.data.labeled.encoded import Encoded, flatten, room
from bert_jax.data.records import columns as fields, tables
from bert_jax.data.records.bad_records import Fault
from bert_jax.data.records.columns import Columns, clean
from bert_jax.data.records.tables import Table
from bert_jax.metrics import entities

_LOG = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class TaggingSet(LabeledSet):
  """A tag for every word; outputs: X times probabilities (words, C).

  Attributes:
    words: the words of each example.
    labels: X arrays of int32, one for each word.
  """

  kind: ClassVar = "tagging"
  order_key: ClassVar = "tags"
  keys: ClassVar = LabeledSet.keys | {
      # At the first piece of each word.
      "labels": Key(np.int32, "L", fill=-1),
      # The word of the set, counted through all examples, that begins here.
      "word_index": Key(np.int32, "L", fill=-1, locates=True)}
  words: list[list[str]]

  @classmethod
  def read(cls, spec: str, columns: Columns,
           label_names: Sequence[str] = ()) -> "TaggingSet":
    if spec.startswith("tfds:") or files.suffix(spec) in tables.JSON:
      return super().read(spec, columns, label_names)
    word = int(columns.text) if columns.text.isdecimal() else 0
    tag = int(columns.label) if columns.label.isdecimal() else -1
    table = record_files.read_conll(spec, word,
                                    tag if columns.label else None)
    return cls.parse(table, dataclasses.replace(
        columns, text="words", label="tags" if columns.label else ""),
        tuple(label_names))

  @classmethod
  def parse(cls, table: Table, columns: Columns,
            label_names: tuple[str, ...]) -> "TaggingSet":
    readers = {"words": ([columns.text], fields.words)}
    if columns.label:
      label_names = label_names or _names_in(
          tags for tags in table.column(columns.label)
          if isinstance(tags, list))
      numbers = _tags(label_names)
      readers["labels"] = ([columns.text, columns.label], lambda words, tags:
                          numbers(words, fields.several(tags)))
    table, values = clean(table, columns.bad_records, readers)
    return cls(names=table.names(), table=table, label_names=label_names,
               **values)

  @classmethod
  def describe_token_label(cls, row: Mapping[str, np.ndarray], token: int,
                           label_names: Sequence[str]) -> str:
    tag = row["labels"][token]
    return "" if tag < 0 else label_names[tag]

  def texts(self) -> list[str]:
    return [" ".join(words) for words in self.words]

  def counts_C(self) -> np.ndarray:
    return np.bincount(np.concatenate(self.labels),
                       minlength=len(self.label_names))

  def encode(self, tokenizer: Any, length: int) -> Encoded:
    """Windows of the examples; a word without pieces is one [UNK]."""
    pieces = itertools.chain.from_iterable(tokenizer.encode_words(self.words))
    unknown = [tokenizer.vocabulary.unk_id]
    tokens_T, starts = flatten([ids or unknown for ids in pieces])
    word_T, label_T = np.full((2, len(tokens_T)), -1, np.int32)
    word_T[starts[:-1]] = np.arange(len(starts) - 1)
    if self.labels is not None:
      label_T[starts[:-1]] = np.concatenate(self.labels)
    shown, counts, start_X1 = windows.over(
        starts[self._ends()], room(tokenizer, length, pairs=False))
    return Encoded(
        tokens_T[shown],
        Examples(start_X1[:-1], np.diff(start_X1), None, None),
        of_tokens={"labels": np.where(counts, label_T[shown], -1),
                   "word_index": np.where(counts, word_T[shown], -1)})

  def _ends(self) -> np.ndarray:
    """Where each example ends, after a 0, in words of the set."""
    return np.cumsum([0, *map(len, self.words)])

  def collect(self, predicted: Predicted) -> list[np.ndarray]:
    ends = self._ends()
    outputs = gathered(predicted, "word_index", ends[-1], "words")
    return np.split(outputs, ends[1:-1])

  @property
  def score_names(self) -> tuple[str, ...]:
    if entities.scheme_of(self.label_names):
      return tuple(entities.entity_scores((), ()))
    nothing = np.zeros(0, np.int32)
    return tuple(entities.tag_scores(nothing, nothing, self.label_names))

  def scores(self, outputs: list[np.ndarray]) -> dict[str, float]:
    if self.labels is None:
      return {}
    scheme = entities.scheme_of(self.label_names)
    if scheme is None:
      return entities.tag_scores(
          *(np.concatenate(tags) for tags in (
              self.labels, [np.argmax(p, -1) for p in outputs])),
          self.label_names)
    return entities.entity_scores(
        self._gold(), list(map(self.tag_names, outputs)), scheme)

  @property
  def deciding_score(self) -> str:
    return ("entity_f1" if entities.scheme_of(self.label_names)
            else "tag_accuracy")

  def score_sums(self, name: str, outputs: list[np.ndarray]
                 ) -> tuple[np.ndarray, np.ndarray] | None:
    if name == "tag_accuracy":
      return (np.array([float(np.sum(tags == np.argmax(p, -1)))
                        for tags, p in zip(self.labels, outputs)]),
              np.array([float(len(tags)) for tags in self.labels]))
    if name != "entity_f1":
      return None
    counts = entities.entity_counts(
        self._gold(), list(map(self.tag_names, outputs)),
        entities.scheme_of(self.label_names)).astype(float)
    return 2 * counts[:, 0], counts[:, 1] + counts[:, 2]

  def _gold(self) -> list[list[str]]:
    return [[self.label_names[t] for t in tags] for tags in self.labels]

  def tag_names(self, probabilities: np.ndarray) -> list[str]:
    """The likeliest tag of each word."""
    return [self.label_names[tag] for tag in np.argmax(probabilities, -1)]

  def predicted_columns(self) -> list[str]:
    return ["predicted_tags", "probabilities"]

  def predicted_values(self) -> list[Any]:
    return [list(self.label_names)]

  def predictions(self, outputs: list[np.ndarray]) -> list[list[Any]]:
    return [
        [self.tag_names(p), [round(float(best), 4) for best in p.max(axis=-1)]]
        for p in outputs]


def tagged(examples: Iterable[tuple[str, Sequence[str], Sequence[str] | None]],
           label_names: Sequence[str] = ()) -> TaggingSet:
  """A set of (name, words, tags) examples; tags None: nothing is known."""
  examples, labels = list(examples), None
  names, words, tags = ([e[i] for e in examples] for i in range(3))
  if tags and tags[0] is not None:
    label_names = tuple(label_names) or _names_in(tags)
    numbers, labels = _tags(label_names), []
    for name, example_words, example_tags in examples:
      try:
        labels.append(numbers(example_words, example_tags))
      except Fault as fault:
        raise UserError(f"{name}: {fault.detail()}") from None
  return TaggingSet(names=names, words=[list(w) for w in words], labels=labels,
              label_names=tuple(label_names))


def _names_in(tags: Iterable[Sequence[Any]]) -> tuple[str, ...]:
  """The tags of all words; says how they are read unless they are B-X."""
  names = fields.labels_in(itertools.chain.from_iterable(tags))
  description = entities.description(names)
  if description:
    _LOG.warning("%s", description)
  return names


def _tags(label_names: Sequence[str]) -> Callable[..., np.ndarray]:
  """What makes numbers of the tags of words."""
  label = fields.one_of(label_names)

  def numbers(words: Sequence[str], tags: Sequence[Any]) -> np.ndarray:
    if len(tags) != len(words):
      raise Fault("with words and tags of different number",
                  lambda: f"{len(words)} words have {len(tags)} tags")
    return np.array([label(tag) for tag in tags], np.int32)

  return numbers
