"""The network and the rows that training and inference are measured on:
BERT-mini, 16 rows of 128 tokens."""

import numpy as np

BATCH, LENGTH, MASKED, VOCABULARY = 16, 128, 20, 30_522
WIDTH, LAYERS, HEADS, INNER = 256, 4, 4, 1024


def rows():
  """Random tokens, one pair of sentences a row; everything int32."""
  rng = np.random.default_rng(0)
  positions = np.stack([np.sort(rng.permutation(LENGTH)[:MASKED])
                        for _ in range(BATCH)])
  ids = rng.integers(1000, VOCABULARY, (BATCH, LENGTH))
  batch = {
      "input_ids": ids,
      "token_type_ids": np.tile(np.arange(LENGTH) >= LENGTH // 2, (BATCH, 1)),
      "masked_positions": positions,
      "masked_labels": np.take_along_axis(ids, positions, 1),
      "next_sentence": rng.integers(2, size=BATCH)}
  return {name: x.astype(np.int32) for name, x in batch.items()}
