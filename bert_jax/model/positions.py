"""Where a token is: in its embedding, in queries and keys, or in scores.

Embeddings and rotations read the batch's position_ids, which are 0, 1, 2, ...
in each packed example. Biases of scores read nothing: the distance of two
tokens of an example is that of their places in the row.
"""

import dataclasses
import math
from typing import TYPE_CHECKING

import flax.linen as nn
import jax
import jax.numpy as jnp

from bert_jax.config import Choice, UserError
from bert_jax.model.dense import Embed, initializer

if TYPE_CHECKING:
  from bert_jax.model.bert import BertConfig


class Positions(Choice):
  """How the network knows the position of a token.

  Each hook gives a module, which may own parameters, or None.
  """

  def embedding(self, options: "BertConfig") -> nn.Module | None:
    """From position ids (B, L) to what is added to the embeddings."""
    return None

  def rotation(self, options: "BertConfig") -> nn.Module | None:
    """In each layer: from queries or keys (B, L, H, K), position ids and the
    layer's number to queries or keys."""
    return None

  def bias(self, options: "BertConfig") -> nn.Module | None:
    """Once for all layers: from distances (A), key minus query, to what is
    added to the scores of each head, (H, A) float32."""
    return None


@dataclasses.dataclass(frozen=True)
class LearnedPositions(Positions):
  """A learned embedding for each position (Devlin et al. 2019)."""

  def embedding(self, options):
    return Embed(options.max_position_embeddings, options.embedding_width,
                 options)


@dataclasses.dataclass(frozen=True)
class SinusoidalPositions(Positions):
  """Fixed sines and cosines (Vaswani et al. 2017, 3.5), scaled to the initial
  values of a learned table, as token embeddings start that small."""

  def embedding(self, options):
    return Sinusoids(options.embedding_width)


@dataclasses.dataclass(frozen=True)
class RotaryPositions(Positions):
  """RoPE: queries and keys are rotated by their position (Su et al. 2021).

  Attributes:
    base: base of the wavelengths (theta): a larger one rotates more slowly.
    fraction: fraction of a head's width that is rotated, its first part.
  """

  base: float = 10_000.0
  fraction: float = 1.0

  def __post_init__(self):
    if not 0 < self.fraction <= 1:
      raise UserError(f"model.positions.fraction={self.fraction}: expected "
                      "more than 0, and 1 at most.")

  def rotation(self, options):
    return Rotation(self, options)


@dataclasses.dataclass(frozen=True)
class AlibiPositions(Positions):
  """ALiBi: attention scores fall linearly with the distance, with a slope for
  each head (Press et al. 2022), in both directions alike."""

  def bias(self, options):
    return Alibi(options.num_attention_heads)


@dataclasses.dataclass(frozen=True)
class RelativeBiasPositions(Positions):
  """A learned bias of the attention scores for each head and bucket of
  distances, the same in all layers (T5: Raffel et al. 2020, 2.1).

  Attributes:
    buckets: number of buckets; half of them are for keys after the query.
    max_distance: distance in tokens from which on all share the last bucket.
    learned: whether each position has a learned embedding, too (MPNet: Song et
      al. 2020).
  """

  buckets: int = 32
  max_distance: int = 128
  learned: bool = False

  def __post_init__(self):
    if self.buckets < 4 or self.buckets % 4:
      raise UserError(f"model.positions.buckets={self.buckets}: expected a "
                      "multiple of 4.")
    if self.max_distance <= self.buckets // 4:
      raise UserError(f"model.positions.max_distance={self.max_distance}: more "
                      f"than buckets / 4 = {self.buckets // 4}.")

  def embedding(self, options):
    return (LearnedPositions().embedding(options) if self.learned else None)

  def bias(self, options):
    return RelativeBias(self, options)


@dataclasses.dataclass(frozen=True)
class NoPositions(Positions, name="none"):
  """No positions: the network sees a bag of tokens."""


class Sinusoids(nn.Module):
  width: int

  def __call__(self, position_ids_BL: jax.Array) -> jax.Array:
    rate_D = 10_000 ** -jnp.linspace(0, 1, -(-self.width // 2), endpoint=False)
    angle_BLD = (position_ids_BL[..., None].astype(jnp.float32)
                 * rate_D[None, None])
    both_BLD = jnp.concatenate([jnp.sin(angle_BLD), jnp.cos(angle_BLD)], -1)
    return 0.02 * both_BLD[..., :self.width]


class Rotation(nn.Module):
  """Turns (x_k, x_k+n) of the first 2n features by position * base^(-k/n)."""

  choice: RotaryPositions
  options: "BertConfig"

  def __call__(self, x_BLHK: jax.Array, position_ids_BL: jax.Array,
               layer: jax.Array | int) -> jax.Array:
    n = int(x_BLHK.shape[-1] * self.choice.fraction) // 2
    base = self.options.locality.rotary_base(layer, self.choice.base)
    rate_K = jnp.asarray(base, jnp.float32) ** (-jnp.arange(n) / n)
    angle_BLHK = (position_ids_BL[..., None, None].astype(jnp.float32)
                  * rate_K[None, None, None])
    cos, sin = jnp.cos(angle_BLHK), jnp.sin(angle_BLHK)
    full = x_BLHK.astype(jnp.float32)
    left, right = full[..., :n], full[..., n:2 * n]
    return jnp.concatenate(
        [left * cos - right * sin, right * cos + left * sin, full[..., 2 * n:]],
        axis=-1).astype(x_BLHK.dtype)


class Alibi(nn.Module):
  heads: int

  def __call__(self, distance_A: jax.Array) -> jax.Array:
    slope_H = jnp.asarray(slopes(self.heads), jnp.float32)
    near_A = -jnp.abs(distance_A).astype(jnp.float32)
    return slope_H[:, None] * near_A[None]


def slopes(heads: int) -> list[float]:
  """Geometric; where the number of heads is no power of two, that of the next
  smaller one, and every other of the next larger one (the authors' code)."""
  powers = lambda n: [2 ** (-8 * (i + 1) / n) for i in range(n)]
  smaller = 2 ** int(math.log2(heads))
  return powers(smaller) + powers(2 * smaller)[::2][:heads - smaller]


class RelativeBias(nn.Module):
  choice: RelativeBiasPositions
  options: "BertConfig"

  @nn.compact
  def __call__(self, distance_A: jax.Array) -> jax.Array:
    table_WH = self.param(
        "embedding", initializer(self.options),
        (self.choice.buckets, self.options.num_attention_heads))
    return table_WH[bucket(distance_A, self.choice.buckets,
                           self.choice.max_distance)].T


def bucket(distance: jax.Array, buckets: int, max_distance: int) -> jax.Array:
  """T5's buckets of distances, key minus query: one for each that is small,
  then logarithmically wider ones; the upper half for keys after the query."""
  half = buckets // 2
  exact = half // 2
  away = jnp.abs(distance)
  ratio = jnp.maximum(away, 1).astype(jnp.float32) / exact
  wide = exact + (jnp.log(ratio) / math.log(max_distance / exact)
                  * (half - exact)).astype(jnp.int32)
  near = jnp.where(away < exact, away, jnp.minimum(wide, half - 1))
  return near + jnp.where(distance > 0, half, 0)


def by_pairs(bias_HA: jax.Array) -> jax.Array:
  """(1, H, L, M): biases of distances, 1 - L to L - 1, by queries and keys.

  By shapes alone, as a gather's gradient is slow on TPUs: 2L numbers are
  repeated in rows of 2L - 1, so that each row begins one earlier.
  """
  heads, distances = bias_HA.shape
  tokens = (distances + 1) // 2
  from_zero_HA = jnp.concatenate(
      [bias_HA[:, tokens - 1:], bias_HA[:, :1], bias_HA[:, :tokens - 1]], 1)
  rows = jnp.tile(from_zero_HA, (1, tokens))[:, :tokens * distances]
  return rows.reshape(1, heads, tokens, distances)[..., :tokens]
