"""Masked language modeling, alone and with next-sentence prediction."""

import dataclasses
import math
from collections.abc import Mapping
from typing import ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp

from bert_jax.data.tokenizers.vocabulary import Vocabulary
from bert_jax.model.encoder import Encoder
from bert_jax.model.heads import MlmHead
from bert_jax.objectives.base import (
    Batch, Objective, Pairs, cross_entropy, hits, weighted_sum)
from bert_jax.objectives.masking import Masking, TokenMasking


@dataclasses.dataclass(frozen=True)
class Mlm(Objective):
  """Predict the masked tokens."""

  masking: Masking = TokenMasking()
  keys: ClassVar = Masking.keys

  def corrupt(self, batch: Batch, keys_B: jax.Array,
              vocabulary: Vocabulary) -> Batch:
    return self.masking.apply(batch, keys_B, vocabulary)

  def logits(self, encoder: Encoder, sequence_output_BLD: jax.Array,
             batch: Batch, keys_B: jax.Array | None) -> dict[str, jax.Array]:
    head = MlmHead(encoder.options, name="mlm")
    return {"mlm": head(sequence_output_BLD, batch["masked_positions"],
                        encoder.word_embeddings())}

  def weights(self, batch: Batch) -> dict[str, jax.Array]:
    return {"mlm": batch["masked_weights"].sum()}

  def losses(self, logits: Mapping[str, jax.Array],
             batch: Batch) -> dict[str, jax.Array]:
    loss_BP = cross_entropy(logits["mlm"], batch["masked_labels"])
    return {"mlm": weighted_sum(loss_BP, batch["masked_weights"])}

  def metrics(self, logits: Mapping[str, jax.Array], batch: Batch,
              vocabulary: Vocabulary) -> Pairs:
    labels_BP, weights_BP = batch["masked_labels"], batch["masked_weights"]
    bytes_V = jnp.asarray(vocabulary.byte_count_V, jnp.float32)
    total = self.losses(logits, batch)["mlm"]
    return {
        "mlm_accuracy": (weighted_sum(hits(logits["mlm"], labels_BP),
                                      weights_BP), weights_BP.sum()),
        "bits_per_byte": (total / math.log(2), weighted_sum(
            bytes_V[labels_BP], weights_BP))}


@dataclasses.dataclass(frozen=True)
class MlmNsp(Mlm):
  """BERT's own objective: L = L_MLM + L_NSP."""

  def logits(self, encoder: Encoder, sequence_output_BLD: jax.Array,
             batch: Batch, keys_B: jax.Array | None) -> dict[str, jax.Array]:
    pooled_BED = encoder.pool(sequence_output_BLD, batch["cls_positions"])
    next_sentence = nn.Dense(
        2, name="nsp",
        kernel_init=nn.initializers.truncated_normal(
            encoder.options.initializer_range))
    return {**super().logits(encoder, sequence_output_BLD, batch, keys_B),
            "nsp": next_sentence(pooled_BED.astype(jnp.float32))}

  def weights(self, batch: Batch) -> dict[str, jax.Array]:
    return {**super().weights(batch), "nsp": batch["example_mask"].sum()}

  def losses(self, logits: Mapping[str, jax.Array],
             batch: Batch) -> dict[str, jax.Array]:
    loss_BE = cross_entropy(logits["nsp"], batch["next_sentence_labels"])
    return {**super().losses(logits, batch),
            "nsp": weighted_sum(loss_BE, batch["example_mask"])}

  def metrics(self, logits: Mapping[str, jax.Array], batch: Batch,
              vocabulary: Vocabulary) -> Pairs:
    hits_BE = hits(logits["nsp"], batch["next_sentence_labels"])
    mask_BE = batch["example_mask"]
    return {**super().metrics(logits, batch, vocabulary),
            "nsp_accuracy": (weighted_sum(hits_BE, mask_BE), mask_BE.sum())}
