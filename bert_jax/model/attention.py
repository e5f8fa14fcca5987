"""Attention: how a token mixes what it sees."""

import dataclasses
import functools
from typing import TYPE_CHECKING

import flax.linen as nn
import jax
import jax.numpy as jnp

from bert_jax.config import Choice, UserError
from bert_jax.model import placement, random_bits
from bert_jax.model.cache import Cache
from bert_jax.model.dense import Dense
from bert_jax.model.dropout import DropoutSite, drops, dropout, fold_in
from bert_jax.model.kernels.attention import flash_attention
from bert_jax.model.kernels.cudnn import cudnn_attention, cudnn_lacks
from bert_jax.model.positions import by_pairs
from bert_jax.model.visibility import Context, visible

if TYPE_CHECKING:
  from bert_jax.model.bert import BertConfig


# The collection of what attention weighs: PlainMixer gives it its scores and
# its weights, (B, H, L, M), which costs nothing where nobody asks for them.
ATTENTION, SCORES, WEIGHTS = "attention", "score_BHLM", "weight_BHLM"


class Attention(Choice):
  """The attention function: how queries and keys weight the values."""

  def build(self, options: "BertConfig") -> nn.Module:
    """A module that is called as PlainMixer is and may own parameters, which
    lie at encoder/layers/attention/mixer."""
    raise NotImplementedError

  def with_weights(self) -> "Attention":
    """A member of the same result that sows its scores and weights."""
    return self

  def remark(self, options: "BertConfig", tokens: int) -> str:
    """What a training run with rows of `tokens` should say of it."""
    return ""


@dataclasses.dataclass(frozen=True)
class PlainAttention(Attention):
  """Scaled dot-product attention (Vaswani et al. 2017), float32 softmax."""

  def build(self, options):
    return PlainMixer(options)


@dataclasses.dataclass(frozen=True)
class FlashAttention(Attention):
  """Flash attention (Dao et al. 2022) in a Pallas kernel for TPUs: no array of
  L x L in memory, and blocks of tokens that do not see each other are skipped.

  It draws the same dropout as plain attention, which it is elsewhere than on a
  TPU, and gives the same result to rounding.

  Attributes:
    interpret: whether the kernel runs without a TPU, too, interpreted and very
      slowly: to test it.
  """

  interpret: bool = False

  def build(self, options):
    here = placement.device().platform == "tpu" or self.interpret
    return (FlashMixer if here else PlainMixer)(options)

  def with_weights(self):
    return PlainAttention()


@dataclasses.dataclass(frozen=True)
class CudnnAttention(Attention):
  """cuDNN's flash attention on NVIDIA GPUs, in bfloat16; plain attention
  elsewhere.

  It has neither dropout of weights nor biases of scores.
  """

  def build(self, options):
    here = placement.device().platform == "gpu"
    return (CudnnMixer if here else PlainMixer)(options)

  def with_weights(self):
    return PlainAttention()


@dataclasses.dataclass(frozen=True)
class AutoAttention(Attention):
  """The fastest of the others that can compute what is asked on the devices:
  flash on a TPU, cudnn on a GPU, plain elsewhere."""

  def build(self, options):
    fastest = {"tpu": FlashMixer, "gpu": CudnnOrPlainMixer}
    return fastest.get(placement.device().platform, PlainMixer)(options)

  def with_weights(self):
    return PlainAttention()

  def remark(self, options, tokens):
    if placement.device().platform != "gpu":
      return ""
    lacking = _cudnn_lacks(
        options, tokens, options.attention_probs_dropout_prob > 0,
        options.positions.bias(options) is not None)
    return lacking and ("model.attention=auto takes plain attention, not "
                        f"cuDNN's: {lacking}")


class PlainMixer(nn.Module):
  options: "BertConfig"

  def __call__(self, query_BLHK: jax.Array, key_BMHK: jax.Array,
               value_BMHK: jax.Array, context: Context,
               reach: jax.Array | int | None,
               keys_B: jax.Array | None) -> jax.Array:
    """The mixed values, (B, L, H, K).

    A padding query sees the whole row, and is finite where the row has nothing
    to see.

    Args:
      query_BLHK: queries, not yet scaled.
      key_BMHK: keys.
      value_BMHK: values.
      context: of the tokens.
      reach: how many tokens a query sees on each side; None: all.
      keys_B: a random key a row, or None for no dropout.
    """
    query_BLHK = query_BLHK * query_BLHK.shape[-1]**-0.5
    score_BHLM = jnp.einsum("BLHK,BMHK->BHLM", query_BLHK, key_BMHK,
                            preferred_element_type=jnp.float32)
    if context.bias_HA is not None:
      score_BHLM += by_pairs(context.bias_HA)
    visible_BLM = visible(context.example_ids_BL, context.order_BL, reach)
    # Finite, so that a row of padding has a finite softmax and gradient.
    hidden = jnp.finfo(jnp.float32).min
    score_BHLM = jnp.where(visible_BLM[:, None], score_BHLM, hidden)
    self.sow(ATTENTION, SCORES, score_BHLM)
    weight_BHLM = self.weights(score_BHLM).astype(value_BMHK.dtype)
    self.sow(ATTENTION, WEIGHTS, weight_BHLM)
    weight_BHLM = dropout(
        weight_BHLM, self.options.attention_probs_dropout_prob, keys_B,
        DropoutSite.ATTENTION)
    # Heads in front, as XLA's CPU compiler of jax 0.10 sends only such a
    # product to its fast library; others take two to three times as long.
    value_BHMK = value_BMHK.swapaxes(1, 2)
    mixed_BHLK = jnp.einsum("BHLM,BHMK->BHLK", weight_BHLM, value_BHMK)
    return mixed_BHLK.swapaxes(1, 2)

  def weights(self, score_BHLM: jax.Array) -> jax.Array:
    """From scores, very low where a key is hidden, to weights of values."""
    return jax.nn.softmax(score_BHLM)


class FlashMixer(nn.Module):
  options: "BertConfig"

  def __call__(self, query_BLHK: jax.Array, key_BMHK: jax.Array,
               value_BMHK: jax.Array, context: Context,
               reach: jax.Array | int | None,
               keys_B: jax.Array | None) -> jax.Array:
    """As PlainMixer."""
    rate = self.options.attention_probs_dropout_prob
    rows, _, heads, width = query_BLHK.shape
    arrays = {"query": query_BLHK * width**-0.5, "key": key_BMHK,
              "value": value_BMHK, "example_ids": context.example_ids_BL,
              "heads": jnp.arange(heads)}
    dimensions = {"query": "BLHK", "key": "BMHK", "value": "BMHK",
                  "example_ids": "BL", "heads": "H", "order": "BL",
                  "reach": "B", "bias": "HA", "keys": "B2", "rate": ""}
    if context.order_BL is not None:
      arrays["order"] = context.order_BL
    if reach is not None:
      arrays["reach"] = jnp.broadcast_to(reach, (rows,))
    if context.bias_HA is not None:
      arrays["bias"] = context.bias_HA
    if drops(rate, keys_B):
      arrays["keys"] = jnp.stack(random_bits.of_keys(
          fold_in(keys_B, DropoutSite.ATTENTION)), -1)
      arrays["rate"] = jnp.asarray(rate, jnp.float32)
    attend = functools.partial(flash_attention,
                               interpret=placement.device().platform != "tpu")
    return placement.split(attend, arrays, dimensions, "BLHK")


class CudnnMixer(nn.Module):
  options: "BertConfig"

  def __call__(self, query_BLHK: jax.Array, key_BMHK: jax.Array,
               value_BMHK: jax.Array, context: Context,
               reach: jax.Array | int | None,
               keys_B: jax.Array | None) -> jax.Array:
    """As PlainMixer.

    Raises:
      UserError: cuDNN cannot compute it.
    """
    lacking = self.lacks(context, keys_B)
    if lacking:
      raise UserError(f"model.attention=cudnn: {lacking} model.attention=auto "
                      "takes plain attention then.")
    arrays = {"query": query_BLHK, "key": key_BMHK, "value": value_BMHK}
    if (context.lengths_B is not None and context.order_BL is None
        and reach is None):
      arrays["lengths"] = context.lengths_B
    else:
      arrays["visible"] = visible(context.example_ids_BL, context.order_BL,
                                  reach)[:, None]
    # On each device by itself: jax's own partitioning of cuDNN's attention
    # refuses queries and keys that do not lie alike.
    return placement.split(
        cudnn_attention, arrays, {
            "query": "BLHK", "key": "BMHK", "value": "BMHK", "lengths": "B",
            "visible": "B1LM"}, "BLHK")

  def lacks(self, context: Context, keys_B: jax.Array | None) -> str:
    """Why cuDNN cannot compute it; "": it can."""
    return _cudnn_lacks(
        self.options, context.example_ids_BL.shape[1],
        drops(self.options.attention_probs_dropout_prob, keys_B),
        context.bias_HA is not None)


class CudnnOrPlainMixer(nn.Module):
  options: "BertConfig"

  def setup(self):
    self.cudnn, self.plain = CudnnMixer(self.options), PlainMixer(self.options)

  def __call__(self, query_BLHK: jax.Array, key_BMHK: jax.Array,
               value_BMHK: jax.Array, context: Context,
               reach: jax.Array | int | None,
               keys_B: jax.Array | None) -> jax.Array:
    """As PlainMixer."""
    lacking = self.cudnn.lacks(context, keys_B)
    return (self.plain if lacking else self.cudnn)(
        query_BLHK, key_BMHK, value_BMHK, context, reach, keys_B)


def _cudnn_lacks(options: "BertConfig", tokens: int, drops: bool,
                 biased: bool) -> str:
  return cudnn_lacks(
      placement.device(), options.dtype,
      options.hidden_size // options.num_attention_heads, tokens, drops, biased)


class SelfAttention(nn.Module):
  """Queries, keys and values of all heads, mixed and projected."""

  options: "BertConfig"

  def setup(self):
    o = self.options
    heads = (o.num_attention_heads, o.hidden_size // o.num_attention_heads)
    width = (o.hidden_size,)
    self.query, self.key, self.value = (
        Dense(width, heads, o) for _ in range(3))
    self.rotation = o.positions.rotation(o)
    self.mixer = o.attention.build(o)
    self.cache = Cache()
    self.output = Dense(heads, width, o)

  def __call__(self, x_BLD, layer, context, keys_B):
    o = self.options
    query_BLHK, key_BMHK = self.query(x_BLD), self.key(x_BLD)
    if self.rotation is not None:
      query_BLHK, key_BMHK = (
          self.rotation(x, context.position_ids_BL, layer)
          for x in (query_BLHK, key_BMHK))
    value_BMHK, reach = self.value(x_BLD), o.locality.reach(layer)
    if context.place_B is None:
      self.cache.store(key_BMHK, value_BMHK)
      mixed_BLHK = self.mixer(query_BLHK, key_BMHK, value_BMHK, context, reach,
                              keys_B)
    else:
      mixed_BLHK = self.cache.attend(query_BLHK, key_BMHK, value_BMHK,
                                     context.place_B, context.bias_HA, reach)
    return dropout(self.output(mixed_BLHK), o.hidden_dropout_prob, keys_B,
                   DropoutSite.ATTENTION_OUTPUT)
