"""One number for an example."""

import dataclasses
from collections.abc import Mapping
from typing import ClassVar

import jax
import jax.numpy as jnp

from bert_jax.data.labeled.texts import RegressionSet
from bert_jax.model.encoder import Encoder
from bert_jax.objectives.base import (
    Batch, Objective, pooled_logits, weighted_sum)


@dataclasses.dataclass(frozen=True)
class Regression(Objective):
  """Regression: a number for a text or a pair of texts; squared error."""

  label_kind: ClassVar = RegressionSet

  def logits(self, encoder: Encoder, sequence_output_BLD: jax.Array,
             batch: Batch, keys_B: jax.Array | None) -> dict[str, jax.Array]:
    return {"classifier": pooled_logits(
        encoder, sequence_output_BLD, batch, keys_B, 1)[..., 0]}

  def weights(self, batch: Batch) -> dict[str, jax.Array]:
    return {"classifier": batch["example_mask"].sum()}

  def losses(self, outputs: Mapping[str, jax.Array],
             batch: Batch) -> dict[str, jax.Array]:
    error_BE = jnp.square(outputs["classifier"] - batch["labels"])
    return {"classifier": weighted_sum(error_BE, batch["example_mask"])}

  def predictions(self, outputs: Mapping[str, jax.Array]) -> jax.Array:
    return outputs["classifier"]
