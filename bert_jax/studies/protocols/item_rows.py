"""Rows of what protocols score, with masks of their own and numbered items."""

import functools
from typing import Any

import numpy as np

from bert_jax.data.batches.examples import Examples
from bert_jax.data.batches.rows import Rows, assemble
from bert_jax.data.batches.spec import Key, PRETRAINING_KEYS
from bert_jax.data.pretraining.scored_documents import Pieces, fingerprint
from bert_jax.objectives.masking import Masking

# Examples are packed, which changes no score and saves most of the time where
# documents are short.
EXAMPLES_PER_ROW = 16


class ItemRows(Rows):
  """Rows of pieces of documents, in a fixed order.

  The key `items`, the number of the item that a prediction belongs to, has -1
  where there is none.

  Attributes:
    predictions: the dimension of the predictions of a row.
    items: how many there are.
  """

  predictions: str

  def __init__(self, corpus: Any, vocabulary: Any, pieces: Pieces, length: int,
               examples_per_row: int):
    super().__init__(length, examples_per_row, 0, False, ())
    self.corpus, self.vocabulary = corpus, vocabulary
    self.pieces = pieces
    self.items = int(pieces.item_X.max(initial=-1)) + 1
    self.keys = PRETRAINING_KEYS | Masking.keys | {
        "items": Key(np.int32, self.predictions, fill=-1)}

  def data(self, version: int, tokenizer: Any) -> str:
    """The fingerprint of what is scored; packing does not count."""
    return fingerprint(self.corpus, self.pieces, tokenizer.fingerprint,
                       version, self.length)

  def examples(self, epoch: int) -> Examples:
    return self.pieces.examples

  def _row(self, examples: Examples,
           example_E: np.ndarray) -> dict[str, np.ndarray]:
    row = self.empty()
    assemble(self.corpus.tokens_T, self.vocabulary, examples, example_E, row)
    row["example_mask"][:] = example_E >= 0
    self._ask(row, example_E)
    return row

  def _ask(self, row: dict[str, np.ndarray], example_E: np.ndarray) -> None:
    """Writes what is to be predicted of an assembled row."""
    raise NotImplementedError


class MaskedRows(ItemRows):
  """Rows whose masked tokens are to be predicted."""

  predictions = "P"

  @functools.cached_property
  def sizes(self) -> dict[str, int]:
    counts_X = np.array([*map(len, self.pieces.masked_X), 0])  # -1: no example
    most = counts_X[self.plan(0)[1]].sum(1).max(initial=1)
    return super().sizes | {"P": int(most)}

  @functools.cached_property
  def masked_bytes(self) -> int:
    """Of text, of all masked tokens."""
    starts_X = self.pieces.examples.a_start_X
    return sum(int(self.vocabulary.byte_count_V[
        self.corpus.tokens_T[start + masked]].sum())
               for start, masked in zip(starts_X.tolist(),
                                        self.pieces.masked_X))

  def _ask(self, row: dict[str, np.ndarray], example_E: np.ndarray) -> None:
    at, input_ids_L = 0, row["input_ids"]
    for begin, example in zip(row["cls_positions"].tolist(),
                              example_E[example_E >= 0].tolist()):
      masked_P = begin + 1 + self.pieces.masked_X[example]
      slots = slice(at, at := at + len(masked_P))
      row["masked_positions"][slots] = masked_P
      row["masked_labels"][slots] = input_ids_L[masked_P]
      row["masked_weights"][slots] = 1
      row["items"][slots] = self.pieces.item_X[example]
      input_ids_L[masked_P] = self.vocabulary.mask_id


class PairRows(ItemRows):
  """Rows of sentence pairs; no token is masked."""

  predictions = "E"

  @property
  def sizes(self) -> dict[str, int]:
    return super().sizes | {"P": 1}  # A network with a vocabulary head has one.

  def _ask(self, row: dict[str, np.ndarray], example_E: np.ndarray) -> None:
    present_E = example_E >= 0
    row["next_sentence_labels"][:] = present_E & (
        self.pieces.examples.is_random_X[example_E])
    row["items"][:] = np.where(present_E, self.pieces.item_X[example_E], -1)
