"""Rows of an epoch of running text."""

import dataclasses
from typing import Any

import numpy as np

from bert_jax.config import UserError
from bert_jax.data.batches.examples import Examples
from bert_jax.data.batches.rows import Rows, assemble, generator
from bert_jax.data.batches.spec import PRETRAINING_KEYS
from bert_jax.data.pretraining.formats import Format, PairsFormat

_DESCRIBED_SENTENCES = 1 << 16
_MOSTLY = 0.8


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

  def describe_pairs(self) -> str:
    """How good a task next sentences are, of the first documents; "" for a
    format that draws none."""
    if not isinstance(self.format, PairsFormat) or not len(self.corpus.tokens_T):
      return ""
    last = np.searchsorted(self.corpus.document_starts_U1,
                           _DESCRIBED_SENTENCES, side="right") - 1
    pairs = self.format.examples(
        self.corpus, 0, max(1, int(last)), self.format.maximum(self._room),
        generator("examples", *self.draws, 0))
    a_end_X, b_end_X = (pairs.a_start_X + pairs.a_length_X,
                        pairs.b_start_X + pairs.b_length_X)
    overlap_X = pairs.is_random_X & (pairs.a_start_X < b_end_X) & (
        pairs.b_start_X < a_end_X)
    random = pairs.is_random_X.mean()
    return (f"{random:.0%} of the sentence pairs have a random second part, "
            f"{overlap_X.mean():.0%} one that overlaps the first"
            + ("; documents of one sentence leave next-sentence prediction "
               "little to learn" if random > _MOSTLY else ""))

  def _row(self, examples: Examples,
           example_E: np.ndarray) -> dict[str, np.ndarray]:
    row = self.empty()
    assemble(self.corpus.tokens_T, self.vocabulary, examples, example_E, row)
    row["example_mask"][:] = example_E >= 0
    if examples.is_random_X is not None:
      row["next_sentence_labels"][:] = np.where(
          example_E < 0, 0, examples.is_random_X[example_E])
    return row
