"""One layer: attention and feed-forward."""

import flax.linen as nn

from bert_jax.model.bert import BertConfig
from bert_jax.model.constrain import constrain
from bert_jax.model.layers import (
    Dense, DropoutSite, activation, dropout, fold_in)
from bert_jax.model.norms import Norm


class SelfAttention(nn.Module):
  options: BertConfig

  def setup(self):
    o = self.options
    heads = (o.num_attention_heads, o.hidden_size // o.num_attention_heads)
    width = (o.hidden_size,)
    self.query, self.key, self.value = (
        Dense(width, heads, o) for _ in range(3))
    self.output = Dense(heads, width, o)

  def __call__(self, x_BLD, example_ids_BL, keys_B):
    o = self.options
    mixed_BLHK = o.attention.attend(
        self.query(x_BLD), self.key(x_BLD), self.value(x_BLD),
        example_ids_BL, example_ids_BL, o.attention_probs_dropout_prob, keys_B)
    return dropout(self.output(mixed_BLHK), o.hidden_dropout_prob, keys_B,
                   DropoutSite.ATTENTION_OUTPUT)


class Layer(nn.Module):
  """Attention and feed-forward, each with a residual and a norm."""

  options: BertConfig

  def setup(self):
    o = self.options
    self.attention = SelfAttention(o)
    self.attention_norm = Norm(o.layer_norm_eps)
    self.intermediate = Dense((o.hidden_size,), (o.intermediate_size,), o)
    self.output = Dense((o.intermediate_size,), (o.hidden_size,), o)
    self.output_norm = Norm(o.layer_norm_eps)

  def __call__(self, x_BLD, number, example_ids_BL, keys_B):
    """The layer's output as a scan's (carry, None)."""
    return self._apply(x_BLD, number, example_ids_BL, keys_B), None

  def keep(self, x_BLD, number, example_ids_BL, keys_B):
    """The layer's output as a scan's (carry, output)."""
    x_BLD = self._apply(x_BLD, number, example_ids_BL, keys_B)
    return x_BLD, x_BLD

  def _apply(self, x, number, example_ids_BL, keys_B):
    keys_B = fold_in(keys_B, number)
    attend = lambda x: self.attention(x, example_ids_BL, keys_B)
    feed = lambda x: self._feed_forward(x, keys_B)
    match self.options.norm_placement:
      case "post":
        x = self.attention_norm(x + attend(x))
        x = self.output_norm(x + feed(x))
      case "pre":
        x = x + attend(self.attention_norm(x))
        x = x + feed(self.output_norm(x))
    return constrain(x, "rows")

  def _feed_forward(self, x_BLD, keys_B):
    o = self.options
    inner_BLF = activation(o.hidden_act)(self.intermediate(x_BLD))
    return dropout(self.output(inner_BLF), o.hidden_dropout_prob, keys_B,
                   DropoutSite.OUTPUT)
