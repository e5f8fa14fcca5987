"""Norms, and where they stand in a layer."""

import dataclasses
from collections.abc import Callable
from typing import Literal

import flax.linen as nn
import jax
import jax.numpy as jnp

from bert_jax.config import Choice
from bert_jax.model.normalize import normalize

Placement = Literal["post", "pre", "sandwich"]
Function = Callable[[jax.Array], jax.Array]


class Norm(Choice):
  """How vectors are normalized."""

  def build(self, epsilon: float, name: str | None = None) -> nn.Module:
    """A module from (..., D) to (..., D) that may own parameters."""
    raise NotImplementedError


@dataclasses.dataclass(frozen=True)
class LayerNorm(Norm):
  """Layer normalization, (x - mean) / deviation * scale (Ba et al. 2016).

  Attributes:
    bias: whether the norm adds a learned bias.
  """

  bias: bool = True

  def build(self, epsilon, name=None):
    return Normalize(epsilon, True, self.bias, name=name)


@dataclasses.dataclass(frozen=True)
class RmsNorm(Norm):
  """RMSNorm, x / root mean square * scale (Zhang and Sennrich 2019).

  Attributes:
    bias: whether the norm adds a learned bias.
  """

  bias: bool = False

  def build(self, epsilon, name=None):
    return Normalize(epsilon, False, self.bias, name=name)


class Normalize(nn.Module):
  """Both norms, in float32.

  Flax's own refuse bfloat16 under strict type promotion (they subtract a
  float32 mean from it), and its RMSNorm has no bias.
  """

  epsilon: float
  centered: bool
  use_bias: bool

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    vector = lambda name, init: jnp.expand_dims(
        self.param(name, init, x.shape[-1:]), range(x.ndim - 1))
    scale = vector("scale", nn.initializers.ones)
    bias = vector("bias", nn.initializers.zeros) if self.use_bias else None
    return normalize(self.epsilon, self.centered, x, scale, bias)


def residual(placement: Placement, x: jax.Array, sublayer: Function,
             norm: Function, outer_norm: Function) -> jax.Array:
  """Adds what `sublayer` makes of `x`, with norms where `placement` says.

  post: Vaswani et al. 2017; pre: Xiong et al. 2020; sandwich: Ding et al. 2021
  (CogView), before and after the sublayer.
  """
  match placement:
    case "post":
      return norm(x + sublayer(x))
    case "pre":
      return x + sublayer(norm(x))
    case "sandwich":
      return x + outer_norm(sublayer(norm(x)))


def finish(placement: Placement, x: jax.Array, norm: Function) -> jax.Array:
  """The output of the last layer, normalized if it is a sum."""
  return x if placement == "post" else norm(x)
