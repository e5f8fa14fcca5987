"""Rows of an epoch of running text."""

import dataclasses
from typing import Any

import numpy as np

from bert_jax.config import UserError
from bert_jax.data.batches.examples import Examples
from bert_jax.data.batches.rows import Rows, assemble, generator
from bert_jax.data.batches.spec import PRETRAINING_KEYS
from bert_jax.data.pretraining.formats import Format


class PretrainingRows(Rows):
  """Rows of a corpus in a format, without masks (the device draws those)."""

  keys = PRETRAINING_KEYS

  def __init__(self, corpus: Any, vocabulary: Any, format: Format, length: int,
               examples_per_row: int, seed: int, shuffle: bool = True):
    if corpus.vocabulary_size != vocabulary.size:
      raise UserError(
          f"The corpus was tokenized with {corpus.vocabulary_size} token ids, "
          f"but the tokenizer has {vocabulary.size}.")
    # Formats count one separator between two texts.
    self._room = length - (vocabulary.pair_separators - 1) * format.pairs
    format.maximum(self._room)  # Here, not in the thread that reads ahead.
    super().__init__(length, examples_per_row, seed, shuffle,
                     (corpus.fingerprint, repr(format)))
    self.corpus = corpus
    self.vocabulary = vocabulary
    self.format = format

  def __len__(self) -> int:
    return super().__len__() if len(self.corpus.tokens_T) else 0

  def examples(self, epoch: int) -> Examples:
    plan = self.format.plan(self.corpus, self._room,
                            generator("examples", *self.draws, epoch))
    return dataclasses.replace(
        plan, separators=self.vocabulary.pair_separators)

  def _row(self, examples: Examples,
           example_E: np.ndarray) -> dict[str, np.ndarray]:
    row = self.empty()
    assemble(self.corpus.tokens_T, self.vocabulary, examples, example_E, row)
    row["example_mask"][:] = example_E >= 0
    if examples.is_random_X is not None:
      row["next_sentence_labels"][:] = np.where(
          example_E < 0, 0, examples.is_random_X[example_E])
    return row
