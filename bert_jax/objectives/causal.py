"""Language modeling from left to right."""

import dataclasses
import math
from collections.abc import Mapping
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from bert_jax.data.batches.spec import Key, Keys
from bert_jax.data.tokenizers.vocabulary import Vocabulary
from bert_jax.metrics.weighted import Mean, Means
from bert_jax.model.encoder import Encoder
from bert_jax.model.heads import MlmHead
from bert_jax.objectives.base import Batch, Objective, weighted_sum


@dataclasses.dataclass(frozen=True)
class Causal(Objective):
  """Causal language modeling: each token is predicted from those before it.

  The loss is -log p(x_i | x_<i) of all tokens but the first of each example,
  [CLS]; the last one is [SEP] (Radford et al. 2018).
  """

  keys: ClassVar[Keys] = {
      "next_ids": Key(np.int32, "L"),
      "next_weights": Key(np.float32, "L", weighs=True)}
  reads: ClassVar = ("input_ids",)

  def order(self, batch: Batch) -> jax.Array:
    return batch["position_ids"]

  def origin(self, path: str) -> str:
    # The head of a masked LM is of the same kind.
    head, _, rest = path.partition("/")
    return f"mlm/{rest}" if head == "next_token" else path

  def corrupt(self, batch: Batch, keys_B: jax.Array, vocabulary: Vocabulary,
              step: jax.Array | None) -> Batch:
    """Adds the token that follows each."""
    return with_next(batch)

  def logits(self, encoder: Encoder, sequence_output_BLD: jax.Array,
             batch: Batch, keys_B: jax.Array | None) -> dict[str, jax.Array]:
    head = MlmHead(encoder.options, name="next_token")
    loss_BL, hits_BL = head.everywhere(
        sequence_output_BLD, batch["next_ids"], encoder.word_embeddings())
    return {"next_token": loss_BL, "hits": hits_BL}

  def asked(self, batch: Batch) -> Batch:
    return with_next(batch)

  def weights(self, batch: Batch) -> dict[str, jax.Array]:
    return {"next_token": batch["next_weights"].sum()}

  def losses(self, outputs: Mapping[str, jax.Array],
             batch: Batch) -> dict[str, jax.Array]:
    return {"next_token": weighted_sum(outputs["next_token"],
                                       batch["next_weights"])}

  def metrics(self, outputs: Mapping[str, jax.Array], batch: Batch,
              vocabulary: Vocabulary) -> Means:
    weights_BL = batch["next_weights"]
    bytes_V = jnp.asarray(vocabulary.byte_count_V, jnp.float32)
    total = self.losses(outputs, batch)["next_token"]
    return {
        "next_token_accuracy": Mean(weighted_sum(outputs["hits"], weights_BL),
                                    weights_BL.sum()),
        "bits_per_byte": Mean(total / math.log(2), weighted_sum(
            bytes_V[batch["next_ids"]], weights_BL))}


def with_next(batch: Batch) -> Batch:
  """With the token that follows each, which weighs 1 in the same example."""
  example_BL = batch["example_ids"]
  follows_BL = (_shifted(example_BL) == example_BL) & (example_BL > 0)
  return {**batch, "next_ids": _shifted(batch["input_ids"]),
          "next_weights": follows_BL.astype(jnp.float32)}


def _shifted(x_BL: jax.Array) -> jax.Array:
  """What follows in the row; 0 behind its end."""
  return jnp.pad(x_BL[:, 1:], ((0, 0), (0, 1)))
