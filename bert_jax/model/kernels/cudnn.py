"""cuDNN's flash attention on NVIDIA GPUs, as jax calls it."""

import jax
import jax.numpy as jnp


def cudnn_attention(arrays: dict[str, jax.Array]) -> jax.Array:
  """(B, L, H, K) of query, key and value.

  Args:
    arrays: those three, and `lengths` (B,), the tokens of each row that are
      seen, or `visible`, (B, 1, L, M).
  """
  rows, tokens, heads, _ = arrays["query"].shape
  if "lengths" in arrays:
    # A row of padding has no key, of which cuDNN says nothing. Lengths of
    # queries would give zero for padding, which sees the whole example.
    lengths_B = jnp.maximum(arrays["lengths"], 1)
    seen = dict(key_value_seq_lengths=lengths_B,
                # Not a constant: under vmap both have to be mapped.
                query_seq_lengths=0 * lengths_B + tokens)
  else:
    # Of each head: jax cannot map a mask that heads share.
    seen = dict(mask=jnp.broadcast_to(arrays["visible"],
                                      (rows, heads, tokens, tokens)))
  return jax.nn.dot_product_attention(
      arrays["query"], arrays["key"], arrays["value"],
      implementation="cudnn", **seen)


def cudnn_lacks(device: jax.Device, dtype: str, width: int, tokens: int,
                drops: bool, biased: bool) -> str:
  """Why it cannot compute what is asked; "": it can.

  As jax 0.7.2 to 0.12 call it: a mask is a bias to cuDNN, whose gradient some
  versions leave out, so scores may have no learned bias; its dropout is seeded
  by one number, not by row and place.

  Args:
    width: of a head.
    tokens: of a row.
    drops: whether weights are dropped.
    biased: whether scores have a bias.
  """
  capability = float(getattr(device, "compute_capability", 0))
  if capability < 8:
    return "it needs an NVIDIA GPU of compute capability 8.0 or newer."
  if dtype != "bfloat16":
    return f"it computes in bfloat16, not in {dtype}."
  if width % 8 or width > 128:
    return f"its heads have a width of 8, 16, ... 128, not {width}."
  if drops:
    return "it has no dropout of weights that depends on row and place."
  if biased:
    return "it has no dependable gradient of a bias of scores."
  if tokens % 2:
    return "its rows have an even number of tokens."
  return ""
