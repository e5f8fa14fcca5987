"""One layer: attention and feed-forward."""

from typing import TYPE_CHECKING

import flax.linen as nn
import jax.numpy as jnp

from bert_jax.model.attention import SelfAttention
from bert_jax.model.placement import constrain
from bert_jax.model.dropout import DropoutSite, dropout, fold_in
from bert_jax.model.norms import residual

if TYPE_CHECKING:
  from bert_jax.model.bert import BertConfig


class Layer(nn.Module):
  """Attention and feed-forward, each with a residual and norms."""

  options: "BertConfig"

  def setup(self):
    o = self.options
    self.attention = SelfAttention(o)
    self.feed_forward = o.feed_forward.build(o)
    nn.share_scope(self, self.feed_forward)
    # Parameters exist only of those that norm_placement calls.
    (self.attention_norm, self.attention_outer_norm, self.output_norm,
     self.output_outer_norm) = (
         o.norm.build(o.layer_norm_eps) for _ in range(4))

  def __call__(self, x_BLD, layer, context, keys_B):
    """The layer's output as a scan's (carry, None)."""
    return self._apply(x_BLD, layer, context, keys_B), None

  def keep(self, x_BLD, layer, context, keys_B):
    """The layer's output as a scan's (carry, output)."""
    x_BLD = self._apply(x_BLD, layer, context, keys_B)
    return x_BLD, x_BLD

  def _apply(self, x, layer, context, keys_B):
    o, keys_B = self.options, fold_in(keys_B, layer)
    attend = lambda x: self.attention(x, layer, context, keys_B)
    before = self.attention_norm
    if not o.first_attention_norm:
      # A loop over layers has one program for all.
      before = lambda x: jnp.where(layer == 0, x, self.attention_norm(x))
    feed = lambda x: dropout(self.feed_forward(x, context),
                             o.hidden_dropout_prob, keys_B, DropoutSite.OUTPUT)
    x = residual(o.norm_placement, x, attend, before,
                 self.attention_outer_norm)
    x = residual(o.norm_placement, x, feed, self.output_norm,
                 self.output_outer_norm)
    return constrain(x, "rows")
