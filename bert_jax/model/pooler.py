"""One vector for each example, which heads for labels of examples read."""

import dataclasses
from typing import TYPE_CHECKING

import flax.linen as nn
import jax
import jax.numpy as jnp

from bert_jax.config import Choice
from bert_jax.model.dense import Activation, Dense, activation

if TYPE_CHECKING:
  from bert_jax.model.bert import BertConfig


@dataclasses.dataclass(frozen=True)
class Pooler(Choice, abstract=True):
  """How one vector is made of the tokens of an example, for heads that label
  examples: a vector of them, then a linear layer and an activation function.

  Attributes:
    activation: activation function behind the linear layer: BERT and RoBERTa
      have tanh, DistilBERT relu, ELECTRA gelu.
    norm: whether a norm follows the activation function (ModernBERT).
    tokens: whether heads that label tokens have such a linear layer, too, for
      the vector of each token (ModernBERT).
  """

  activation: Activation = "tanh"
  norm: bool = False
  tokens: bool = False

  def build(self, options: "BertConfig") -> nn.Module:
    """A module as Pooled, whose parameters lie at encoder/pooler."""
    return Pooled(options, self)

  def vector(self, x_BLD: jax.Array, cls_positions_BE: jax.Array,
             example_ids_BL: jax.Array) -> jax.Array:
    """(B, E, D): the vector of each example that is transformed."""
    raise NotImplementedError


@dataclasses.dataclass(frozen=True)
class ClsPooler(Pooler):
  """The vector at [CLS] (Devlin et al. 2019)."""

  def vector(self, x_BLD, cls_positions_BE, example_ids_BL):
    return gather(x_BLD, cls_positions_BE)


@dataclasses.dataclass(frozen=True)
class MeanPooler(Pooler):
  """The mean over an example's tokens."""

  def vector(self, x_BLD, cls_positions_BE, example_ids_BL):
    return mean_pool(x_BLD, example_ids_BL,
                     cls_positions_BE.shape[1]).astype(x_BLD.dtype)


class Pooled(nn.Module):
  options: "BertConfig"
  choice: Pooler

  def setup(self):
    o = self.options
    self.dense = Dense((o.hidden_size,), (o.hidden_size,), o, o.heads_have_bias)
    nn.share_scope(self, self.dense)  # pooler/kernel, without /dense.
    if self.choice.norm:
      self.norm = o.norm.build(o.layer_norm_eps)

  def __call__(self, x_BLD: jax.Array, cls_positions_BE: jax.Array,
               example_ids_BL: jax.Array) -> jax.Array:
    """(B, E, D): one vector for each example."""
    return self.transform(self.choice.vector(x_BLD, cls_positions_BE,
                                             example_ids_BL))

  def transform(self, x_BLD: jax.Array) -> jax.Array:
    """Vectors of examples or tokens, through the layers."""
    x_BLD = activation(self.choice.activation)(self.dense(x_BLD))
    return self.norm(x_BLD) if self.choice.norm else x_BLD


def gather(x_BLD: jax.Array, positions_BP: jax.Array) -> jax.Array:
  """(B, P, D): the vectors at each row's positions."""
  return jnp.take_along_axis(x_BLD, positions_BP[..., None], axis=1,
                             mode="clip")


def mean_pool(x_BLD: jax.Array, example_ids_BL: jax.Array,
              examples: int) -> jax.Array:
  """(B, E, D) float32: the mean over each example's tokens, 0 where none."""
  numbers_E = jnp.arange(examples) + 1
  member_BLE = (example_ids_BL[..., None]
                == numbers_E[None, None]).astype(jnp.float32)
  count_BE = jnp.maximum(member_BLE.sum(axis=1), 1.0)
  return jnp.einsum("BLE,BLD->BED", member_BLE,
                    x_BLD.astype(jnp.float32)) / count_BE[..., None]
