"""Update rules; the schedule and the clipping stand around them."""

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from bert_jax.config import Choice
from bert_jax.training.param_paths import Rules, map_table

# Weight decay leaves out norms and biases (google-research/bert
# optimization.py: exclude_from_weight_decay).
DECAYED: Rules[bool] = (
    (r"(^|/)(bias|scale)$", False),
    (r"(^|/)(kernel|embedding|lora_[ab])$", True),
)


@dataclasses.dataclass(frozen=True)
class Optimizer(Choice):
  """A rule for updates; gradients are clipped by their global norm first.

  `clip_norm` 0 leaves them as they are.
  """

  clip_norm: float = 1.0

  def rule(self) -> optax.GradientTransformation:
    """From clipped gradients to what is taken from the parameters, times the
    learning rate."""
    raise NotImplementedError

  def build(self) -> optax.GradientTransformation:
    """The step multiplies with the learning rate, so that the rate follows
    the steps even where one was left out."""
    clip = (optax.clip_by_global_norm(self.clip_norm) if self.clip_norm
            else optax.identity())
    return _promoting(optax.chain(clip, self.rule()))


@dataclasses.dataclass(frozen=True)
class AdamW(Optimizer, name="adamw"):
  """Adam with decoupled decay (Loshchilov and Hutter 2019)."""

  b1: float = 0.9
  b2: float = 0.999
  eps: float = 1e-6
  weight_decay: float = 0.01

  def rule(self) -> optax.GradientTransformation:
    return optax.chain(self.moments(), _decay(self.weight_decay))

  def moments(self) -> optax.GradientTransformation:
    """What Adam makes of gradients."""
    return optax.scale_by_adam(self.b1, self.b2, self.eps)


@dataclasses.dataclass(frozen=True)
class BertAdam(AdamW):
  """AdamW without bias correction, which BERT was published with.

  Its first updates are up to .1 / .001**.5 = 3.2 times as large, which on small
  sets makes some seeds of a fine-tuning fail (Mosbach et al. 2020; Zhang et
  al. 2021).
  """

  def moments(self) -> optax.GradientTransformation:
    return scale_by_uncorrected_adam(self.b1, self.b2, self.eps)


@dataclasses.dataclass(frozen=True)
class Lamb(Optimizer):
  """LAMB (You et al. 2020) for large batches."""

  b1: float = 0.9
  b2: float = 0.999
  eps: float = 1e-6
  weight_decay: float = 0.01

  def rule(self) -> optax.GradientTransformation:
    return optax.chain(optax.scale_by_adam(self.b1, self.b2, self.eps),
                       _decay(self.weight_decay), optax.scale_by_trust_ratio())


@dataclasses.dataclass(frozen=True)
class Sgd(Optimizer):
  """Plain stochastic gradient descent."""

  momentum: float = 0.0

  def rule(self) -> optax.GradientTransformation:
    return (optax.trace(self.momentum) if self.momentum
            else optax.identity())


def _promoting(rule: optax.GradientTransformation
               ) -> optax.GradientTransformation:
  """`rule` where jax is strict about types: optax raises floats to the power
  of its integer count of steps."""

  def update(*arguments: Any) -> Any:
    with jax.numpy_dtype_promotion("standard"):
      return rule.update(*arguments)

  return optax.GradientTransformation(rule.init, update)


def _decay(rate: float) -> optax.GradientTransformation:
  return optax.add_decayed_weights(rate, lambda p: map_table(DECAYED, p))


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
