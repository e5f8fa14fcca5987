"""Where a token is."""

import jax
import jax.numpy as jnp


def sinusoids(position_ids_BL: jax.Array, width: int) -> jax.Array:
  """(B, L, width): sines, then cosines, at the initial scale of a table.

  Vaswani et al. 2017, 3.5, times .02: word vectors start that small.
  """
  rate_D = 10_000 ** -jnp.linspace(0, 1, -(-width // 2), endpoint=False)
  angle_BLD = (position_ids_BL[..., None].astype(jnp.float32)
               * rate_D[None, None])
  both_BLD = jnp.concatenate([jnp.sin(angle_BLD), jnp.cos(angle_BLD)], -1)
  return 0.02 * both_BLD[..., :width]
