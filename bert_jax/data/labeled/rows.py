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

  Beside the keys of every row: `example_index` (int32 (E,), -1 where none) and
  what the kind's `encode` says.
  """

  def __init__(self, labeled: Any, tokenizer: Any, length: int,
               examples_per_row: int, seed: int, shuffle: bool = True,
               augmentation: Augmentation = NoAugmentation()):
    if not len(labeled):
      raise UserError("The labeled set has no examples.")
    self.vocabulary = tokenizer.vocabulary
    self.encoded = labeled.encode(tokenizer, length)
    self.augmentation = augmentation
    augmentation.check(self.encoded, labeled.kind)
    content = hashlib.blake2b(
        repr((labeled.kind, labeled.label_names)).encode())
    for array in self.encoded.arrays():
      content.update(np.ascontiguousarray(array).tobytes())
    super().__init__(length, examples_per_row, seed, shuffle,
                     (content.hexdigest(), tokenizer.fingerprint),
                     repr(augmentation))

  def examples(self, epoch: int) -> Encoded:
    return self.augmentation.apply(
        self.encoded, self.vocabulary,
        generator("augmentation", *self.draws, epoch))

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
