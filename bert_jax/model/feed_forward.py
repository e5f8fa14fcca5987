"""The feed-forward half of a layer."""

import dataclasses
from typing import TYPE_CHECKING

import flax.linen as nn
import jax
import jax.numpy as jnp

from bert_jax.config import Choice, UserError
from bert_jax.model.dense import Activation, Dense, activation, initializer
from bert_jax.model.visibility import Context

if TYPE_CHECKING:
  from bert_jax.model.bert import BertConfig

# The collection of losses that blocks add to the objective's: a module calls
# self.sow(AUXILIARY, name, loss_B) with the sum over each row's tokens. Also
# their name among a network's outputs.
AUXILIARY = "auxiliary"


class FeedForward(Choice):
  """The feed-forward part of a layer."""

  def build(self, options: "BertConfig") -> nn.Module:
    """A module from (x_BLD, context) to (B, L, D), whose parameters lie at
    encoder/layers."""
    raise NotImplementedError


@dataclasses.dataclass(frozen=True)
class MlpFeedForward(FeedForward):
  """Two linear layers: W2 f(W1 x), with `hidden_act` as f."""

  def build(self, options):
    return Mlp(options)


@dataclasses.dataclass(frozen=True)
class GatedFeedForward(FeedForward):
  """Gated linear units: W2 (f(W x) * W1 x) (Shazeer 2020), GeGLU or SwiGLU.

  It has three matrices where `mlp` has two: the same number of parameters has
  `intermediate_size` 2/3 as large.

  Attributes:
    activation: activation function f of the gate: gelu is GeGLU, silu is
      SwiGLU.
    bias: whether the linear layers of the feed-forward part have biases.
  """

  activation: Activation = "gelu"
  bias: bool = False

  def build(self, options):
    return Gated(options, self)


@dataclasses.dataclass(frozen=True)
class ExpertsFeedForward(FeedForward):
  """A mixture of experts: for each token a router picks the `top` of `experts`
  MLPs without biases, weighted by their probabilities (Shazeer et al. 2017).

  All experts are computed for all tokens: none is dropped, so that a token's
  output depends on nobody else's choice; but it takes the time of all of them.

  The loss experts / top * sum_g f_g p_g of each layer keeps the load balanced
  (Fedus et al. 2021, eq. 4): f_g is the fraction of a row's tokens that go to
  g, p_g the mean probability of g in it. It is of each row, so that it does
  not depend on how a batch is split.

  Attributes:
    experts: number of experts in each layer.
    top: number of experts that process each token.
    balance: weight of the load-balancing loss, the part `expert_balance` of
      the loss.
  """

  experts: int = 8
  top: int = 2
  balance: float = 0.01

  def __post_init__(self):
    if not 1 <= self.top <= self.experts:
      raise UserError(f"model.feed_forward.top={self.top}: from 1 to "
                      f"model.feed_forward.experts={self.experts}.")

  def build(self, options):
    return Experts(options, self)


class Mlp(nn.Module):
  options: "BertConfig"

  def setup(self):
    o = self.options
    self.intermediate = Dense((o.hidden_size,), (o.intermediate_size,), o)
    self.output = Dense((o.intermediate_size,), (o.hidden_size,), o)

  def __call__(self, x_BLD: jax.Array, context: Context) -> jax.Array:
    act = activation(self.options.hidden_act)
    # The backward pass computes the activation again: a scan over layers then
    # stores one array of this width, not two, and takes no longer on a CPU.
    finish = nn.remat(lambda output, x_BLF: output(act(x_BLF)),
                      prevent_cse=False)
    return finish(self.output, self.intermediate(x_BLD))


class Gated(nn.Module):
  options: "BertConfig"
  choice: GatedFeedForward

  def setup(self):
    o, bias = self.options, self.choice.bias
    outer, inner = (o.hidden_size,), (o.intermediate_size,)
    self.gate = Dense(outer, inner, o, bias)
    self.intermediate = Dense(outer, inner, o, bias)
    self.output = Dense(inner, outer, o, bias)

  def __call__(self, x_BLD: jax.Array, context: Context) -> jax.Array:
    gate_BLF = activation(self.choice.activation)(self.gate(x_BLD))
    return self.output(gate_BLF * self.intermediate(x_BLD))


class Experts(nn.Module):
  options: "BertConfig"
  choice: ExpertsFeedForward

  def setup(self):
    o, experts = self.options, self.choice.experts
    exact = dataclasses.replace(o, dtype="float32")  # Switch, 2.4
    self.router = Dense((o.hidden_size,), (experts,), exact, use_bias=False)
    self.expert_intermediate = ExpertDense(
        experts, o.hidden_size, o.intermediate_size, o)
    self.expert_output = ExpertDense(
        experts, o.intermediate_size, o.hidden_size, o)

  def __call__(self, x_BLD: jax.Array, context: Context) -> jax.Array:
    probability_BLG = jax.nn.softmax(self.router(x_BLD))
    top, choice = jax.lax.top_k(probability_BLG, self.choice.top)
    chosen_BLG = jax.nn.one_hot(choice, self.choice.experts).sum(-2)
    self.sow(AUXILIARY, "expert_balance", self._balance(
        probability_BLG, chosen_BLG, context.example_ids_BL > 0))
    weight_BLG = probability_BLG * chosen_BLG / top.sum(-1, keepdims=True)
    act = activation(self.options.hidden_act)
    inner_BLGF = act(self.expert_intermediate(x_BLD, "BLD,GDF->BLGF"))
    inner_BLGF *= weight_BLG[..., None].astype(inner_BLGF.dtype)
    return self.expert_output(inner_BLGF, "BLGF,GFD->BLD")

  def _balance(self, probability_BLG: jax.Array, chosen_BLG: jax.Array,
               real_BL: jax.Array) -> jax.Array:
    """The weighted loss of each row, times its number of tokens."""
    c, real_BL = self.choice, real_BL.astype(jnp.float32)
    tokens_B1 = jnp.maximum(real_BL.sum(-1, keepdims=True), 1)
    load_BG, mean_BG = (jnp.einsum("BL,BLG->BG", real_BL, x) / tokens_B1
                        for x in (chosen_BLG, probability_BLG))
    loss_B = c.experts / c.top * (load_BG * mean_BG).sum(-1)
    return c.balance * loss_B * real_BL.sum(-1)


class ExpertDense(nn.Module):
  """A matrix for each expert."""

  experts: int
  inputs: int
  outputs: int
  options: "BertConfig"

  @nn.compact
  def __call__(self, x: jax.Array, subscripts: str) -> jax.Array:
    kernel = self.param("kernel", initializer(self.options),
                        (self.experts, self.inputs, self.outputs))
    return jnp.einsum(subscripts, *(a.astype(self.options.dtype)
                                    for a in (x, kernel)))
