"""Language modeling of the second part of a text, given the first."""

import dataclasses
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from bert_jax.data.batches.spec import Key, Keys
from bert_jax.data.tokenizers.vocabulary import Vocabulary
from bert_jax.objectives.base import Batch
from bert_jax.objectives.causal import Causal

# [CLS] and a token of the text.
_LEAST_SOURCE = 2


@dataclasses.dataclass(frozen=True)
class Prefix(Causal):
  """Prefix language modeling: the source is seen in both directions, the
  target from left to right, and the loss is of the target alone.

  As UniLM's sequence-to-sequence objective (Dong et al. 2019, 2.3) and the
  prefix LM of T5 (Raffel et al. 2020, 3.2.1). Of a pair the source is the first
  text with its [SEP], and the target the second; a single text is cut at a
  random place behind its first token.
  """

  keys: ClassVar[Keys] = Causal.keys | {"order": Key(np.int32, "L")}

  def order(self, batch: Batch) -> jax.Array | None:
    return batch.get("order")  # None: a text alone is all source.

  def corrupt(self, batch: Batch, keys_B: jax.Array, vocabulary: Vocabulary,
              step: jax.Array | None) -> Batch:
    """Adds the next tokens and the order: 0 in the source, then 1, 2, ..."""
    batch = super().corrupt(batch, keys_B, vocabulary, step)
    after_BL = batch["position_ids"] - _starts(batch, keys_B, vocabulary)
    return {**batch, "order": jnp.maximum(after_BL + 1, 0),
            # What follows the last token of the source is of the target.
            "next_weights": jnp.where(after_BL >= -1, batch["next_weights"],
                                      0.0)}


def _starts(batch: Batch, keys_B: jax.Array,
            vocabulary: Vocabulary) -> jax.Array:
  """(B, L): the position at which the target of each token's example begins."""
  examples = batch["example_mask"].shape[1]
  uniform_BE = jax.vmap(lambda key: jax.random.uniform(key, (examples,)))(
      keys_B)
  member_BLE = (batch["example_ids"][..., None]
                == jnp.arange(1, examples + 1)[None, None])
  position_BL = batch["position_ids"]
  length_BE = jnp.sum(member_BLE, axis=1, dtype=jnp.int32)
  separates_BL = batch["input_ids"] == vocabulary.sep_id
  first_BE = jnp.min(jnp.where(
      member_BLE & separates_BL[..., None], position_BL[..., None],
      jnp.iinfo(jnp.int32).max), axis=1)
  # Behind the source a token of the text and [SEP] are left, if there are some.
  places_BE = jnp.maximum(length_BE - _LEAST_SOURCE - 1, 1)
  cut_BE = _LEAST_SOURCE + (uniform_BE * places_BE.astype(jnp.float32)
                            ).astype(jnp.int32)
  start_BE = jnp.where(first_BE < length_BE - 1,
                       first_BE + vocabulary.pair_separators, cut_BE)
  return jnp.take_along_axis(
      start_BE, jnp.maximum(batch["example_ids"] - 1, 0), axis=1)
