"""Normalization of vectors."""

import flax.linen as nn
import jax
import jax.numpy as jnp


class Norm(nn.Module):
  """Layer normalization over the last dimension, in float32."""

  epsilon: float

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    shape = x.shape[-1:]
    scale = self.param("scale", nn.initializers.ones, shape)
    bias = self.param("bias", nn.initializers.zeros, shape)
    scale, bias = (jnp.expand_dims(p, range(x.ndim - 1)) for p in (scale, bias))
    full = x.astype(jnp.float32)
    centered = full - full.mean(-1, keepdims=True)
    variance = jnp.square(centered).mean(-1, keepdims=True)
    normal = centered * jax.lax.rsqrt(variance + self.epsilon)
    return (normal * scale + bias).astype(x.dtype)
