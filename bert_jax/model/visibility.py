"""Which token may see which."""

import jax


def visible(example_ids_BL: jax.Array, example_ids_BM: jax.Array) -> jax.Array:
  """(B, L, M): whether query L may see key M.

  Tokens see their own example. Padding is seen by nobody; a padding query
  sees every example, as in models with a plain padding mask, so that their
  outputs are reproduced there too.
  """
  query_BL1, key_B1M = example_ids_BL[:, :, None], example_ids_BM[:, None, :]
  return ((query_BL1 == key_B1M) | (query_BL1 == 0)) & (key_B1M != 0)
