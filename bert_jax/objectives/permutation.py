"""Masked tokens predicted one after another, in a random order."""

import dataclasses
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from bert_jax.config import UserError
from bert_jax.data.batches.spec import Key, Keys
from bert_jax.data.tokenizers.vocabulary import Vocabulary
from bert_jax.model.bert import BertConfig
from bert_jax.model.encoder import Encoder
from bert_jax.model.heads import MlmHead
from bert_jax.objectives.base import Batch
from bert_jax.objectives.masking import Masking, TokenMasking
from bert_jax.objectives.mlm import Mlm


@dataclasses.dataclass(frozen=True)
class Permutation(Mlm):
  """Permutation language modeling (XLNet: Yang et al. 2019, 2.2 and 2.3).

  The tokens that `masking` chooses are predicted in a random order, each from
  those that are not chosen and from the chosen ones before it in that order.
  What is not chosen is seen by all and sees itself alone, as there.

  XLNet's query stream is one of [MASK] tokens behind the row here, one for each
  token that is predicted, at its position. They go through the layers as
  tokens do, and those that come later in the order see them, too.
  """

  # All are shown as they are.
  masking: Masking = TokenMasking(mask_fraction=0.0, random_fraction=0.0)
  keys: ClassVar[Keys] = Masking.keys | {"order": Key(np.int32, "L")}

  def __post_init__(self):
    super().__post_init__()
    if self.masking.mask_fraction or self.masking.random_fraction:
      raise UserError(
          f"objective.masking.mask_fraction={self.masking.mask_fraction:g} and "
          f"random_fraction={self.masking.random_fraction:g}: of a permutation "
          "all tokens are shown as they are; both are 0.")

  def networks(self, model: BertConfig) -> dict[str, BertConfig]:
    if model.positions.bias(model) is not None:
      raise UserError(
          f"model.positions={model.positions.choice_name} goes by places in "
          "the row, where objective=permutation asks at its end; take "
          "learned, rotary or sinusoidal positions.")
    return super().networks(model)

  def order(self, batch: Batch) -> jax.Array | None:
    return batch.get("order")

  def corrupt(self, batch: Batch, keys_B: jax.Array, vocabulary: Vocabulary,
              step: jax.Array | None) -> Batch:
    """Adds the questions behind each row, and the order."""
    batch = super().corrupt(batch, keys_B, vocabulary, step)
    positions_BP = batch["masked_positions"]
    asked_BP = batch["masked_weights"] > 0
    length, turn_P = batch["input_ids"].shape[1], jnp.arange(
        1, positions_BP.shape[1] + 1, dtype=jnp.int32)
    # The question of turn t sees what turns before it have answered, that is
    # their tokens, but not its own.
    rows_B1 = jnp.arange(len(positions_BP))[:, None]
    target_BP = jnp.where(asked_BP, positions_BP, length)
    order_BL = jnp.zeros_like(batch["example_ids"]).at[rows_B1, target_BP].set(
        2 * turn_P[None] + 1, mode="drop")
    at = lambda name: jnp.where(asked_BP, jnp.take_along_axis(
        batch[name], positions_BP, axis=1), 0)
    behind = {"input_ids": jnp.where(asked_BP, vocabulary.mask_id,
                                     vocabulary.pad_id),
              "order": jnp.broadcast_to(2 * turn_P[None], positions_BP.shape)}
    for name in ("token_type_ids", "position_ids", "example_ids"):
      behind[name] = at(name)
    return {**batch, **{
        name: jnp.concatenate([x_BL, behind[name].astype(x_BL.dtype)], axis=1)
        for name, x_BL in (batch | {"order": order_BL}).items()
        if name in behind}}

  def logits(self, encoder: Encoder, sequence_output_BLD: jax.Array,
             batch: Batch, keys_B: jax.Array | None) -> dict[str, jax.Array]:
    asked_BP = batch["masked_positions"]
    first = sequence_output_BLD.shape[1] - asked_BP.shape[1]
    head = MlmHead(encoder.options, name="mlm")
    return {"mlm": head(
        sequence_output_BLD,
        jnp.broadcast_to(first + jnp.arange(asked_BP.shape[1])[None],
                         asked_BP.shape), encoder.word_embeddings())}
