"""Update rules, between clipping and the schedule."""

import dataclasses
import re
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from bert_jax.config import Choice, Decay
from bert_jax.training.param_paths import (
    Rules, kernel_axes, map_table, path_of)

# Weight decay leaves out norms and biases (google-research/bert
# optimization.py: exclude_from_weight_decay).
DECAYED: Rules[bool] = (
    (r"(^|/)(bias|scale)$", False),
    (r"(^|/)(kernel|embedding|lora_[ab])$", True),
)


@dataclasses.dataclass(frozen=True)
class Optimizer(Choice):
  """The optimizer; gradients are clipped by their global norm first.

  Attributes:
    clip_norm: gradient clipping: the largest global norm; 0: no clipping.
  """

  clip_norm: float = 1.0

  def rule(self) -> optax.GradientTransformation:
    """From clipped gradients to the update, which is subtracted from the
    parameters times the learning rate."""
    raise NotImplementedError

  def build(self) -> optax.GradientTransformation:
    """The rule behind the clipping.

    The learning rate is multiplied in the step, so that it follows the number
    of the step even where an update was skipped.
    """
    clip = (optax.clip_by_global_norm(self.clip_norm) if self.clip_norm
            else optax.identity())
    return _promoting(optax.chain(clip, self.rule()))


@dataclasses.dataclass(frozen=True)
class AdamW(Optimizer, name="adamw"):
  """Adam with decoupled weight decay (Loshchilov and Hutter 2019).

  Attributes:
    b1: decay rate of the average of the gradients (first moment).
    b2: decay rate of the average of the squared gradients (second moment).
    eps: epsilon that is added to the root of the second moment.
    weight_decay: decoupled weight decay, times the learning rate; norms and
      biases have none.
  """

  b1: Decay = 0.9
  b2: Decay = 0.999
  eps: float = 1e-6
  weight_decay: float = 0.01

  def rule(self) -> optax.GradientTransformation:
    return optax.chain(self.moments(), _decay(self.weight_decay))

  def moments(self) -> optax.GradientTransformation:
    """From gradients to Adam's direction."""
    return optax.scale_by_adam(self.b1, self.b2, self.eps)


@dataclasses.dataclass(frozen=True)
class BertAdam(AdamW):
  """AdamW without bias correction, as BERT was published with.

  Its first updates are up to .1 / .001**.5 = 3.2 times as large, which on small
  sets makes some seeds of a fine-tuning fail (Mosbach et al. 2020; Zhang et
  al. 2021).
  """

  def moments(self) -> optax.GradientTransformation:
    return scale_by_uncorrected_adam(self.b1, self.b2, self.eps)


@dataclasses.dataclass(frozen=True)
class Lamb(Optimizer):
  """LAMB (You et al. 2020) for large batches.

  Attributes:
    b1: decay rate of the average of the gradients (first moment).
    b2: decay rate of the average of the squared gradients (second moment).
    eps: epsilon that is added to the root of the second moment.
    weight_decay: weight decay, added to the update before the trust ratio
      scales it; norms and biases have none.
  """

  b1: Decay = 0.9
  b2: Decay = 0.999
  eps: float = 1e-6
  weight_decay: float = 0.01

  def rule(self) -> optax.GradientTransformation:
    return optax.chain(optax.scale_by_adam(self.b1, self.b2, self.eps),
                       _decay(self.weight_decay), optax.scale_by_trust_ratio())


@dataclasses.dataclass(frozen=True)
class Sgd(Optimizer):
  """SGD: stochastic gradient descent, without momentum by default.

  Attributes:
    momentum: decay rate of the sum of past gradients; 0: no momentum.
  """

  momentum: Decay = 0.0

  def rule(self) -> optax.GradientTransformation:
    return (optax.trace(self.momentum) if self.momentum
            else optax.identity())


@dataclasses.dataclass(frozen=True)
class Lion(Optimizer):
  """Lion: the sign of a momentum (Chen et al. 2023), with learning rates a
  tenth of Adam's.

  Attributes:
    b1: weight of the momentum in the update; the gradient has 1 - b1.
    b2: decay rate of the momentum.
    weight_decay: decoupled weight decay, times the learning rate; norms and
      biases have none.
  """

  b1: Decay = 0.9
  b2: Decay = 0.99
  weight_decay: float = 0.1

  def rule(self) -> optax.GradientTransformation:
    return optax.chain(optax.scale_by_lion(self.b1, self.b2),
                       _decay(self.weight_decay))


@dataclasses.dataclass(frozen=True)
class Muon(Optimizer):
  """Muon: orthogonalized momentum for the matrices of layers, pooler and
  transform (Jordan et al. 2024); Adam for embeddings, heads, norms and biases.

  Attributes:
    beta: decay rate of the momentum.
    steps: Newton-Schulz iterations that orthogonalize an update.
    b1: Adam's decay rate of the average of the gradients.
    b2: Adam's decay rate of the average of the squared gradients.
    weight_decay: decoupled weight decay, times the learning rate; norms and
      biases have none.
    rms: root mean square of the update of a matrix; at 0.2 the learning rates
      of Adam hold for both (Liu et al. 2025).
  """

  beta: Decay = 0.95
  steps: int = 5
  rms: float = 0.2
  b1: Decay = 0.9
  b2: Decay = 0.999
  weight_decay: float = 0.1

  def rule(self) -> optax.GradientTransformation:
    return optax.chain(without_rate(optax.contrib.muon(
        1.0, ns_steps=self.steps, beta=self.beta, adam_b1=self.b1,
        adam_b2=self.b2, consistent_rms=self.rms,
        muon_weight_dimension_numbers=matrices)), _decay(self.weight_decay))


def _promoting(rule: optax.GradientTransformation
               ) -> optax.GradientTransformation:
  """`rule` where jax is strict about types: optax raises floats to the power
  of its integer count of steps."""

  def update(*arguments: Any) -> Any:
    with jax.numpy_dtype_promotion("standard"):
      return rule.update(*arguments)

  return optax.GradientTransformation(rule.init, update)


def without_rate(optimizer: optax.GradientTransformation
                 ) -> optax.GradientTransformation:
  """The rule of an optimizer whose learning rate is 1: optax's updates are
  added to the parameters, those of a rule are subtracted."""
  return optax.chain(optimizer, optax.scale(-1.0))


def matrices(params: Any) -> Any:
  """The axes of the matrices in each parameter, for Muon; None: no matrix.

  Leading dimensions, as of layers, hold a matrix each.
  """

  def axes(keys: Any, leaf: Any) -> Any:
    path = path_of(keys)
    if not re.search(r"(/layers/.*|pooler|transform)/kernel$", path):
      return None
    first, split = kernel_axes(path, leaf.ndim)
    return optax.contrib.MuonDimensionNumbers(
        tuple(range(first, split)), tuple(range(split, leaf.ndim)))

  return jax.tree_util.tree_map_with_path(axes, params)


def decayed(params: Any) -> Any:
  """Which parameters weight decay is for."""
  return map_table(DECAYED, params)


def _decay(rate: float) -> optax.GradientTransformation:
  return optax.add_decayed_weights(rate, decayed)


class UncorrectedAdamState(NamedTuple):
  mu: Any
  nu: Any


def scale_by_uncorrected_adam(b1: float, b2: float, eps: float
                              ) -> optax.GradientTransformation:
  """Adam without bias correction: `AdamWeightDecayOptimizer` of Google's
  optimization.py, which optax does not offer."""

  def init(params: Any) -> UncorrectedAdamState:
    zeros = lambda: jax.tree.map(jnp.zeros_like, params)
    return UncorrectedAdamState(zeros(), zeros())

  def update(gradients: Any, state: UncorrectedAdamState, params: Any = None
             ) -> tuple[Any, UncorrectedAdamState]:
    del params
    mu = optax.tree.update_moment(gradients, state.mu, b1, 1)
    nu = optax.tree.update_moment(gradients, state.nu, b2, 2)
    return (jax.tree.map(lambda m, v: m / (jnp.sqrt(v) + eps), mu, nu),
            UncorrectedAdamState(mu, nu))

  return optax.GradientTransformation(init, update)
