"""Objectives with labels: classes, numbers, and a tag for every word."""

import dataclasses
from collections.abc import Mapping
from typing import ClassVar

import jax
import jax.numpy as jnp

from bert_jax.data.tasks import Classes, Numbers, Tags
from bert_jax.data.tokenizers import Vocabulary
from bert_jax.model.encoder import Encoder
from bert_jax.model.heads import ClassificationHead
from bert_jax.objectives.objective import (
    Batch, Objective, Pairs, cross_entropy, hits, weighted_sum)


@dataclasses.dataclass(frozen=True)
class Classification(Objective):
  """One class for a text or a pair of texts, from the pooled output.

  `labels` are the class names in the order of their ids; left empty, they
  are those of the training examples, sorted.
  """

  labels: tuple[str, ...] = ()
  label_kind: ClassVar = Classes.kind

  def logits(self, encoder: Encoder, sequence_output_BLD: jax.Array,
             batch: Batch, keys_B: jax.Array | None) -> dict[str, jax.Array]:
    pooled_BED = encoder.pool(sequence_output_BLD, batch["cls_positions"])
    head = ClassificationHead(
        encoder.options, len(self.labels),
        encoder.options.hidden_dropout_prob, name="classifier")
    return {"classifier": head(pooled_BED, keys_B)}

  def weights(self, batch: Batch) -> dict[str, jax.Array]:
    return {"classifier": batch["example_mask"].sum()}

  def losses(self, logits: Mapping[str, jax.Array],
             batch: Batch) -> dict[str, jax.Array]:
    loss_BE = cross_entropy(logits["classifier"],
                            jnp.maximum(batch["labels"], 0))
    return {"classifier": weighted_sum(loss_BE, batch["example_mask"])}

  def metrics(self, logits: Mapping[str, jax.Array], batch: Batch,
              vocabulary: Vocabulary) -> Pairs:
    hits_BE, mask_BE = (hits(logits["classifier"], batch["labels"]),
                        batch["example_mask"])
    return {"batch_accuracy": (weighted_sum(hits_BE, mask_BE), mask_BE.sum())}

  def predictions(self, logits: Mapping[str, jax.Array]) -> jax.Array:
    return jax.nn.softmax(logits["classifier"], axis=-1)


@dataclasses.dataclass(frozen=True)
class Regression(Objective):
  """One number for a text or a pair of texts; squared error."""

  label_kind: ClassVar = Numbers.kind

  def logits(self, encoder: Encoder, sequence_output_BLD: jax.Array,
             batch: Batch, keys_B: jax.Array | None) -> dict[str, jax.Array]:
    pooled_BED = encoder.pool(sequence_output_BLD, batch["cls_positions"])
    head = ClassificationHead(
        encoder.options, 1, encoder.options.hidden_dropout_prob,
        name="classifier")
    return {"classifier": head(pooled_BED, keys_B)[..., 0]}

  def weights(self, batch: Batch) -> dict[str, jax.Array]:
    return {"classifier": batch["example_mask"].sum()}

  def losses(self, logits: Mapping[str, jax.Array],
             batch: Batch) -> dict[str, jax.Array]:
    error_BE = jnp.square(logits["classifier"] - batch["labels"])
    return {"classifier": weighted_sum(error_BE, batch["example_mask"])}

  def predictions(self, logits: Mapping[str, jax.Array]) -> jax.Array:
    return logits["classifier"]


@dataclasses.dataclass(frozen=True)
class Tagging(Objective):
  """One tag for every word, read at its first piece (Devlin et al. 2019, 5.3).

  `labels` are the tags in the order of their ids, as in Classification.
  """

  labels: tuple[str, ...] = ()
  label_kind: ClassVar = Tags.kind

  def logits(self, encoder: Encoder, sequence_output_BLD: jax.Array,
             batch: Batch, keys_B: jax.Array | None) -> dict[str, jax.Array]:
    head = ClassificationHead(
        encoder.options, len(self.labels),
        encoder.options.hidden_dropout_prob, name="classifier")
    return {"classifier": head(sequence_output_BLD, keys_B)}

  def weights(self, batch: Batch) -> dict[str, jax.Array]:
    return {"classifier": _labelled(batch).sum()}

  def losses(self, logits: Mapping[str, jax.Array],
             batch: Batch) -> dict[str, jax.Array]:
    loss_BL = cross_entropy(logits["classifier"],
                            jnp.maximum(batch["labels"], 0))
    return {"classifier": weighted_sum(loss_BL, _labelled(batch))}

  def metrics(self, logits: Mapping[str, jax.Array], batch: Batch,
              vocabulary: Vocabulary) -> Pairs:
    hits_BL, mask_BL = (hits(logits["classifier"], batch["labels"]),
                        _labelled(batch))
    return {"batch_accuracy": (weighted_sum(hits_BL, mask_BL), mask_BL.sum())}

  def predictions(self, logits: Mapping[str, jax.Array]) -> jax.Array:
    return jax.nn.softmax(logits["classifier"], axis=-1)


def _labelled(batch: Batch) -> jax.Array:
  """1.0 at every position that carries a label, `[B, L]`."""
  return (batch["labels"] >= 0).astype(jnp.float32)
