"""The layers: of one kind, in a repeated pattern, or with shared parameters.

A stack is a loop over its parameters, whose leading dimension counts the trips.
"""

import dataclasses
import re
from typing import TYPE_CHECKING, Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from bert_jax import config
from bert_jax.config import Choice, Count, UserError, nearest
from bert_jax.model import placement
from bert_jax.model.attention import ATTENTION
from bert_jax.model.block import Layer
from bert_jax.model.cache import CACHE
from bert_jax.model.feed_forward import AUXILIARY

if TYPE_CHECKING:
  from bert_jax.model.bert import BertConfig

# What may differ from block to block of a pattern.
_BLOCK_OPTIONS = (
    "num_attention_heads", "intermediate_size", "hidden_act",
    "hidden_dropout_prob", "attention_probs_dropout_prob", "initializer_range",
    "layer_norm_eps", "use_bias", "norm", "locality", "attention",
    "feed_forward")

# Names a block of a pattern.
_BLOCK = re.compile(r"block_(\d+)_of_\d+$")

# Trips of an iteration of the loop over layers, but on a TPU.
_UNROLLED = 4


class Stack(Choice):
  """Whether layers are alike, differ, or share their parameters."""

  def build(self, options: "BertConfig") -> nn.Module:
    """A module that is called as Uniform is; parameters lie at
    encoder/layers, in arrays that lead with layers."""
    raise NotImplementedError

  def blocks(self, options: "BertConfig") -> "list[BertConfig]":
    """The options of each block of a trip.

    Raises:
      UserError: they do not fit `num_hidden_layers`, or are no blocks.
    """
    return [options]

  def parameter_layers(self, options: "BertConfig") -> int:
    """How many layers have parameters of their own."""
    return options.num_hidden_layers

  def trips(self, options: "BertConfig") -> int:
    """How often the blocks are repeated, each time with parameters of their
    own; 1 where layers share parameters."""
    return 1


@dataclasses.dataclass(frozen=True)
class UniformStack(Stack):
  """Layers of one kind, each with parameters of its own."""

  def build(self, options):
    return Uniform(options)

  def trips(self, options):
    return options.num_hidden_layers


@dataclasses.dataclass(frozen=True)
class PatternStack(Stack):
  """Layers that differ in some options, in a pattern that is repeated.

  Attributes:
    pattern: for each layer of the pattern its options of the model, separated
      by spaces, as in
      ["locality=window locality.size=8","feed_forward=gated"]; "": as the
      model.
  """

  pattern: tuple[str, ...] = ("",)

  def build(self, options):
    return Pattern(options)

  def blocks(self, options):
    if not self.pattern or options.num_hidden_layers % len(self.pattern):
      raise UserError(
          f"model.stack.pattern has {len(self.pattern)} blocks, of which "
          f"num_hidden_layers={options.num_hidden_layers} is no multiple.")
    words = [block.split() for block in self.pattern]
    for word in (word for block in words for word in block):
      name = word.partition("=")[0].partition(".")[0]
      if name not in _BLOCK_OPTIONS:
        raise UserError(f"model.stack.pattern: {word}: no option of a block"
                        + nearest(name, _BLOCK_OPTIONS))
    plain = dataclasses.replace(options, stack=UniformStack())
    return [config.override(plain, block) for block in words]

  def trips(self, options):
    return options.num_hidden_layers // len(self.pattern)


@dataclasses.dataclass(frozen=True)
class SharedStack(Stack):
  """Layers that share their parameters (ALBERT: Lan et al. 2020).

  Attributes:
    groups: number of groups of consecutive layers; the layers of a group
      share their parameters.
  """

  groups: Count = 1

  def build(self, options):
    return Shared(options)

  def blocks(self, options):
    if self.groups < 1 or options.num_hidden_layers % self.groups:
      raise UserError(
          f"model.stack.groups={self.groups}: num_hidden_layers="
          f"{options.num_hidden_layers} is no multiple of it.")
    return [options]

  def parameter_layers(self, options):
    return self.groups


def layers_first(kept: Any, name: str) -> jax.Array:
  """(N, ...) of what the layers gave to `self.sow(collection, name, x)`, in
  loops of any depth.

  Args:
    kept: the collection of one encoder.
    name: that ends in the letters of the dimensions of x.
  """
  kinds: dict[int, jax.Array] = {}
  for keys, x in jax.tree_util.tree_leaves_with_path(kept):
    path = [key.key for key in keys if hasattr(key, "key")]
    if path[-1] == name:
      block = next(filter(None, map(_BLOCK.match, path)), None)
      own = x.shape[-len(name.rpartition("_")[2]):]
      kinds[int(block[1]) if block else 0] = x.reshape(-1, *own)
  # Blocks of a pattern take turns.
  x = jnp.stack([kinds[block] for block in sorted(kinds)], 1)
  return x.reshape(-1, *x.shape[2:])


class Uniform(nn.Module):
  options: "BertConfig"

  def setup(self):
    self.loop = _loop(Layer, self.options, self.options.num_hidden_layers)
    nn.share_scope(self, self.loop)

  def __call__(self, x_BLD: jax.Array, context: Any,
               keys_B: jax.Array | None) -> jax.Array:
    """The output of the last layer, (B, L, D)."""
    return self.loop(x_BLD, self._layers(), context, keys_B)[0]

  def keep(self, x_BLD: jax.Array, context: Any,
           keys_B: jax.Array | None) -> jax.Array:
    """The output of each layer, (N, B, L, D)."""
    states = self.loop.keep(x_BLD, self._layers(), context, keys_B)[1]
    return states.reshape(-1, *x_BLD.shape)

  def _layers(self):
    """The numbers of the layers, a row a trip of the loop."""
    return jnp.arange(self.options.num_hidden_layers)


class Pattern(Uniform):

  def setup(self):
    o = self.options
    self.loop = _loop(_Period, o,
                      o.num_hidden_layers // len(o.stack.pattern))
    nn.share_scope(self, self.loop)

  def _layers(self):
    return super()._layers().reshape(-1, len(self.options.stack.pattern))


class Shared(Uniform):

  def setup(self):
    self.loop = _loop(_Repeated, self.options, self.options.stack.groups)
    nn.share_scope(self, self.loop)

  def _layers(self):
    return super()._layers().reshape(self.options.stack.groups, -1)


class _Period(nn.Module):
  """The blocks of a pattern once; parameters lie at block_1_of_2 and so on."""

  options: "BertConfig"

  def setup(self):
    blocks = self.options.stack.blocks(self.options)
    self.block = {f"{i + 1}_of_{len(blocks)}": _layer(o)(o)
                  for i, o in enumerate(blocks)}

  def __call__(self, x_BLD, layers, context, keys_B):
    return self.keep(x_BLD, layers, context, keys_B)[0], None

  def keep(self, x_BLD, layers, context, keys_B):
    states = []
    for layer, block in zip(layers, self.block.values()):
      x_BLD, _ = block(x_BLD, layer, context, keys_B)
      states.append(x_BLD)
    return x_BLD, jnp.stack(states)


class _Repeated(nn.Module):
  """One layer, applied several times."""

  options: "BertConfig"

  def setup(self):
    self.layer = _layer(self.options)(self.options)
    nn.share_scope(self, self.layer)

  def __call__(self, x_BLD, layers, context, keys_B):
    return self.keep(x_BLD, layers, context, keys_B)[0], None

  def keep(self, x_BLD, layers, context, keys_B):
    apply = lambda layer, x_BLD, number: layer.keep(
        x_BLD, number, context, keys_B)
    return nn.scan(apply, variable_broadcast="params",
                   variable_axes={AUXILIARY: 0, ATTENTION: 0, CACHE: 0},
                   split_rngs={"params": False},
                   unroll=_unrolled(self.options, len(layers)))(
                       self.layer, x_BLD, layers)


def _loop(body: type[nn.Module], options: "BertConfig",
          trips: int) -> nn.Module:
  """`body(options)` with parameters for each trip, run one after another."""
  if body is Layer:
    body = _layer(options)
  return nn.scan(
      body,
      variable_axes={"params": 0, AUXILIARY: 0, ATTENTION: 0, CACHE: 0},
      split_rngs={"params": True}, in_axes=(0, nn.broadcast, nn.broadcast),
      length=trips, unroll=_unrolled(options, trips),
      methods=["__call__", "keep"])(options)


def _unrolled(options: "BertConfig", trips: int) -> int:
  """How many trips of a loop one of its iterations has."""
  if options.scan_unroll is None and placement.device().platform == "tpu":
    return trips
  return min(options.scan_unroll or _UNROLLED, trips)


def _layer(options: "BertConfig") -> type[nn.Module]:
  """A layer whose inner results may be computed again by the backward pass."""
  if not options.remat:
    return Layer
  return nn.remat(Layer, prevent_cse=False, methods=["__call__", "keep"])
