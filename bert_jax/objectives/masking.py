"""Which tokens a masked language model has to predict, and what it sees."""

import dataclasses
import math
from typing import ClassVar

import jax
import jax.numpy as jnp

from bert_jax.config import Choice, UserError
from bert_jax.data.batches.spec import Key, Keys
from bert_jax.data.tokenizers.base import LoadedTokenizer
from bert_jax.data.tokenizers.vocabulary import Vocabulary
from bert_jax.objectives.base import Batch


@dataclasses.dataclass(frozen=True)
class Masking(Choice):
  """Which tokens are masked for the network to predict.

  As BERT's (Devlin et al. 2019, 3.1), but dynamic and on device: of each row,
  `rate` of the tokens (special ones count but are never chosen) are predicted;
  of these 80% are shown as [MASK], 10% as a random ordinary token, 10% as they
  are. A member says which tokens are chosen together.

  Units come in random order, and one that no longer fits is skipped for those
  behind it, as in google-research/bert. There a word larger than the row's
  quota is never predicted; here its pieces are words of their own, so that
  text without spaces is learned from.

  Attributes:
    rate: masking rate: the fraction of the tokens that is predicted.
    initial_rate: masking rate at the first training step, from which it moves
      linearly to `rate` over `rate_steps` steps; None: `rate` throughout.
      Evaluation always masks at `rate`.
    rate_steps: number of training steps over which the masking rate moves from
      `initial_rate` to `rate`; 0 without an initial_rate.
    max_predictions: most tokens that are predicted in one row, as
      max_predictions_per_seq; None: as many as the rate needs.
    mask_fraction: fraction of the predicted tokens that is replaced by [MASK].
    random_fraction: fraction of the predicted tokens that is replaced by a
      random ordinary token; those that neither replaces are shown unchanged.
  """

  rate: float = 0.15
  initial_rate: float | None = None
  rate_steps: int = 0
  max_predictions: int | None = None
  keys: ClassVar[Keys] = {
      "masked_positions": Key(jnp.int32, "P"),
      "masked_labels": Key(jnp.int32, "P"),
      "masked_weights": Key(jnp.float32, "P", weighs=True)}
  # Whether all tokens of a unit are shown in the same of the three ways.
  units_look_alike: ClassVar[bool] = False
  mask_fraction: float = 0.8
  random_fraction: float = 0.1

  def __post_init__(self):
    for name in ("rate", "initial_rate"):
      rate = getattr(self, name)
      if rate is not None and not 0 < rate < 1:
        raise UserError(f"masking.{name}={rate}: must lie between 0 and 1.")
    if (self.initial_rate is not None) != (self.rate_steps > 0):
      raise UserError(
          f"masking.initial_rate={self.initial_rate} and masking.rate_steps="
          f"{self.rate_steps}: a rate that moves needs both, as in "
          "masking.initial_rate=0.3 masking.rate_steps=10000.")
    if self.max_predictions is not None and self.max_predictions < 1:
      raise UserError(f"masking.max_predictions={self.max_predictions}: at "
                      "least 1.")
    shown = self.mask_fraction, self.random_fraction
    if min(shown) < 0 or sum(shown) > 1:
      raise UserError(
          f"masking.mask_fraction={shown[0]} and masking.random_fraction="
          f"{shown[1]}: each at least 0, their sum at most 1.")

  def tokenized(self, tokenizer: LoadedTokenizer) -> "Masking":
    """With what the tokenizer decides."""
    return self

  def predictions_per_row(self, length: int, training: bool = True) -> int:
    """P: Google's own choices, 20 of 128 and 80 of 512 tokens at 15%."""
    if self.max_predictions is not None:
      return min(length, self.max_predictions)
    rate = max(self.rate, self.initial_rate or 0) if training else self.rate
    return min(length, 4 * math.ceil(length * rate / 4))

  def rate_at(self, step: jax.Array | None) -> jax.Array | float:
    """The rate of a step; None: of evaluation."""
    if step is None or self.initial_rate is None:
      return self.rate
    progress = jnp.minimum(jnp.asarray(step, jnp.float32) / self.rate_steps, 1)
    return self.initial_rate + (self.rate - self.initial_rate) * progress

  def units(self, ids_BL: jax.Array, starts_word_BL: jax.Array,
            keys_B: jax.Array) -> jax.Array:
    """The unit each token belongs to, rising numbers below L.

    The tokens of a unit are chosen together. Special tokens end a unit.
    """
    raise NotImplementedError

  def parts(self, starts_word_BL: jax.Array,
            unit_BL: jax.Array) -> jax.Array:
    """What of a unit is chosen whole or not, where all would be too many.

    Words of a part larger than the row's quota are units of their own.
    """
    return unit_BL

  def apply(self, batch: Batch, keys_B: jax.Array, vocabulary: Vocabulary,
            step: jax.Array | None = None) -> Batch:
    """Adds masked_{positions,labels,weights} and rewrites input_ids.

    Args:
      step: of training; None: in evaluation, which no schedule changes.
    """
    ids_BL, real_BL = batch["input_ids"], batch["example_ids"] > 0
    ordinary_V = jnp.zeros(vocabulary.size, bool).at[
        vocabulary.ordinary_ids].set(True)
    candidate_BL = real_BL & ordinary_V[ids_BL]
    # What follows a special token starts a word, even a cut one.
    after_BL = jnp.roll(candidate_BL, 1, axis=-1).at[:, 0].set(False)
    starts_BL = (jnp.asarray(vocabulary.word_start_V)[ids_BL]
                 | ~candidate_BL | ~after_BL)
    predicted = self.predictions_per_row(ids_BL.shape[-1], step is not None)
    tokens_B = real_BL.sum(-1, dtype=jnp.float32)
    count_B = jnp.clip(jnp.round(self.rate_at(step) * tokens_B), 1, predicted
                       ).astype(jnp.int32)
    starts_BL |= _sizes(starts_BL) > count_B[:, None]
    choose_B, show_B, draw_B, unit_B = (
        jax.vmap(jax.random.fold_in, (0, None))(keys_B, i) for i in range(4))
    unit_begins_BL = (_begins(self.units(ids_BL, starts_BL,
                                             unit_B))
                      | _begins(candidate_BL))  # Special tokens end a unit.
    part_begins_BL = unit_begins_BL | _begins(
        self.parts(starts_BL, numbered(unit_begins_BL)))
    alone_BL = starts_BL & (_sizes(part_begins_BL) > count_B[:, None])
    unit_BL, part_BL = (numbered(begins_BL | alone_BL) for begins_BL in (
        unit_begins_BL, part_begins_BL))
    score_BL = jnp.take_along_axis(_uniform(choose_B, ids_BL.shape[-1]),
                                   unit_BL, axis=-1)
    # Stable, so that the tokens of one unit stay together and in order.
    order_BL = jnp.argsort(jnp.where(candidate_BL, score_BL, 2.0), axis=-1,
                           stable=True)
    at = lambda x_BL, at_BP: jnp.take_along_axis(x_BL, at_BP, axis=-1)
    chosen_BL = _that_fit(at(part_BL, order_BL), at(candidate_BL, order_BL),
                          count_B)
    slots_BP = jnp.argsort(~chosen_BL, axis=-1, stable=True)[:, :predicted]
    positions_BP, chosen_BP = at(order_BL, slots_BP), at(chosen_BL, slots_BP)
    unit_BP = at(unit_BL, positions_BP)
    # Unused slots point at position 0 and weigh nothing.
    positions_BP = jnp.where(chosen_BP, positions_BP, 0)
    labels_BP = jnp.take_along_axis(ids_BL, positions_BP, axis=-1)
    shown_BP = self._shown(labels_BP, unit_BP, show_B, draw_B, vocabulary)
    rows_B1 = jnp.arange(ids_BL.shape[0])[:, None]
    # Unused slots write outside the row and are dropped.
    target_BP = jnp.where(chosen_BP, positions_BP, ids_BL.shape[-1])
    return {**batch,
            "input_ids": ids_BL.at[rows_B1, target_BP].set(shown_BP,
                                                           mode="drop"),
            "masked_positions": positions_BP.astype(jnp.int32),
            "masked_labels": labels_BP,
            "masked_weights": chosen_BP.astype(jnp.float32)}

  def _shown(self, labels_BP: jax.Array, unit_BP: jax.Array, show_B: jax.Array,
             draw_B: jax.Array, vocabulary: Vocabulary) -> jax.Array:
    predicted = labels_BP.shape[-1]
    uniform_BP = _uniform(show_B, predicted)
    if self.units_look_alike:
      uniform_BP = jnp.take_along_axis(
          uniform_BP, _first_slots(_begins(unit_BP)), axis=-1)
    ordinary = jnp.asarray(vocabulary.ordinary_ids, labels_BP.dtype)
    random_BP = ordinary[jax.vmap(lambda k: jax.random.randint(
        k, (predicted,), 0, ordinary.size))(draw_B)]
    mask = jnp.asarray(vocabulary.mask_id, labels_BP.dtype)
    kept_BP = jnp.where(uniform_BP < self.mask_fraction + self.random_fraction,
                        random_BP, labels_BP)
    return jnp.where(uniform_BP < self.mask_fraction, mask, kept_BP)


def _begins(unit_BL: jax.Array) -> jax.Array:
  """Whether a unit begins at a token."""
  return (unit_BL != jnp.roll(unit_BL, 1, axis=-1)).at[:, 0].set(True)


def numbered(begins_BL: jax.Array) -> jax.Array:
  """The unit of each token, of where units begin."""
  return jnp.cumsum(begins_BL, axis=-1, dtype=jnp.int32) - 1


def _first_slots(begins_BP: jax.Array) -> jax.Array:
  """The first slot of the unit of each slot."""
  slot_P = jnp.arange(begins_BP.shape[-1])
  return jax.lax.cummax(jnp.where(begins_BP, slot_P[None], 0), axis=1)


def _sizes(begins_BL: jax.Array) -> jax.Array:
  """The number of tokens of the unit of each token."""
  length = begins_BL.shape[-1]
  ends_BL = jnp.roll(begins_BL, -1, axis=-1).at[:, -1].set(True)
  last_BL = jax.lax.cummin(
      jnp.where(ends_BL, jnp.arange(length)[None], length), axis=1,
      reverse=True)
  return last_BL + 1 - _first_slots(begins_BL)


def _that_fit(part_BL: jax.Array, candidate_BL: jax.Array,
              count_B: jax.Array) -> jax.Array:
  """Which tokens are chosen, when parts are taken in the order of the row.

  A part that does not fit into what is left of `count_B` is skipped.
  """
  size_BL, first_BL = (of(_begins(part_BL)) for of in (_sizes, _first_slots))

  def take(state: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
    """All parts before the first that does not fit, which ends the turn."""
    open_BL, chosen_BL = state
    count = lambda x_BL: x_BL.sum(-1, keepdims=True, dtype=jnp.int32)
    left_B1 = count_B[:, None] - count(chosen_BL)
    before_BL = numbered(open_BL) + (~open_BL).astype(jnp.int32)
    end_BL = jnp.take_along_axis(before_BL, first_BL, axis=-1) + size_BL
    fits_BL = open_BL & (end_BL <= left_B1)
    left_B1 -= count(fits_BL)
    return open_BL & ~fits_BL & (size_BL <= left_B1), chosen_BL | fits_BL

  # A turn leaves only parts smaller than the one that ended it: two or three.
  return jax.lax.while_loop(lambda state: state[0].any(), take,
                            take((candidate_BL, candidate_BL & False)))[1]


def _uniform(keys_B: jax.Array, length: int) -> jax.Array:
  return jax.vmap(lambda key: jax.random.uniform(key, (length,)))(keys_B)


@dataclasses.dataclass(frozen=True)
class TokenMasking(Masking):
  """Single tokens, each drawn by itself, as BERT was published."""

  def units(self, ids_BL: jax.Array, starts_word_BL: jax.Array,
            keys_B: jax.Array) -> jax.Array:
    return jnp.broadcast_to(jnp.arange(starts_word_BL.shape[-1])[None],
                            starts_word_BL.shape)


@dataclasses.dataclass(frozen=True)
class WholeWordMasking(Masking):
  """Words: all pieces of a word or none (google-research/bert, May 2019)."""

  def units(self, ids_BL: jax.Array, starts_word_BL: jax.Array,
            keys_B: jax.Array) -> jax.Array:
    return numbered(starts_word_BL)


@dataclasses.dataclass(frozen=True)
class SpanMasking(Masking):
  """Spans of consecutive words (SpanBERT, Joshi et al. 2020, 3.1).

  The text is cut into spans whose lengths in words are geometric, truncated at
  `longest_span` (mean 3.8 words); random ones are predicted until the rate is
  reached, the last ones cut at a word. All tokens of a span are shown alike.
  SpanBERT draws places instead, and again where they overlap, so that there
  longer spans are placed less often as a row fills up.

  Attributes:
    span_p: p of the geometric distribution of the spans' lengths, in words; a
      smaller one makes longer spans.
    longest_span: the longest span, in words.
  """

  span_p: float = 0.2
  longest_span: int = 10
  units_look_alike: ClassVar = True

  def __post_init__(self):
    super().__post_init__()
    if not 0 < self.span_p < 1 or self.longest_span < 1:
      raise UserError(f"masking.span_p={self.span_p} must lie between 0 and 1, "
                      f"masking.longest_span={self.longest_span} be at least "
                      "1.")

  def units(self, ids_BL: jax.Array, starts_word_BL: jax.Array,
            keys_B: jax.Array) -> jax.Array:
    word_BL = numbered(starts_word_BL)
    end_BL = jnp.cumsum(self.lengths(keys_B, word_BL.shape[-1]), axis=-1)
    return jax.vmap(lambda end_L, word_L: jnp.searchsorted(
        end_L, word_L, side="right"))(end_BL, word_BL).astype(word_BL.dtype)

  def lengths(self, keys_B: jax.Array, count: int) -> jax.Array:
    """`count` lengths of spans a row, in words."""
    failure = 1 - self.span_p
    # The inverse of the cumulative distribution, truncated.
    below = 1 - _uniform(keys_B, count) * (1 - failure**self.longest_span)
    lengths = jnp.ceil(jnp.log(below) / math.log(failure)).astype(jnp.int32)
    return jnp.clip(lengths, 1, self.longest_span)

  def parts(self, starts_word_BL: jax.Array,
            unit_BL: jax.Array) -> jax.Array:
    return numbered(starts_word_BL)
