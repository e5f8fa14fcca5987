"""From a batch to the vectors that enter the first layer."""

import flax.linen as nn

from bert_jax.model.bert import BertConfig
from bert_jax.model.placement import constrain
from bert_jax.model.dense import Dense
from bert_jax.model.dropout import DropoutSite, dropout


class Embeddings(nn.Module):
  """Inputs and positions, summed and normalized."""

  options: BertConfig

  def setup(self):
    o = self.options
    self.inputs = o.inputs.build(o)
    nn.share_scope(self, self.inputs)
    self.position_embeddings = o.positions.embedding(o)
    self.norm = o.norm.build(o.layer_norm_eps)
    if o.projects_embeddings:
      self.projection = Dense((o.embedding_width,), (o.hidden_size,), o)

  def __call__(self, batch, keys_B, tables=None):
    """
    Args:
      tables: other embeddings, whose tables and norm are taken; None: its own.
    """
    o = self.options
    x_BLD = (tables or self).normalized(batch)
    x_BLD = dropout(x_BLD, o.hidden_dropout_prob, keys_B,
                    DropoutSite.EMBEDDINGS)
    if o.projects_embeddings:
      x_BLD = self.projection(x_BLD)
    return constrain(x_BLD.astype(o.dtype), "rows")

  def normalized(self, batch):
    """(B, L, embedding width): what has neither dropout nor projection yet."""
    x_BLD = self.inputs(batch)
    if self.position_embeddings is not None:
      x_BLD += self.position_embeddings(batch["position_ids"])
    return self.norm(x_BLD)

  def table(self):
    """The (V, D) float32 table of the word vectors."""
    return self.inputs.table()
