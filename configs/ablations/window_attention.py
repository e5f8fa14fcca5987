"""Does attention need to see beyond its neighbors? A window on each side.

As Longformer's local attention (Beltagy et al. 2020) without global tokens,
but computed densely: it answers what is lost, not what is saved.

  python -m bert_jax pretrain ablations/window_attention --workdir runs/window

Against `pretrain quickstart`, on 2 CPU cores. Not measured.
"""

import dataclasses

import jax
import jax.numpy as jnp

from bert_jax import config
from bert_jax.config import UserError
from bert_jax.model.attention import Attention
from bert_jax.model.layers import DropoutSite, dropout
from bert_jax.model.visibility import visible


@dataclasses.dataclass(frozen=True)
class WindowAttention(Attention):
  """A token sees itself and `reach` neighbors on each side."""

  reach: int = 8

  def __post_init__(self):
    if self.reach < 0:
      raise UserError(f"attention.reach={self.reach}: at least 0.")

  def attend(self, query_BLHK, key_BMHK, value_BMHK, example_ids_BL,
             example_ids_BM, dropout_rate, keys_B):
    at_L, at_M = (jnp.arange(x.shape[1]) for x in (query_BLHK, key_BMHK))
    near_LM = jnp.abs(at_L[:, None] - at_M[None]) <= self.reach
    visible_BLM = visible(example_ids_BL, example_ids_BM) & near_LM[None]
    score_BHLM = jnp.einsum("BLHK,BMHK->BHLM", query_BLHK, key_BMHK,
                            preferred_element_type=jnp.float32)
    score_BHLM *= query_BLHK.shape[-1]**-0.5
    weight_BHLM = jax.nn.softmax(jnp.where(
        visible_BLM[:, None], score_BHLM, jnp.finfo(jnp.float32).min))
    weight_BHLM = dropout(weight_BHLM.astype(value_BMHK.dtype), dropout_rate,
                          keys_B, DropoutSite.ATTENTION)
    return jnp.einsum("BHLM,BMHK->BLHK", weight_BHLM, value_BMHK)


experiment = config.override(config.load_page("quickstart").experiment,
                             ["model.attention=window"])
