"""Heads: from the encoder's outputs to float32 logits."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from bert_jax.model.bert import BertConfig
from bert_jax.model.dense import Dense, activation
from bert_jax.model.dropout import DropoutSite, dropout
from bert_jax.model.ops import cross_entropy, decode, hits
from bert_jax.model.pooler import gather

# Of the positions of a row, where each predicts a token.
_CHUNKS = 8


class MlmHead(nn.Module):
  """Transform, then the transposed word embeddings as decoder."""

  options: BertConfig

  def setup(self):
    o = self.options
    self.transform = Dense((o.hidden_size,), (o.embedding_width,), o,
                           o.heads_have_bias)
    self.norm = o.norm.build(o.layer_norm_eps)
    self.bias = self.param("bias", nn.initializers.zeros, (o.vocab_size,))

  def __call__(
      self,
      sequence_output_BLD: jax.Array,
      masked_positions_BP: jax.Array,
      table_VD: jax.Array,
  ) -> jax.Array:
    """Float32 logits (B, P, V), at the masked positions only.

    Args:
      sequence_output_BLD: the encoder's output.
      masked_positions_BP: where in each row to predict.
      table_VD: `Encoder.word_embeddings()`.
    """
    x_BPD = self._transformed(gather(sequence_output_BLD, masked_positions_BP))
    return decode(x_BPD, table_VD.astype(self.options.dtype), self.bias)

  def everywhere(self, x_BLD: jax.Array, labels_BL: jax.Array,
                 table_VD: jax.Array) -> tuple[jax.Array, jax.Array]:
    """-log p of the label of each position, and 1.0 where no token is likelier.

    The logits of an eighth of the positions exist at a time, so that memory
    does not hold (B, L, V); the backward pass computes them again.

    Args:
      x_BLD: the encoder's output.
      labels_BL: the token that each position has to predict.
      table_VD: `Encoder.word_embeddings()`.

    Returns:
      Two float32 arrays (B, L).
    """
    x_BLD, bias_V = self._transformed(x_BLD), self.bias
    table_VD = table_VD.astype(self.options.dtype)
    rows, tokens = labels_BL.shape
    chunk = -(-tokens // _CHUNKS)

    @jax.checkpoint
    def predicted(part: tuple[jax.Array, jax.Array]
                  ) -> tuple[jax.Array, jax.Array]:
      x_BPD, labels_BP = part
      logits_BPV = decode(x_BPD, table_VD, bias_V)
      return cross_entropy(logits_BPV, labels_BP), hits(logits_BPV, labels_BP)

    def split(x: jax.Array) -> jax.Array:
      spare = [(0, 0), (0, chunk * _CHUNKS - tokens)] + [(0, 0)] * (x.ndim - 2)
      x = jnp.pad(x, spare).reshape(rows, _CHUNKS, chunk, *x.shape[2:])
      return x.swapaxes(0, 1)

    join = lambda x: x.swapaxes(0, 1).reshape(rows, -1)[:, :tokens]
    return jax.tree.map(join, jax.lax.map(
        predicted, (split(x_BLD), split(labels_BL))))

  def _transformed(self, x: jax.Array) -> jax.Array:
    return self.norm(activation(self.options.hidden_act)(self.transform(x)))


class ClassificationHead(nn.Module):
  """Dropout and a linear layer: a class, or with one class a number.

  Takes what has a label: pooled_output_BED for a label an example,
  sequence_output_BLD for a label a token.
  """

  options: BertConfig
  classes: int
  dropout_rate: float

  def setup(self):
    self.dense = Dense((self.options.hidden_size,), (self.classes,),
                       self.options, use_bias=True)
    nn.share_scope(self, self.dense)  # classifier/kernel, without /dense.

  def __call__(
      self, x_BED: jax.Array, keys_B: jax.Array | None = None
  ) -> jax.Array:
    """Float32 logits (B, E, C) of (B, E, D)."""
    x_BED = dropout(x_BED, self.dropout_rate, keys_B, DropoutSite.HEAD)
    return self.dense(x_BED).astype(jnp.float32)
