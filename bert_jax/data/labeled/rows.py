"""Rows of a labeled set of any kind."""

import hashlib
from typing import Any

import numpy as np

from bert_jax.config import UserError
from bert_jax.data.batches.rows import Rows, assemble, generator
from bert_jax.data.labeled.augmentation import Augmentation, NoAugmentation
from bert_jax.data.labeled.encoded import Encoded


class TaskRows(Rows):
  """Rows of a labeled set; every example once in an epoch, packed.

  Its keys are those of the kind of label; their values are what the kind's
  `encode` gives.
  """

  def __init__(self, labeled: Any, tokenizer: Any, length: int,
               examples_per_row: int, seed: int, shuffle: bool = True,
               augmentation: Augmentation = NoAugmentation()):
    if not len(labeled):
      raise UserError("The labeled set has no examples.")
    self.vocabulary = tokenizer.vocabulary
    self.keys, self._classes = labeled.keys, len(labeled.label_names)
    self.encoded = labeled.encode(tokenizer, length)
    self.encoded.say_lost(
        labeled.table.source if labeled.table else "The texts",
        len(labeled), length)
    self.augmentation = augmentation
    augmentation.check(self.encoded, labeled.kind)
    content = hashlib.blake2b(
        repr((labeled.order_key, labeled.label_names)).encode())
    for array in self.encoded.arrays():
      content.update(np.ascontiguousarray(array).tobytes())
    super().__init__(length, examples_per_row, seed, shuffle,
                     (content.hexdigest(), tokenizer.fingerprint),
                     repr(augmentation))

  @property
  def sizes(self) -> dict[str, int]:
    return super().sizes | {
        "S": self.examples_per_row * self.encoded.segments, "C": self._classes}

  def examples(self, epoch: int) -> Encoded:
    return self.augmentation.apply(
        self.encoded, self.vocabulary,
        generator("augmentation", *self.draws, epoch))

  def _row(self, encoded: Encoded,
           example_E: np.ndarray) -> dict[str, np.ndarray]:
    row, segments = self.empty(), np.arange(encoded.segments)
    real_E = example_E >= 0
    segment_S = np.where(real_E[:, None], example_E[:, None]
                         * encoded.segments + segments[None], -1).ravel()
    assemble(encoded.tokens_T, self.vocabulary, encoded.slices, segment_S, row)
    row["example_index"][:] = example_E
    row["example_mask"][:] = real_E
    for key, values in encoded.of_examples.items():
      row[key][real_E] = values[example_E[real_E]]
    for key, values in encoded.positions.items():
      first_E = row["cls_positions"][::encoded.segments]
      row[key][real_E] = first_E[real_E] + values[example_E[real_E]]
    for key, values in encoded.of_tokens.items():
      for slot, segment in enumerate(segment_S[segment_S >= 0].tolist()):
        begin = row["cls_positions"][slot] + 1
        start, count = (encoded.slices.a_start_X[segment],
                        encoded.slices.a_length_X[segment])
        row[key][begin:begin + count] = values[start:start + count]
    return row
