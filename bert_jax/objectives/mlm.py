"""Masked language modeling, alone and with next-sentence prediction."""

import dataclasses
import math
from collections.abc import Mapping
from typing import ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp

from bert_jax.data.tokenizers.base import LoadedTokenizer
from bert_jax.data.tokenizers.vocabulary import Vocabulary
from bert_jax.metrics.weighted import Mean, Means
from bert_jax.model.encoder import Encoder
from bert_jax.model.heads import MlmHead
from bert_jax.model.ops import cross_entropy, hits
from bert_jax.objectives.base import Batch, Objective, weighted_sum
from bert_jax.objectives.masking import Masking, TokenMasking

# A masked share is far from the rate above or below this many times it.
_FAR = 1.2


@dataclasses.dataclass(frozen=True)
class Mlm(Objective):
  """Masked language modeling: predict the masked tokens."""

  masking: Masking = TokenMasking()
  keys: ClassVar = Masking.keys
  reads: ClassVar = ("input_ids",)

  def tokenized(self, tokenizer: LoadedTokenizer) -> "Mlm":
    return dataclasses.replace(self, masking=self.masking.tokenized(tokenizer))

  def corrupt(self, batch: Batch, keys_B: jax.Array, vocabulary: Vocabulary,
              step: jax.Array | None) -> Batch:
    return self.masking.apply(batch, keys_B, vocabulary, step)

  def asked(self, batch: Batch) -> Batch:
    ids_BL = batch["input_ids"]
    return {**batch, "masked_positions": jnp.broadcast_to(
        jnp.arange(ids_BL.shape[1])[None], ids_BL.shape)}

  def logits(self, encoder: Encoder, sequence_output_BLD: jax.Array,
             batch: Batch, keys_B: jax.Array | None) -> dict[str, jax.Array]:
    head = MlmHead(encoder.options, name="mlm")
    return {"mlm": head(sequence_output_BLD, batch["masked_positions"],
                        encoder.word_embeddings())}

  def weights(self, batch: Batch) -> dict[str, jax.Array]:
    return {"mlm": batch["masked_weights"].sum()}

  def losses(self, outputs: Mapping[str, jax.Array],
             batch: Batch) -> dict[str, jax.Array]:
    loss_BP = cross_entropy(outputs["mlm"], batch["masked_labels"])
    return {"mlm": weighted_sum(loss_BP, batch["masked_weights"])}

  def remark(self, scores: Mapping[str, float]) -> str:
    share, masking = scores.get("masked_fraction", math.nan), self.masking
    rates = masking.rate, masking.initial_rate or masking.rate
    if min(rates) / _FAR <= share <= max(rates) * _FAR or math.isnan(share):
      return ""
    return (f"{share:.1%} of the tokens are predicted, where objective.masking."
            f"rate={masking.rate:g}: the others are special or unknown, do not "
            "fit, or stand in rows too short for a share.")

  def metrics(self, outputs: Mapping[str, jax.Array], batch: Batch,
              vocabulary: Vocabulary) -> Means:
    labels_BP, weights_BP = batch["masked_labels"], batch["masked_weights"]
    bytes_V = jnp.asarray(vocabulary.byte_count_V, jnp.float32)
    total = Mlm.losses(self, outputs, batch)["mlm"]
    hits_BP = hits(outputs["mlm"], labels_BP)
    tokens = jnp.sum(batch["example_ids"] > 0, dtype=jnp.float32)
    return {
        "masked_fraction": Mean(weights_BP.sum(), tokens),
        "mlm_accuracy": Mean(weighted_sum(hits_BP, weights_BP),
                             weights_BP.sum()),
        "bits_per_byte": Mean(total / math.log(2), weighted_sum(
            bytes_V[labels_BP], weights_BP))}


@dataclasses.dataclass(frozen=True)
class MlmNsp(Mlm):
  """BERT's own: masked language modeling and next-sentence prediction."""

  reads: ClassVar = (*Mlm.reads, "next_sentence_labels")
  # Of the loss, and the name of its head.
  pair_part: ClassVar[str] = "nsp"
  pair_labels: ClassVar = "next"

  def logits(self, encoder: Encoder, sequence_output_BLD: jax.Array,
             batch: Batch, keys_B: jax.Array | None) -> dict[str, jax.Array]:
    pooled_BED = encoder.pool(sequence_output_BLD, batch)
    of_pairs = nn.Dense(
        2, name=self.pair_part,
        kernel_init=nn.initializers.truncated_normal(
            encoder.options.initializer_range))
    return {**super().logits(encoder, sequence_output_BLD, batch, keys_B),
            self.pair_part: of_pairs(pooled_BED.astype(jnp.float32))}

  def weights(self, batch: Batch) -> dict[str, jax.Array]:
    return {**super().weights(batch),
            self.pair_part: batch["example_mask"].sum()}

  def losses(self, outputs: Mapping[str, jax.Array],
             batch: Batch) -> dict[str, jax.Array]:
    loss_BE = cross_entropy(outputs[self.pair_part],
                            batch["next_sentence_labels"])
    return {**super().losses(outputs, batch),
            self.pair_part: weighted_sum(loss_BE, batch["example_mask"])}

  def metrics(self, outputs: Mapping[str, jax.Array], batch: Batch,
              vocabulary: Vocabulary) -> Means:
    hits_BE = hits(outputs[self.pair_part], batch["next_sentence_labels"])
    mask_BE = batch["example_mask"]
    labels_BE = batch["next_sentence_labels"].astype(jnp.float32)
    return {**super().metrics(outputs, batch, vocabulary),
            f"{self.pair_part}_accuracy": Mean(weighted_sum(hits_BE, mask_BE),
                                               mask_BE.sum()),
            # See `summarize`.
            f"{self.pair_part}_majority": Mean(
                weighted_sum(labels_BE, mask_BE), mask_BE.sum())}
