"""The kind "tagging": a tag for every word."""

import dataclasses
import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, ClassVar

import numpy as np

from bert_jax import files
from bert_jax.config import UserError
from bert_jax.data.batches.spec import Key
from bert_jax.data.labeled import record_files
from bert_jax.data.labeled.base import LabeledSet, Predicted
from bert_jax.data.labeled.encoded import Encoded, flatten, room, single
from bert_jax.data.records import columns as fields, tables
from bert_jax.data.records.bad_records import Fault
from bert_jax.data.records.columns import Columns, clean
from bert_jax.data.records.tables import Table
from bert_jax.metrics import entities

OUTSIDE = "O"  # the tag of words outside of every entity


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
      # The word that begins here.
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
      label_names = label_names or fields.labels_in(
          itertools.chain.from_iterable(
              tags for tags in table.column(columns.label)
              if isinstance(tags, list)))
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
    pieces = tokenizer.encode_words(self.words)
    tokens_T, starts = flatten(list(itertools.chain.from_iterable(pieces)))
    count_X = np.array([len(words) for words in pieces])
    start_X1 = starts[np.concatenate([[0], np.cumsum(count_X)])]
    has_pieces = np.diff(starts) > 0
    first_T = starts[:-1][has_pieces]
    word_T, label_T = np.full((2, len(tokens_T)), -1, np.int32)
    words = np.concatenate([np.arange(count) for count in count_X])
    word_T[first_T] = words[has_pieces]
    if self.labels is not None:
      label_T[first_T] = np.concatenate(self.labels)[has_pieces]
    slices = single(start_X1, room(tokenizer, length, pairs=False))
    return Encoded(tokens_T, slices,
                   of_tokens={"labels": label_T, "word_index": word_T})

  def collect(self, predicted: Predicted) -> list[np.ndarray]:
    """Words that fell off a row (or have no tokens) are surely `O`, or nothing
    (all zeros) if there is no such tag."""
    missing = np.array([t == OUTSIDE for t in self.label_names], np.float32)
    outputs = [np.tile(missing, (len(words), 1)) for words in self.words]
    for places, probability_BLC in predicted:
      for b, l in zip(*np.nonzero(places["word_index"] >= 0)):
        example = places["example_index"][b, places["example_ids"][b, l] - 1]
        outputs[example][places["word_index"][b, l]] = probability_BLC[b, l]
    return outputs

  def scores(self, outputs: list[np.ndarray]) -> dict[str, float]:
    if self.labels is None:
      return {}
    return entities.entity_scores(
        [[self.label_names[t] for t in tags] for tags in self.labels],
        [self.tag_names(probabilities) for probabilities in outputs])

  def tag_names(self, probabilities: np.ndarray) -> list[str]:
    """The likeliest tag of each word; "" where nothing is known of it."""
    return [self.label_names[int(np.argmax(p))] if p.any() else ""
            for p in probabilities]

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
    label_names = tuple(label_names) or fields.labels_in(
        itertools.chain.from_iterable(tags))
    numbers, labels = _tags(label_names), []
    for name, example_words, example_tags in examples:
      try:
        labels.append(numbers(example_words, example_tags))
      except Fault as fault:
        raise UserError(f"{name}: {fault.detail()}") from None
  return TaggingSet(names=names, words=[list(w) for w in words], labels=labels,
              label_names=tuple(label_names))


def _tags(label_names: Sequence[str]) -> Callable[..., np.ndarray]:
  """What makes numbers of the tags of words."""
  label = fields.one_of(label_names)

  def numbers(words: Sequence[str], tags: Sequence[Any]) -> np.ndarray:
    if len(tags) != len(words):
      raise Fault("with words and tags of different number",
                  lambda: f"{len(words)} words have {len(tags)} tags")
    return np.array([label(tag) for tag in tags], np.int32)

  return numbers
