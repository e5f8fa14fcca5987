"""Keys and values of a text that is written token by token.

A network that is applied with `mutable=[CACHE]` keeps the keys and values of
all places of its rows, by layer, and `Encoder.next` adds a token to them.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

CACHE = "cache"


class Cache(nn.Module):
  """Of one layer: `key` and `value`, each (B, M, H, K)."""

  def store(self, key_BMHK: jax.Array, value_BMHK: jax.Array) -> None:
    """Keeps all of them, where somebody asks for it."""
    if self.is_mutable_collection(CACHE) and not self.is_initializing():
      self.put_variable(CACHE, "key", key_BMHK)
      self.put_variable(CACHE, "value", value_BMHK)

  def attend(self, query_BLHK: jax.Array, key_BLHK: jax.Array,
             value_BLHK: jax.Array, place_B: jax.Array,
             bias_HA: jax.Array | None,
             reach: jax.Array | int | None) -> jax.Array:
    """The mixed values of one more token, (B, 1, H, K).

    It is put at its place and sees all places up to there, as PlainMixer would
    mix them.

    Args:
      query_BLHK, key_BLHK, value_BLHK: of the token, L is 1.
      place_B: where in its row it stands.
      bias_HA: as `Context` has it, for rows of M tokens.
      reach: how many tokens it sees back; None: all.
    """
    rows_B = jnp.arange(place_B.shape[0])
    kept = []
    for name, x_BLHK in (("key", key_BLHK), ("value", value_BLHK)):
      x_BMHK = self.get_variable(CACHE, name)
      kept.append(x_BMHK.at[rows_B, place_B].set(x_BLHK[:, 0]))
      self.put_variable(CACHE, name, kept[-1])
    key_BMHK, value_BMHK = kept
    tokens = key_BMHK.shape[1]
    back_BM = place_B[:, None] - jnp.arange(tokens)[None]
    query_BHK = query_BLHK[:, 0] * query_BLHK.shape[-1]**-0.5
    score_BHM = jnp.einsum("BHK,BMHK->BHM", query_BHK, key_BMHK,
                           preferred_element_type=jnp.float32)
    if bias_HA is not None:
      score_BHM += bias_HA[:, tokens - 1 - back_BM].swapaxes(0, 1)
    visible_BM = back_BM >= 0
    if reach is not None:
      visible_BM &= back_BM <= reach
    score_BHM = jnp.where(visible_BM[:, None], score_BHM,
                          jnp.finfo(jnp.float32).min)
    weight_BHM = jax.nn.softmax(score_BHM).astype(value_BMHK.dtype)
    return jnp.einsum("BHM,BMHK->BHK", weight_BHM, value_BMHK)[:, None]
