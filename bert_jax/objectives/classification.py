"""Objectives with labels: classes, numbers, and a tag for every word."""

import dataclasses
import math
from collections.abc import Mapping
from typing import ClassVar

import jax
import jax.numpy as jnp
import optax

from bert_jax.config import UserError
from bert_jax.data.labeled.segments import MultipleChoiceSet
from bert_jax.data.labeled.base import LabeledSet
from bert_jax.data.labeled.texts import ClassificationSet
from bert_jax.data.labeled.multi_label import MultiLabelSet
from bert_jax.data.labeled.tagging import TaggingSet
from bert_jax.data.tokenizers.vocabulary import Vocabulary
from bert_jax.metrics.weighted import Mean, Means
from bert_jax.model.encoder import Encoder
from bert_jax.model.heads import ClassificationHead
from bert_jax.model.ops import hits
from bert_jax.objectives.base import (
    Batch, Objective, pooled_logits, weighted_sum)


class SoftmaxObjective:
  """Shared by objectives whose `classifier` picks one of several by softmax."""

  def label_mask(self, batch: Batch) -> jax.Array:
    """1.0 where there is a label, in the labels' shape."""
    return batch["example_mask"]

  def label_weights(self, batch: Batch) -> jax.Array:
    """The weight of each label in the loss."""
    return self.label_mask(batch)

  def weights(self, batch: Batch) -> dict[str, jax.Array]:
    return {"classifier": self.label_weights(batch).sum()}

  def losses(self, outputs: Mapping[str, jax.Array],
             batch: Batch) -> dict[str, jax.Array]:
    losses = optax.softmax_cross_entropy_with_integer_labels(
        outputs["classifier"], jnp.maximum(batch["labels"], 0))
    return {"classifier": weighted_sum(losses, self.label_weights(batch))}

  def metrics(self, outputs: Mapping[str, jax.Array], batch: Batch,
              vocabulary: Vocabulary) -> Means:
    right, mask = (hits(outputs["classifier"], batch["labels"]),
                   self.label_mask(batch))
    return {"batch_accuracy": Mean(weighted_sum(right, mask), mask.sum())}

  def predictions(self, outputs: Mapping[str, jax.Array]) -> jax.Array:
    return jax.nn.softmax(outputs["classifier"], axis=-1)


@dataclasses.dataclass(frozen=True)
class MultiLabel(Objective):
  """Multi-label classification: any number of classes for a text (sigmoid).

  The loss of an example is the mean over the classes, as in torch's
  BCEWithLogitsLoss.

  Attributes:
    labels: names of the classes; if empty, those in the data, sorted.
  """

  labels: tuple[str, ...] = ()
  label_kind: ClassVar = MultiLabelSet

  def logits(self, encoder: Encoder, sequence_output_BLD: jax.Array,
             batch: Batch, keys_B: jax.Array | None) -> dict[str, jax.Array]:
    return {"classifier": pooled_logits(
        encoder, sequence_output_BLD, batch, keys_B, len(self.labels))}

  def weights(self, batch: Batch) -> dict[str, jax.Array]:
    return {"classifier": batch["example_mask"].sum()}

  def losses(self, outputs: Mapping[str, jax.Array],
             batch: Batch) -> dict[str, jax.Array]:
    loss_BEC = optax.sigmoid_binary_cross_entropy(outputs["classifier"],
                                                  batch["labels"])
    return {"classifier": weighted_sum(loss_BEC.mean(-1),
                                       batch["example_mask"])}

  def predictions(self, outputs: Mapping[str, jax.Array]) -> jax.Array:
    return jax.nn.sigmoid(outputs["classifier"])


@dataclasses.dataclass(frozen=True)
class MultipleChoice(SoftmaxObjective, Objective):
  """Multiple choice: which of several texts follows another, as in SWAG.

  Each choice is a segment with a logit; the softmax is over an example's
  choices (Devlin et al. 2019, 4.4).

  Attributes:
    labels: names of the choices, as many as an example has; if empty, as the
      data has them.
  """

  labels: tuple[str, ...] = ()
  label_kind: ClassVar = MultipleChoiceSet

  def head_rows(self) -> tuple[str, ...]:
    return ()  # One output, for any choice.

  def logits(self, encoder: Encoder, sequence_output_BLD: jax.Array,
             batch: Batch, keys_B: jax.Array | None) -> dict[str, jax.Array]:
    # Of (B, E * choices) segments.
    logits = pooled_logits(encoder, sequence_output_BLD, batch, keys_B, 1)
    return {"classifier": logits.reshape(*batch["example_mask"].shape, -1)}


@dataclasses.dataclass(frozen=True)
class _Classes(SoftmaxObjective, Objective):
  """
  Attributes:
    labels: names of the classes, in the order of their ids; if empty, those
      of the training examples, sorted.
    class_weights: weight of each class in the loss, which is divided by the
      sum of the examples' weights, as in torch's CrossEntropyLoss; if empty,
      all have 1.
    balanced: whether rare classes weigh more: n / (C * examples of the class),
      for the n examples of C classes in the training set.
  """

  labels: tuple[str, ...] = ()
  class_weights: tuple[float, ...] = ()
  balanced: bool = False

  def __post_init__(self):
    super().__post_init__()
    if self.class_weights and not (min(self.class_weights) >= 0
                                   and 0 < sum(self.class_weights) < math.inf):
      raise UserError(
          f"objective.class_weights={','.join(map(str, self.class_weights))}: "
          "each at least 0, and one above.")

  def complete(self, examples: LabeledSet) -> "_Classes":
    weights_C = self.class_weights
    if self.balanced:
      count_C = examples.counts_C()
      weights_C = tuple((count_C.sum() / len(count_C)
                         / count_C.clip(1)).tolist())
    if len(weights_C) not in (0, len(examples.label_names)):
      raise UserError(
          f"objective.class_weights has {len(weights_C)} weights, but there "
          f"are {len(examples.label_names)} labels: "
          f"{', '.join(examples.label_names)}.")
    return dataclasses.replace(super().complete(examples),
                               class_weights=weights_C)

  def label_weights(self, batch: Batch) -> jax.Array:
    if not self.class_weights:
      return self.label_mask(batch)
    weights_C = jnp.asarray(self.class_weights, jnp.float32)
    return self.label_mask(batch) * weights_C[jnp.maximum(batch["labels"], 0)]


@dataclasses.dataclass(frozen=True)
class Classification(_Classes):
  """Classification: a class for a text or a pair, from the pooled output."""

  label_kind: ClassVar = ClassificationSet

  def logits(self, encoder: Encoder, sequence_output_BLD: jax.Array,
             batch: Batch, keys_B: jax.Array | None) -> dict[str, jax.Array]:
    return {"classifier": pooled_logits(
        encoder, sequence_output_BLD, batch, keys_B, len(self.labels))}


@dataclasses.dataclass(frozen=True)
class Tagging(_Classes):
  """Tagging: a tag for every word, read at its first piece.

  (Devlin et al. 2019, 5.3, for named entities.)
  """

  label_kind: ClassVar = TaggingSet

  def logits(self, encoder: Encoder, sequence_output_BLD: jax.Array,
             batch: Batch, keys_B: jax.Array | None) -> dict[str, jax.Array]:
    head = ClassificationHead(
        encoder.options, len(self.labels),
        encoder.options.hidden_dropout_prob, name="classifier")
    return {"classifier": head(encoder.features(sequence_output_BLD),
                               keys_B)}

  def label_mask(self, batch: Batch) -> jax.Array:
    return (batch["labels"] >= 0).astype(jnp.float32)
