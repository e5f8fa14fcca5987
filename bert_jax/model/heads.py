"""Heads: from the encoder's outputs to float32 logits."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from bert_jax.model.bert import BertConfig
from bert_jax.model.dense import Dense, activation
from bert_jax.model.dropout import DropoutSite, dropout
from bert_jax.model.encoder import gather
from bert_jax.model.ops import decode


class MlmHead(nn.Module):
  """Transform, then the transposed word embeddings as decoder."""

  options: BertConfig

  @nn.compact
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
    o = self.options
    x_BPD = gather(sequence_output_BLD, masked_positions_BP)
    transform = Dense((o.hidden_size,), table_VD.shape[1:], o,
                      name="transform")
    norm = o.norm.build(o.layer_norm_eps, name="norm")
    x_BPD = norm(activation(o.hidden_act)(transform(x_BPD)))
    bias_V = self.param("bias", nn.initializers.zeros, table_VD.shape[:1])
    return decode(x_BPD, table_VD.astype(o.dtype), bias_V)


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


def mean_pool(x_BLD: jax.Array, example_ids_BL: jax.Array,
              examples: int) -> jax.Array:
  """(B, E, D) float32: the mean over each example's tokens, 0 where none."""
  numbers_E = jnp.arange(examples) + 1
  member_BLE = (example_ids_BL[..., None]
                == numbers_E[None, None]).astype(jnp.float32)
  count_BE = jnp.maximum(member_BLE.sum(axis=1), 1.0)
  return jnp.einsum("BLE,BLD->BED", member_BLE,
                    x_BLD.astype(jnp.float32)) / count_BE[..., None]
