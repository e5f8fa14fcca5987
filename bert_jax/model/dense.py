"""Linear layers, tables of vectors, activations."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Literal, get_args

import flax.linen as nn
import jax
import jax.numpy as jnp

from bert_jax.config import UserError, nearest
from bert_jax.model import ops
from bert_jax.model.gelu import gelu

if TYPE_CHECKING:
  from bert_jax.model.bert import BertConfig

Activation = Literal["gelu", "gelu_new", "relu", "silu", "tanh"]


def activation(name: Activation) -> Callable[[jax.Array], jax.Array]:
  """The function that `bert_config.json` calls `name`."""
  functions = {"gelu": gelu, "gelu_new": nn.gelu,  # tanh approximation
               "relu": nn.relu, "silu": nn.silu, "tanh": jnp.tanh}
  if name not in functions:
    raise UserError(f"activation={name}" + nearest(name, get_args(Activation)))
  return functions[name]


def initializer(options: "BertConfig") -> nn.initializers.Initializer:
  """tf.truncated_normal_initializer: cut at two deviations, not rescaled."""
  return nn.initializers.truncated_normal(options.initializer_range)


class Dense(nn.Module):
  """A linear layer.

  Attributes:
    inputs: the trailing dimensions that are contracted.
    outputs: the dimensions that take their place.
    options: the model's (`initializer_range`, `dtype`, `use_bias`).
    use_bias: whether a vector is added; None: as the options say.
  """

  inputs: tuple[int, ...]
  outputs: tuple[int, ...]
  options: "BertConfig"
  use_bias: bool | None = None

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    use_bias = (self.options.use_bias if self.use_bias is None
                else self.use_bias)
    kernel = self.param("kernel", initializer(self.options),
                        (*self.inputs, *self.outputs))
    bias = (self.param("bias", nn.initializers.zeros, self.outputs)
            if use_bias else None)
    x, kernel, bias = jax.tree.map(
        lambda a: a.astype(self.options.dtype), (x, kernel, bias))
    return ops.linear(x, kernel, bias, len(self.inputs))


class Embed(nn.Module):
  """One learned vector for each of `size` ids; ids beyond it are clamped."""

  size: int
  width: int
  options: "BertConfig"

  def setup(self):
    self.embedding = self.param("embedding", initializer(self.options),
                                (self.size, self.width))

  def __call__(self, ids: jax.Array) -> jax.Array:
    return self.embedding.at[ids].get(mode="clip")
