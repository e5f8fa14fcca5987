"""Replaced-token detection: which tokens are not those of the text."""

import dataclasses
from collections.abc import Mapping
from typing import ClassVar, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

from bert_jax.config import UserError
from bert_jax.data.batches.spec import Key
from bert_jax.data.tokenizers.vocabulary import Vocabulary
from bert_jax.metrics.weighted import Mean, Means
from bert_jax.model.bert import BertConfig
from bert_jax.model.dense import Dense, activation
from bert_jax.model.encoder import Encoder
from bert_jax.model.heads import MlmHead
from bert_jax.objectives.base import Batch, weighted_sum
from bert_jax.objectives.masking import Masking, TokenMasking
from bert_jax.objectives.mlm import Mlm


@dataclasses.dataclass(frozen=True)
class ReplacedTokens(Mlm):
  """Replaced-token detection (ELECTRA: Clark et al. 2020).

  A small generator fills in the masked tokens, and the encoder says of every
  token of the text whether it is the original. A token that the generator got
  right counts as the original. No gradient goes through what it drew.

  Attributes:
    generator: the network that replaces tokens: one that shares the encoder's
      embeddings, as ELECTRA's (tied), or has its own (untied), or none: tokens
      are replaced by random ones (random).
    generator_size: width, heads and feed-forward width of the generator, as
      fractions of the encoder's.
    weight: weight of the detection's loss, where the generator's has 1.
  """

  masking: Masking = TokenMasking(mask_fraction=0.85, random_fraction=0.0)
  generator: Literal["tied", "untied", "random"] = "tied"
  generator_size: float = 0.25
  weight: float = 50.0
  other_heads: ClassVar = ("mlm",)
  keys = Masking.keys | {"sample": Key(np.float32, "P")}

  def __post_init__(self):
    super().__post_init__()
    kinds = ("tied", "untied", "random")
    if self.generator not in kinds:
      raise UserError(f"objective.generator={self.generator}; allowed: "
                      f"{', '.join(kinds)}.")
    if not 0 < self.generator_size <= 1:
      raise UserError(f"objective.generator_size={self.generator_size:g}: more "
                      "than 0, and 1 at most.")

  def networks(self, model: BertConfig) -> dict[str, BertConfig]:
    if self.generator == "random":
      return {"encoder": model}
    heads = max(1, round(model.num_attention_heads * self.generator_size))
    width = model.hidden_size // model.num_attention_heads * heads
    return {"encoder": model, "generator": dataclasses.replace(
        model, hidden_size=width, num_attention_heads=heads,
        intermediate_size=max(1, round(model.intermediate_size
                                       * self.generator_size)),
        embedding_size=model.embedding_width)}

  def corrupt(self, batch: Batch, keys_B: jax.Array, vocabulary: Vocabulary,
              step: jax.Array | None) -> Batch:
    """The masked batch; with what decides which tokens are drawn."""
    batch = super().corrupt(batch, keys_B, vocabulary, step)
    draw_B = jax.vmap(jax.random.fold_in, (0, None))(keys_B, _DRAW)
    slots = batch["masked_positions"].shape[1]
    sample_BP = jax.vmap(lambda key: jax.random.uniform(key, (slots,)))(draw_B)
    if self.generator == "random":
      ordinary = jnp.asarray(vocabulary.ordinary_ids)
      place_BP = (sample_BP * ordinary.size).astype(jnp.int32)
      drawn_BP = ordinary[jnp.minimum(place_BP, ordinary.size - 1)]
      batch = {**batch, "input_ids": _written(batch, drawn_BP)}
    return {**batch, "sample": sample_BP}

  def outputs(self, networks: Mapping[str, Encoder], batch: Batch,
              keys_B: jax.Array | None) -> dict[str, jax.Array]:
    encoder, generated = networks["encoder"], {}
    if self.generator != "random":
      logits_BPV = self._generate(networks, batch, keys_B)
      generated = {"mlm": logits_BPV}
      batch = {**batch, "input_ids": _written(
          batch, _sampled(logits_BPV, batch["sample"]))}
    original_BL = _written(batch, batch["masked_labels"])
    x_BLD = encoder(batch, keys_B)
    return generated | self.logits(encoder, x_BLD, batch, keys_B) | {
        "input_ids": batch["input_ids"],
        "is_replaced": batch["input_ids"] != original_BL}

  def _generate(self, networks: Mapping[str, Encoder], batch: Batch,
                keys_B: jax.Array | None) -> jax.Array:
    """The generator's logits at the masked tokens, (B, P, V)."""
    encoder, generator = networks["encoder"], networks["generator"]
    shared = encoder if self.generator == "tied" else generator
    x_BLD = generator(batch, keys_B, shared.embeddings)
    return MlmHead(generator.options, name="mlm")(
        x_BLD, batch["masked_positions"], shared.word_embeddings())

  def logits(self, encoder: Encoder, sequence_output_BLD: jax.Array,
             batch: Batch, keys_B: jax.Array | None) -> dict[str, jax.Array]:
    """`replaced` (B, L): how likely a token is none of the text's."""
    return {"replaced": DetectionHead(encoder.options, name="replaced")(
        sequence_output_BLD)}

  def weights(self, batch: Batch) -> dict[str, jax.Array]:
    tokens = jnp.sum(batch["example_ids"] > 0, dtype=jnp.float32)
    generator = {} if self.generator == "random" else super().weights(batch)
    return generator | {"replaced": tokens}

  def losses(self, outputs: Mapping[str, jax.Array],
             batch: Batch) -> dict[str, jax.Array]:
    loss_BL = optax.sigmoid_binary_cross_entropy(
        outputs["replaced"], outputs["is_replaced"].astype(jnp.float32))
    real_BL = (batch["example_ids"] > 0).astype(jnp.float32)
    generator = {} if self.generator == "random" else super().losses(
        outputs, batch)
    return generator | {"replaced": self.weight * weighted_sum(loss_BL,
                                                               real_BL)}

  def metrics(self, outputs: Mapping[str, jax.Array], batch: Batch,
              vocabulary: Vocabulary) -> Means:
    real_BL = (batch["example_ids"] > 0).astype(jnp.float32)
    is_replaced_BL = outputs["is_replaced"]
    right_BL = (outputs["replaced"] > 0) == is_replaced_BL
    replaced_BL = real_BL * is_replaced_BL.astype(jnp.float32)
    tokens = real_BL.sum()
    mean = lambda x_BL, weights_BL: Mean(
        weighted_sum(x_BL.astype(jnp.float32), weights_BL), weights_BL.sum())
    generator = ({"masked_fraction": Mean(batch["masked_weights"].sum(),
                                          tokens)}
                 if self.generator == "random" else
                 super().metrics(outputs, batch, vocabulary))
    return generator | {
        "replaced_fraction": Mean(replaced_BL.sum(), tokens),
        "replaced_accuracy": mean(right_BL, real_BL),
        "replaced_recall": mean(right_BL, replaced_BL)}


# Among the streams of masking, which has 0 to 3.
_DRAW = 4


class DetectionHead(nn.Module):
  """A linear layer, the activation, and a number for each token."""

  options: BertConfig

  def setup(self):
    o = self.options
    self.transform = Dense((o.hidden_size,), (o.hidden_size,), o, True)
    self.classifier = Dense((o.hidden_size,), (1,), o, True)

  def __call__(self, x_BLD: jax.Array) -> jax.Array:
    """Float32 logits (B, L)."""
    x_BLD = activation(self.options.hidden_act)(self.transform(x_BLD))
    return self.classifier(x_BLD)[..., 0].astype(jnp.float32)


def _sampled(logits_BPV: jax.Array, sample_BP: jax.Array) -> jax.Array:
  """Tokens drawn by inverting the distribution at uniform numbers.

  So that evaluation draws as training does, and always the same.
  """
  probability_BPV = jax.nn.softmax(jax.lax.stop_gradient(logits_BPV))
  below_BPV = jnp.cumsum(probability_BPV, axis=-1)
  # Of the sum as it was rounded, which need not be 1.
  level_BP1 = sample_BP[..., None] * below_BPV[..., -1:]
  return jnp.minimum(jnp.sum(below_BPV <= level_BP1, axis=-1, dtype=jnp.int32),
                     logits_BPV.shape[-1] - 1)


def _written(batch: Batch, tokens_BP: jax.Array) -> jax.Array:
  """The row with tokens at the masked positions, (B, L)."""
  ids_BL = batch["input_ids"]
  # Unused slots write behind the row and are dropped.
  places_BP = jnp.where(batch["masked_weights"] > 0, batch["masked_positions"],
                        ids_BL.shape[1])
  rows_B1 = jnp.arange(ids_BL.shape[0])[:, None]
  return ids_BL.at[rows_B1, places_BP].set(tokens_BP.astype(ids_BL.dtype),
                                           mode="drop")
