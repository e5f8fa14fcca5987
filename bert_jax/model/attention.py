"""Attention: what a token may see, and how it mixes what it sees."""

import dataclasses

import jax
import jax.numpy as jnp

from bert_jax.config import Choice
from bert_jax.model.layers import DropoutSite, dropout
from bert_jax.model.visibility import visible


class Attention(Choice):
  """A family: each member mixes values by queries and keys."""

  def attend(
      self,
      query_BLHK: jax.Array,
      key_BMHK: jax.Array,
      value_BMHK: jax.Array,
      example_ids_BL: jax.Array,
      example_ids_BM: jax.Array,
      dropout_rate: float,
      keys_B: jax.Array | None,
  ) -> jax.Array:
    """Mixes the values for every query.

    Args:
      query_BLHK: queries, not yet scaled.
      key_BMHK: keys.
      value_BMHK: values.
      example_ids_BL: the packed example of every query; 0 is padding.
      example_ids_BM: the packed example of every key; 0 is padding.
      dropout_rate: the probability with which a weight becomes zero.
      keys_B: a random key a row, or None for no dropout.

    Returns:
      The mixed values, (B, L, H, K). A padding query sees the whole row, and
      is finite where the row has nothing to see.
    """
    raise NotImplementedError


@dataclasses.dataclass(frozen=True)
class DotProductAttention(Attention):
  """Scaled dot products (Vaswani et al. 2017, 3.2.1), softmax in float32."""

  def attend(self, query_BLHK, key_BMHK, value_BMHK, example_ids_BL,
             example_ids_BM, dropout_rate, keys_B):
    visible_BLM = visible(example_ids_BL, example_ids_BM)
    query_BLHK = query_BLHK * query_BLHK.shape[-1]**-0.5
    score_BHLM = jnp.einsum("BLHK,BMHK->BHLM", query_BLHK, key_BMHK,
                            preferred_element_type=jnp.float32)
    # Finite, so that a row of padding has a finite softmax and gradient.
    hidden = jnp.finfo(jnp.float32).min
    score_BHLM = jnp.where(visible_BLM[:, None], score_BHLM, hidden)
    weight_BHLM = jax.nn.softmax(score_BHLM).astype(value_BMHK.dtype)
    weight_BHLM = dropout(weight_BHLM, dropout_rate, keys_B,
                          DropoutSite.ATTENTION)
    return jnp.einsum("BHLM,BMHK->BLHK", weight_BHLM, value_BMHK)
