"""Soft labels: probabilities of the classes in the place of one class."""

import dataclasses
from collections.abc import Mapping
from typing import ClassVar

import jax
import jax.numpy as jnp
from jax.scipy.special import xlogy

from bert_jax.config import UserError
from bert_jax.data.labeled.soft_labels import SoftLabelSet
from bert_jax.objectives.base import Batch, Objective, weighted_sum
from bert_jax.objectives.classification import Classification


@dataclasses.dataclass(frozen=True)
class _Soft(Objective):
  """The loss of soft labels, beside that of the objective it is mixed into.

  Attributes:
    temperature: T; the logits of both sides are divided by it, and the loss
      has the factor T^2, so that its gradient is of one size for all T
      (Hinton et al. 2015).
    soft_weight: factor of the loss of soft labels, which is the KL divergence
      from them; 0: it is not computed.
    hard_weight: factor of the loss of the labels themselves; 0: none.
  """

  temperature: float = 2.0
  soft_weight: float = 1.0
  hard_weight: float = 0.0
  head: ClassVar[str] = "classifier"  # whose logits are compared

  def __post_init__(self):
    super().__post_init__()
    if not self.temperature > 0:
      raise UserError(f"objective.temperature={self.temperature}: more than 0.")
    factors = self.factors()
    if min(factors.values()) < 0 or not any(factors.values()):
      raise UserError(", ".join(
          f"objective.{name}={value:g}" for name, value in factors.items())
                      + ": at least 0, and one above.")

  def factors(self) -> dict[str, float]:
    """The factors of the parts of the loss, by their options."""
    return {"soft_weight": self.soft_weight, "hard_weight": self.hard_weight}

  def soft_labels(self, outputs: Mapping[str, jax.Array],
                  batch: Batch) -> jax.Array:
    """Probabilities at the temperature, in the shape of the head's logits."""
    raise NotImplementedError

  def soft_mask(self, batch: Batch) -> jax.Array:
    """1.0 where there are soft labels."""
    return batch["example_mask"]

  def weights(self, batch: Batch) -> dict[str, jax.Array]:
    weights = super().weights(batch) if self.hard_weight else {}
    if self.soft_weight:
      weights["soft"] = self.soft_mask(batch).sum()
    return weights

  def losses(self, outputs: Mapping[str, jax.Array],
             batch: Batch) -> dict[str, jax.Array]:
    losses = {}
    if self.hard_weight:
      losses = {name: self.hard_weight * total for name, total
                in super().losses(outputs, batch).items()}
    if self.soft_weight:
      loss = divergence(self.soft_labels(outputs, batch),
                        outputs[self.head] / self.temperature)
      losses["soft"] = self.soft_weight * self.temperature**2 * weighted_sum(
          loss, self.soft_mask(batch))
    return losses


@dataclasses.dataclass(frozen=True)
class SoftLabels(_Soft, Classification):
  """Classification by soft labels: columns of probabilities, as
  `bert-jax predict` writes those of a teacher."""

  label_kind: ClassVar = SoftLabelSet

  def label_mask(self, batch: Batch) -> jax.Array:
    return jnp.where(batch["labels"] >= 0, batch["example_mask"], 0.0)

  def soft_labels(self, outputs: Mapping[str, jax.Array],
                  batch: Batch) -> jax.Array:
    power_BEC = batch["probabilities"] ** (1 / self.temperature)
    # An empty slot has none.
    return power_BEC / jnp.maximum(power_BEC.sum(-1, keepdims=True), 1e-30)


def divergence(target_C: jax.Array, logits_C: jax.Array) -> jax.Array:
  """KL(target || softmax(logits)) over the last dimension, in nats."""
  log_p_C = jax.nn.log_softmax(logits_C)
  return (xlogy(target_C, target_C) - target_C * log_p_C).sum(-1)
