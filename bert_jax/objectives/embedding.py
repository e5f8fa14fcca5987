"""Objectives that compare the vectors of two texts."""

import dataclasses
from collections.abc import Mapping
from typing import ClassVar, Literal

import jax
import jax.numpy as jnp
import optax

from bert_jax.config import UserError
from bert_jax.data.labeled.segments import EmbeddingSet
from bert_jax.data.labeled.base import LabeledSet
from bert_jax.model.encoder import Encoder
from bert_jax.model.pooler import gather, mean_pool
from bert_jax.objectives.base import Batch, Objective, weighted_sum


@dataclasses.dataclass(frozen=True)
class Similarity(Objective):
  """Sentence vectors: the cosine of two texts is fitted to how alike they are.

  The loss is the squared error.

  Attributes:
    pooling: the vector of a text: the mean over its tokens, or that at [CLS].
    scale: the label of two texts that say the same (STS-B: 5), by which labels
      are divided.
    normalize: whether `embed` gives vectors of length 1 (cosines are the same).
  """

  pooling: Literal["mean", "cls"] = "mean"
  scale: float = 5.0
  normalize: bool = False
  label_kind: ClassVar = EmbeddingSet

  def logits(self, encoder: Encoder, sequence_output_BLD: jax.Array,
             batch: Batch, keys_B: jax.Array | None) -> dict[str, jax.Array]:
    """`vectors` (B, E, segments, D) of length 1."""
    cls_positions = batch["cls_positions"]
    match self.pooling:
      case "mean":
        x_BED = mean_pool(sequence_output_BLD, batch["example_ids"],
                          cls_positions.shape[1])
      case "cls":
        x_BED = gather(sequence_output_BLD, cls_positions)
    x_BED = x_BED.astype(jnp.float32)
    square = jnp.square(x_BED).sum(-1, keepdims=True)
    # The vector of an empty slot is 0, and so is its gradient.
    x_BED /= jnp.sqrt(jnp.maximum(square, 1e-24))
    return {"vectors": x_BED.reshape(*batch["example_mask"].shape, -1,
                                     x_BED.shape[-1])}

  def weights(self, batch: Batch) -> dict[str, jax.Array]:
    return {"similarity": batch["example_mask"].sum()}

  def losses(self, outputs: Mapping[str, jax.Array],
             batch: Batch) -> dict[str, jax.Array]:
    first_BED, second_BED = _two(outputs["vectors"])
    cosine_BE = (first_BED * second_BED).sum(-1)
    error_BE = jnp.square(cosine_BE - batch["labels"] / self.scale)
    return {"similarity": weighted_sum(error_BE, batch["example_mask"])}

  def predictions(self, outputs: Mapping[str, jax.Array]) -> jax.Array:
    return outputs["vectors"]


@dataclasses.dataclass(frozen=True)
class Contrastive(Similarity):
  """Contrastive learning: pick the second text of a pair among a row's.

  The other passages of the row are the negatives (van den Oord et al. 2018;
  Henderson et al. 2017), so that the loss does not depend on which device
  has the row: for this objective alone the packing, `data.examples_per_row`,
  changes the loss. An example alone in its row has zero weight (no
  negatives).

  Attributes:
    scale: factor of the cosines before the softmax (inverse temperature).
  """

  scale: float = 20.0

  def complete(self, examples: LabeledSet) -> "Contrastive":
    return self  # Pairs need no labels.

  def weights(self, batch: Batch) -> dict[str, jax.Array]:
    return {"contrastive": _accompanied(batch["example_mask"]).sum()}

  def losses(self, outputs: Mapping[str, jax.Array],
             batch: Batch) -> dict[str, jax.Array]:
    mask_BE = batch["example_mask"]
    if mask_BE.shape[1] < 2:
      raise UserError("objective=contrastive takes its negatives from the same "
                      "row; set data.examples_per_row to at least 2.")
    query_BED, passage_BPD = _two(outputs["vectors"])
    score_BEP = self.scale * jnp.einsum("BED,BPD->BEP", query_BED, passage_BPD)
    score_BEP = jnp.where(mask_BE[:, None] > 0, score_BEP, -1e9)
    own_BE = jnp.broadcast_to(jnp.arange(mask_BE.shape[1])[None],
                              mask_BE.shape)
    loss_BE = optax.softmax_cross_entropy_with_integer_labels(score_BEP,
                                                              own_BE)
    return {"contrastive": weighted_sum(loss_BE, _accompanied(mask_BE))}


def _two(vectors: jax.Array) -> tuple[jax.Array, jax.Array]:
  """The vectors (B, E, D) of the first and of the second texts."""
  if vectors.shape[2] != 2:
    raise UserError("This objective needs two texts an example; name the "
                    "column of the second by data.columns.pair.")
  return vectors[:, :, 0], vectors[:, :, 1]


def _accompanied(mask_BE: jax.Array) -> jax.Array:
  """The mask of the examples that are not alone in their row."""
  return jnp.where(mask_BE.sum(-1, keepdims=True) > 1, mask_BE, 0.0)
