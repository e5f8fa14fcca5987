"""Which tokens a masked language model has to predict, and what it sees."""

import dataclasses
import math
from typing import ClassVar

import jax
import jax.numpy as jnp

from bert_jax.config import Choice, UserError
from bert_jax.data.batches.spec import Key, Keys
from bert_jax.data.tokenizers.vocabulary import Vocabulary
from bert_jax.objectives.base import Batch


@dataclasses.dataclass(frozen=True)
class Masking(Choice):
  """BERT's masking (Devlin et al. 2019, 3.1), anew in every epoch, on device.

  Of each row, `rate` of the tokens (special ones count but are never chosen)
  are predicted; of these 80% are shown as [MASK], 10% as a random ordinary
  token, 10% as they are. A member says which tokens are chosen together.
  """

  rate: float = 0.15
  keys: ClassVar[Keys] = {
      "masked_positions": Key(jnp.int32, "P"),
      "masked_labels": Key(jnp.int32, "P"),
      "masked_weights": Key(jnp.float32, "P", weighs=True)}
  mask_fraction: float = 0.8
  random_fraction: float = 0.1

  def __post_init__(self):
    if not 0 < self.rate < 1:
      raise UserError(f"masking.rate={self.rate}: must lie between 0 and 1.")
    if not 0 <= self.mask_fraction + self.random_fraction <= 1:
      raise UserError(
          "masking.mask_fraction + masking.random_fraction = "
          f"{self.mask_fraction + self.random_fraction}: at most 1.")

  def predictions_per_row(self, length: int) -> int:
    """P: Google's own choices, 20 of 128 and 80 of 512 tokens at 15%."""
    return min(length, 4 * math.ceil(length * self.rate / 4))

  def units(self, starts_word_BL: jax.Array) -> jax.Array:
    """The unit each token belongs to, numbers below L: chosen whole or not."""
    raise NotImplementedError

  def apply(self, batch: Batch, keys_B: jax.Array,
            vocabulary: Vocabulary) -> Batch:
    """Adds masked_{positions,labels,weights} and rewrites input_ids."""
    ids_BL, real_BL = batch["input_ids"], batch["example_ids"] > 0
    ordinary_V = jnp.zeros(vocabulary.size, bool).at[
        vocabulary.ordinary_ids].set(True)
    candidate_BL = real_BL & ordinary_V[ids_BL]
    # What follows a special token starts a word, even a cut one.
    after_BL = jnp.roll(candidate_BL, 1, axis=-1).at[:, 0].set(False)
    starts_BL = (jnp.asarray(vocabulary.word_start_V)[ids_BL]
                 | ~candidate_BL | ~after_BL)
    choose_B, show_B, draw_B = (
        jax.vmap(jax.random.fold_in, (0, None))(keys_B, i) for i in range(3))
    unit_BL = self.units(starts_BL)
    score_BL, size_BL = (
        jnp.take_along_axis(x_BL, unit_BL, axis=-1)
        for x_BL in (_uniform(choose_B, ids_BL.shape[-1]), _sizes(unit_BL)))
    predicted = self.predictions_per_row(ids_BL.shape[-1])
    tokens_B = real_BL.sum(-1, dtype=jnp.float32)
    wanted_B = jnp.clip(jnp.round(self.rate * tokens_B), 1, predicted
                        ).astype(jnp.int32)
    # Stable, so that the tokens of one unit stay together and in order.
    order_BL = jnp.argsort(jnp.where(candidate_BL, score_BL, 2.0), axis=-1,
                           stable=True)
    positions_BP = order_BL[:, :predicted]
    at = lambda x_BL: jnp.take_along_axis(x_BL, positions_BP, axis=-1)
    chosen_BP = at(candidate_BL) & _fits(at(unit_BL), at(size_BL), wanted_B)
    # Unused slots point at position 0 and weigh nothing.
    positions_BP = jnp.where(chosen_BP, positions_BP, 0)
    labels_BP = jnp.take_along_axis(ids_BL, positions_BP, axis=-1)
    shown_BP = self._shown(labels_BP, show_B, draw_B, vocabulary)
    rows_B1 = jnp.arange(ids_BL.shape[0])[:, None]
    # Unused slots write outside the row and are dropped.
    target_BP = jnp.where(chosen_BP, positions_BP, ids_BL.shape[-1])
    return {**batch,
            "input_ids": ids_BL.at[rows_B1, target_BP].set(shown_BP,
                                                           mode="drop"),
            "masked_positions": positions_BP.astype(jnp.int32),
            "masked_labels": labels_BP,
            "masked_weights": chosen_BP.astype(jnp.float32)}

  def _shown(self, labels_BP: jax.Array, show_B: jax.Array, draw_B: jax.Array,
             vocabulary: Vocabulary) -> jax.Array:
    predicted = labels_BP.shape[-1]
    uniform_BP = jax.vmap(lambda k: jax.random.uniform(k, (predicted,)))(show_B)
    ordinary = jnp.asarray(vocabulary.ordinary_ids, labels_BP.dtype)
    random_BP = ordinary[jax.vmap(lambda k: jax.random.randint(
        k, (predicted,), 0, ordinary.size))(draw_B)]
    mask = jnp.asarray(vocabulary.mask_id, labels_BP.dtype)
    kept_BP = jnp.where(uniform_BP < self.mask_fraction + self.random_fraction,
                        random_BP, labels_BP)
    return jnp.where(uniform_BP < self.mask_fraction, mask, kept_BP)


def _fits(unit_BP: jax.Array, size_BP: jax.Array,
          wanted_B: jax.Array) -> jax.Array:
  """Whether the whole unit of each slot lies within the wanted number."""
  slot_P = jnp.arange(unit_BP.shape[-1])
  first_BP = jnp.concatenate(
      [jnp.ones_like(unit_BP[:, :1], bool),
       unit_BP[:, 1:] != unit_BP[:, :-1]], axis=-1)
  start_BP = jax.lax.cummax(
      jnp.where(first_BP, slot_P[None, :], 0), axis=1)
  return start_BP + size_BP <= wanted_B[:, None]


def _sizes(unit_BL: jax.Array) -> jax.Array:
  """The number of tokens of unit 0, 1, ... of each row, `[B, L]`."""
  length = unit_BL.shape[-1]
  return jax.vmap(lambda unit_L: jnp.bincount(unit_L, length=length))(unit_BL)


def _uniform(keys_B: jax.Array, length: int) -> jax.Array:
  return jax.vmap(lambda key: jax.random.uniform(key, (length,)))(keys_B)


@dataclasses.dataclass(frozen=True)
class TokenMasking(Masking):
  """Every token for itself, as BERT was published."""

  def units(self, starts_word_BL: jax.Array) -> jax.Array:
    return jnp.broadcast_to(jnp.arange(starts_word_BL.shape[-1])[None],
                            starts_word_BL.shape)


@dataclasses.dataclass(frozen=True)
class WholeWordMasking(Masking):
  """All pieces of a word or none (google-research/bert, May 2019).

  A word that no longer fits is left out, as Google does, though later and
  shorter ones are not tried in its stead.
  """

  def units(self, starts_word_BL: jax.Array) -> jax.Array:
    return jnp.cumsum(starts_word_BL, axis=-1) - 1
