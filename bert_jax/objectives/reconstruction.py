"""Masked reconstruction: from the vectors that are seen to those that are not."""

import dataclasses
from collections.abc import Mapping
from typing import ClassVar

import jax
import jax.numpy as jnp

from bert_jax.config import UserError
from bert_jax.data.batches.spec import Key
from bert_jax.data.tokenizers.vocabulary import Vocabulary
from bert_jax.metrics.weighted import Mean, Means
from bert_jax.model.dense import Dense
from bert_jax.model.encoder import Encoder
from bert_jax.objectives.base import Batch, Objective, weighted_sum


@dataclasses.dataclass(frozen=True)
class Reconstruction(Objective):
  """Masked reconstruction: predict hidden vectors of numbers; squared error.

  SimMIM's form (Xie et al. 2022): a learned vector stands in the place of each
  hidden one, which a linear layer predicts from the encoder's output there. Its
  loss is the mean squared error of its numbers, where SimMIM has the absolute
  one; that of a batch is the mean over the hidden vectors.

  Attributes:
    rate: masking rate: the fraction of a row's vectors that is hidden, rounded,
      but one at least.
  """

  rate: float = 0.6
  keys: ClassVar = {"targets": Key(jnp.float32, "LJ"),
                    "hidden": Key(jnp.float32, "L", weighs=True)}
  reads: ClassVar = ("values",)

  def __post_init__(self):
    super().__post_init__()
    if not 0 < self.rate < 1:
      raise UserError(f"objective.rate={self.rate}: expected a fraction of the "
                      "vectors, more than 0 and less than 1.")

  def corrupt(self, batch: Batch, keys_B: jax.Array, vocabulary: Vocabulary,
              step: jax.Array | None) -> Batch:
    """Moves hidden vectors from `values`, where zeros are left, to `targets`."""
    places = batch["position_ids"].shape[1]
    # [CLS] is no vector, and is never hidden.
    vector_BL = (batch["example_ids"] > 0) & (batch["position_ids"] > 0)
    vectors_B = vector_BL.sum(-1, dtype=jnp.float32)
    count_B = jnp.maximum(jnp.round(self.rate * vectors_B), 1).astype(jnp.int32)
    score_BL = jax.vmap(lambda key: jax.random.uniform(key, (places,)))(keys_B)
    order_BL = jnp.argsort(jnp.where(vector_BL, score_BL, 2.0), axis=-1)
    rank_BL = jnp.argsort(order_BL, axis=-1)
    hidden_BL = vector_BL & (rank_BL < count_B[:, None])
    return {**batch, "targets": batch["values"],
            "values": jnp.where(hidden_BL[..., None], 0.0, batch["values"]),
            "hidden": hidden_BL.astype(jnp.float32)}

  def logits(self, encoder: Encoder, sequence_output_BLD: jax.Array,
             batch: Batch, keys_B: jax.Array | None) -> dict[str, jax.Array]:
    """`reconstruction` (B, L, J), of every place."""
    head = Dense((encoder.options.hidden_size,), batch["values"].shape[-1:],
                 encoder.options, use_bias=True, name="reconstruction")
    return {"reconstruction": head(sequence_output_BLD).astype(jnp.float32)}

  def weights(self, batch: Batch) -> dict[str, jax.Array]:
    return {"reconstruction": batch["hidden"].sum()}

  def losses(self, outputs: Mapping[str, jax.Array],
             batch: Batch) -> dict[str, jax.Array]:
    error_BLJ = jnp.square(outputs["reconstruction"] - batch["targets"])
    return {"reconstruction": weighted_sum(error_BLJ.mean(-1),
                                           batch["hidden"])}

  def metrics(self, outputs: Mapping[str, jax.Array], batch: Batch,
              vocabulary: Vocabulary) -> Means:
    """What predicting zeros would cost, beside the loss."""
    square_BL = jnp.square(batch["targets"]).mean(-1)
    vectors = (batch["position_ids"] > 0).sum(dtype=jnp.float32)
    return {"hidden_fraction": Mean(batch["hidden"].sum(), vectors),
            "squares": Mean(weighted_sum(square_BL, batch["hidden"]),
                            batch["hidden"].sum())}
