"""The face of every objective."""

import dataclasses
from collections.abc import Mapping
from typing import ClassVar

import jax
import jax.numpy as jnp

from bert_jax.config import Choice, UserError
from bert_jax.data.batches.spec import Keys
from bert_jax.data.labeled.base import LabeledSet
from bert_jax.data.tokenizers.vocabulary import Vocabulary
from bert_jax.model.encoder import Encoder
from bert_jax.model.heads import ClassificationHead

Batch = Mapping[str, jax.Array]
Pairs = dict[str, tuple[jax.Array, jax.Array]]


class Objective(Choice):
  """One class holds everything that sets an objective apart.

  The loss is the sum of the parts, each part its total over its weight. The
  weights are known before the network runs, so that the denominators are
  those of the whole global batch however it is split.
  """

  # What the labels in the data are, as data.labeled names their kinds; None:
  # the text itself is what is learned.
  label_kind: ClassVar[str | None] = None
  # The names of classes or tags; a member that has some makes this a field.
  labels: ClassVar[tuple[str, ...]] = ()
  # What `corrupt` adds to the keys of a batch.
  keys: ClassVar[Keys] = {}

  def complete(self, examples: LabeledSet) -> "Objective":
    """With what the training examples decide, as the names of the labels.

    Raises:
      UserError: there is nothing to learn from them.
    """
    if examples.labels is None:
      raise UserError(f"objective={self.choice_name} learns from labels: name "
                      "their column by data.columns.label.")
    if "labels" not in {field.name for field in dataclasses.fields(self)}:
      return self
    return dataclasses.replace(self, labels=examples.label_names)

  def corrupt(self, batch: Batch, keys_B: jax.Array,
              vocabulary: Vocabulary) -> Batch:
    """The batch as the network sees it; `keys_B` holds one key a row."""
    return batch

  def logits(self, encoder: Encoder, sequence_output_BLD: jax.Array,
             batch: Batch, keys_B: jax.Array | None) -> dict[str, jax.Array]:
    """Applies the heads; runs inside a compact module, so Linen modules may
    be made here. `keys_B` is None when the network is deterministic."""
    raise NotImplementedError

  def weights(self, batch: Batch) -> dict[str, jax.Array]:
    """The weight of each part of the loss, by name."""
    raise NotImplementedError

  def losses(self, logits: Mapping[str, jax.Array],
             batch: Batch) -> dict[str, jax.Array]:
    """The total of each part of the loss, in nats (or squared units)."""
    raise NotImplementedError

  def metrics(self, logits: Mapping[str, jax.Array], batch: Batch,
              vocabulary: Vocabulary) -> Pairs:
    """Further (total, weight) pairs to report."""
    return {}

  def predictions(self, logits: Mapping[str, jax.Array]) -> jax.Array:
    """Where there are labels: probabilities (B, E, C) of classes or (B, L, C)
    of tags, or numbers (B, E)."""
    raise NotImplementedError


def cross_entropy(logits_C: jax.Array, labels: jax.Array) -> jax.Array:
  """Softmax cross entropy in nats, `[..., C]` and `[...]` to `[...]`."""
  logits_C = logits_C.astype(jnp.float32)
  picked = jnp.take_along_axis(logits_C, labels[..., None], axis=-1)[..., 0]
  return jax.nn.logsumexp(logits_C, axis=-1) - picked


def weighted_sum(values: jax.Array, weights: jax.Array) -> jax.Array:
  """The sum of `values * weights`, 0 where the weight is 0 (even for nan)."""
  return jnp.sum(jnp.where(weights > 0, values, 0.0) * weights)


def hits(logits_C: jax.Array, labels: jax.Array) -> jax.Array:
  """1.0 where no logit is larger than the label's."""
  # Not by argmax, which XLA's CPU backend computes an element at a time.
  picked = jnp.take_along_axis(logits_C, labels[..., None], axis=-1)[..., 0]
  return (picked >= jnp.max(logits_C, axis=-1)).astype(jnp.float32)


def pooled_logits(encoder: Encoder, sequence_output_BLD: jax.Array,
                  batch: Batch, keys_B: jax.Array | None,
                  outputs: int) -> jax.Array:
  """(B, E, outputs): the `classifier` on the pooled output; runs inside a
  compact module."""
  pooled_BED = encoder.pool(sequence_output_BLD, batch["cls_positions"])
  head = ClassificationHead(encoder.options, outputs,
                            encoder.options.hidden_dropout_prob,
                            name="classifier")
  return head(pooled_BED, keys_B)
