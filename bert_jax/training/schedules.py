"""Learning rates over the steps."""

import dataclasses

import jax.numpy as jnp
import optax

from bert_jax.config import Choice, Fraction, UserError


@dataclasses.dataclass(frozen=True)
class Schedule(Choice):
  """The learning-rate schedule: a linear warm-up, then a decay.

  Attributes:
    learning_rate: peak learning rate, at the end of the warm-up.
    warmup_fraction: fraction of the steps in which the rate rises from 0.
  """

  learning_rate: float = 1e-4
  warmup_fraction: float = 0.01

  def __post_init__(self):
    if not 0 <= self.warmup_fraction <= 1:
      raise UserError(
          f"schedule.warmup_fraction={self.warmup_fraction}: a share of the "
          "steps, between 0 and 1.")

  def decay(self, steps: int) -> optax.Schedule:
    """The rate over the steps that follow the warm-up."""
    raise NotImplementedError

  def build(self, steps: int) -> optax.Schedule:
    """The rate of update n = 0, 1, ..., steps - 1.

    As in Google's optimization.py, update n of a warm-up of w steps has the
    rate n / w of the peak, so the first update changes nothing but moments.
    """
    warmup_steps = round(self.warmup_fraction * steps)
    rate = optax.join_schedules(
        [optax.linear_schedule(0.0, self.learning_rate, warmup_steps),
         self.decay(max(steps - warmup_steps, 1))], [warmup_steps])
    # Optax counts in integers and then multiplies them with floats.
    return lambda update: rate(jnp.asarray(update, jnp.float32))


@dataclasses.dataclass(frozen=True)
class LinearSchedule(Schedule):
  """Linear decay to zero, as BERT."""

  def decay(self, steps: int) -> optax.Schedule:
    return optax.linear_schedule(self.learning_rate, 0.0, steps)


@dataclasses.dataclass(frozen=True)
class CosineSchedule(Schedule):
  """Cosine decay to zero, or to a fraction of the peak.

  Attributes:
    final: learning rate at the end, as a fraction of the peak.
  """

  final: Fraction = 0.0

  def decay(self, steps: int) -> optax.Schedule:
    return optax.cosine_decay_schedule(self.learning_rate, steps, self.final)


@dataclasses.dataclass(frozen=True)
class TrapezoidSchedule(Schedule):
  """Constant, then linear decay to zero (Zhai et al. 2022).

  Attributes:
    decay_fraction: fraction of the steps after the warm-up in which the rate
      decays.
  """

  decay_fraction: Fraction = 0.2

  def decay(self, steps: int) -> optax.Schedule:
    last = max(round(self.decay_fraction * steps), 1)
    return optax.join_schedules(
        [optax.constant_schedule(self.learning_rate),
         optax.linear_schedule(self.learning_rate, 0.0, last)], [steps - last])


@dataclasses.dataclass(frozen=True)
class ConstantSchedule(Schedule):
  """Constant after the warm-up: no decay."""

  def decay(self, steps: int) -> optax.Schedule:
    return optax.constant_schedule(self.learning_rate)
