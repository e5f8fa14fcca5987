"""Spans that are left out of a text, written behind it."""

import dataclasses
import math
from collections.abc import Mapping
from typing import ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from bert_jax.config import UserError
from bert_jax.data.batches.spec import Key, Keys
from bert_jax.data.tokenizers.vocabulary import Vocabulary
from bert_jax.model.encoder import Encoder
from bert_jax.model.pooler import gather
from bert_jax.objectives.base import Batch
from bert_jax.objectives.causal import Causal

# Rows are lengthened to a multiple of it.
_MULTIPLE = 8


class _Sizes(NamedTuple):
  """At most, in a row: its tokens, those that are predicted, and spans of one
  example."""

  tokens: int
  predicted: int
  spans: int


@dataclasses.dataclass(frozen=True)
class Denoising(Causal):
  """Span denoising: spans of a text are left out, and written behind it from
  left to right (T5: Raffel et al. 2020, 3.1.4; UL2: Tay et al. 2023).

  Of each example round(rate * n) of its n tokens are left out, in
  round(rate * n / span) spans of random lengths, as T5's
  random_spans_noise_mask draws them. One [MASK] stands for each in the source,
  which is seen in both directions. The target is for each span a [MASK] and its
  tokens, and at last [SEP]; T5 has a token of its own for each span instead.
  What follows the first [MASK] of the target is predicted.

  Attributes:
    rate: fraction of the tokens that is left out.
    span: mean number of tokens of a span.
  """

  rate: float = 0.15
  span: float = 3.0
  keys: ClassVar[Keys] = {
      "order": Key(np.int32, "L"), "next_positions": Key(np.int32, "P"),
      "next_ids": Key(np.int32, "P"),
      "next_weights": Key(np.float32, "P", weighs=True)}

  def __post_init__(self):
    super().__post_init__()
    if not 0 < self.rate < 1 or self.span < 1:
      raise UserError(f"objective.rate={self.rate:g} must lie between 0 and 1, "
                      f"objective.span={self.span:g} be at least 1.")

  def order(self, batch: Batch) -> jax.Array | None:
    return batch.get("order")  # None: a text alone is all source.

  def corrupt(self, batch: Batch, keys_B: jax.Array, vocabulary: Vocabulary,
              step: jax.Array | None) -> Batch:
    """The rows lengthened by what is left out."""
    examples = batch["example_mask"].shape[1]
    sizes = self._sizes(batch["input_ids"].shape[1], examples)
    ordinary_V = jnp.zeros(vocabulary.size, bool).at[
        vocabulary.ordinary_ids].set(True)

    def of_row(row: Batch, key: jax.Array) -> Batch:
      text_L = ordinary_V[row["input_ids"]] & (row["example_ids"] > 0)
      left_out_L, begins_L = self._spans(text_L, row["example_ids"], key,
                                         examples, sizes.spans)
      return _rewritten(row, left_out_L, begins_L, vocabulary, sizes)

    return {**batch, **jax.vmap(of_row)({
        name: batch[name] for name in (
            "input_ids", "token_type_ids", "example_ids", "cls_positions")},
        keys_B)}

  def outputs(self, networks: Mapping[str, Encoder], batch: Batch,
              keys_B: jax.Array | None) -> dict[str, jax.Array]:
    encoder, = networks.values()
    tokens = batch["input_ids"].shape[1]
    positions = encoder.options.max_position_embeddings
    if tokens > positions:
      raise UserError(
          f"objective=denoising writes what it leaves out behind the text: rows "
          f"have {tokens} tokens then, but model.max_position_embeddings="
          f"{positions}. Make data.length smaller, or the other one larger.")
    return super().outputs(networks, batch, keys_B)

  def logits(self, encoder: Encoder, sequence_output_BLD: jax.Array,
             batch: Batch, keys_B: jax.Array | None) -> dict[str, jax.Array]:
    if "next_positions" in batch:
      sequence_output_BLD = gather(sequence_output_BLD, batch["next_positions"])
    return super().logits(encoder, sequence_output_BLD, batch, keys_B)

  def _sizes(self, length: int, examples: int) -> _Sizes:
    most = self.rate * length + 1.5 * examples
    spans = math.ceil(most / self.span) + examples
    more = math.ceil(most) + spans
    up = lambda n: -(-n // _MULTIPLE) * _MULTIPLE
    return _Sizes(up(length + 2 * spans + examples), up(more), min(
        length, math.ceil((self.rate * length + 0.5) / self.span) + 1))

  def _spans(self, text_L: jax.Array, example_L: jax.Array, key: jax.Array,
             examples: int, most: int) -> tuple[jax.Array, jax.Array]:
    """Which tokens are left out, and which of them begin a span."""
    numbers_E = jnp.arange(1, examples + 1)
    member_EL = (example_L[None] == numbers_E[:, None]) & text_L[None]
    place_EL = jnp.cumsum(member_EL, axis=1) - 1  # of the text, by example
    mask_EL, begins_EL = jax.vmap(lambda count, key: self._noise(
        count, key, text_L.shape[0], most))(
            member_EL.sum(1), jax.random.split(key, examples))
    at = lambda x_EL: jnp.any(member_EL & jnp.take_along_axis(
        x_EL, jnp.maximum(place_EL, 0), axis=1), axis=0)
    return at(mask_EL), at(begins_EL)

  def _noise(self, count: jax.Array, key: jax.Array, length: int,
             most: int) -> tuple[jax.Array, jax.Array]:
    """T5's random_spans_noise_mask of `count` tokens, and where spans begin."""
    times = lambda n, factor: jnp.round(
        n.astype(jnp.float32) * factor).astype(jnp.int32)
    hidden = jnp.clip(times(count, self.rate), 1, jnp.maximum(count - 1, 0))
    spans = jnp.clip(times(hidden, 1 / self.span), 1,
                     jnp.minimum(hidden, count - hidden))
    seen_key, hidden_key = jax.random.split(key)
    seen_S = _segments(count - hidden, spans, seen_key, length, most)
    hidden_S = _segments(hidden, spans, hidden_key, length, most)
    ends_S = jnp.cumsum(seen_S + hidden_S)
    place_L = jnp.arange(length)
    span_L = jnp.minimum(jnp.searchsorted(ends_S, place_L, side="right"),
                         most - 1)
    inside_L = place_L - (ends_S - hidden_S)[span_L]
    mask_L = (inside_L >= 0) & (place_L < ends_S[-1]) & (hidden > 0)
    return mask_L, mask_L & (inside_L == 0)


def _segments(items: jax.Array, segments: jax.Array, key: jax.Array,
              length: int, most: int) -> jax.Array:
  """Lengths, at least 1, of a random segmentation; 0 behind the last one."""
  gap_L = jnp.arange(length)
  between_L = gap_L < items - 1
  score_L = jnp.where(between_L, jax.random.uniform(key, (length,)), 2.0)
  rank_L = jnp.argsort(jnp.argsort(score_L))
  breaks_L = between_L & (rank_L < segments - 1)
  breaks_L = breaks_L.astype(jnp.int32)
  segment_L = jnp.cumsum(breaks_L) - breaks_L
  return jnp.zeros(most, jnp.int32).at[segment_L].add(
      (gap_L < items).astype(jnp.int32), mode="drop")


def _rewritten(row: Batch, left_out_L: jax.Array, begins_L: jax.Array,
               vocabulary: Vocabulary, sizes: _Sizes) -> Batch:
  """A row as the network sees it."""
  ids_L, example_L = row["input_ids"], row["example_ids"]
  last_L = (jnp.roll(example_L, -1).at[-1].set(0) != example_L)
  some_L = jnp.any((example_L[:, None] == example_L[None]) & left_out_L[None],
                   axis=1)
  mask, sep = (jnp.full_like(ids_L, i) for i in (vocabulary.mask_id,
                                                 vocabulary.sep_id))
  # What may stand in the new row, in order within each of its three parts.
  entries = [  # id, whether it is there, part
      (jnp.where(begins_L, mask, ids_L), ~left_out_L | begins_L, 0),
      (jnp.stack([mask, ids_L], 1).ravel(),
       jnp.stack([begins_L, left_out_L], 1).ravel(), 1),
      (sep, last_L & some_L, 2)]
  repeat = lambda x_L: jnp.concatenate([x_L, jnp.repeat(x_L, 2), x_L])
  id_X, there_X = (jnp.concatenate([e[i] for e in entries]) for i in (0, 1))
  part_X = jnp.concatenate([jnp.full(len(e[0]), e[2]) for e in entries])
  example_X, type_X = repeat(example_L), repeat(row["token_type_ids"])
  there_X &= example_X > 0
  key_X = jnp.where(there_X, 3 * example_X + part_X, jnp.iinfo(jnp.int32).max)
  order_X = jnp.argsort(key_X, stable=True)[:sizes.tokens]
  real_L = there_X[order_X]
  take = lambda x_X, fill: jnp.where(real_L, x_X[order_X], fill)
  part_L, example_L = take(part_X, 0), take(example_X, 0)
  place_L = jnp.arange(sizes.tokens)
  since = lambda here_L: place_L - jax.lax.cummax(
      jnp.where(here_L, place_L, 0), axis=0)
  first_L = jnp.roll(example_L, 1).at[0].set(0) != example_L
  target_L = real_L & (part_L > 0)
  id_L = take(id_X, vocabulary.pad_id)
  asks_L = target_L & (part_L < 2)
  slot_P = jnp.argsort(~asks_L, stable=True)[:sizes.predicted]
  weight_P = asks_L[slot_P].astype(jnp.float32)
  examples = row["cls_positions"].shape[0]
  starts_E = jnp.argmax(example_L[None] == jnp.arange(
      1, examples + 1)[:, None], axis=1)
  return {
      "input_ids": id_L, "example_ids": example_L,
      "token_type_ids": jnp.where(target_L, vocabulary.pair_token_type,
                                  take(type_X, 0)),
      "position_ids": jnp.where(real_L, since(first_L), 0),
      "cls_positions": starts_E.astype(jnp.int32),
      "order": jnp.where(target_L, since(~target_L), 0),
      "next_positions": jnp.where(weight_P > 0, slot_P, 0),
      "next_ids": jnp.roll(id_L, -1)[slot_P], "next_weights": weight_P}
