"""How likely a network holds texts to be."""

import dataclasses
import functools
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from bert_jax.checkpoints.reading import Checkpoint
from bert_jax.config import UserError
from bert_jax.experiment import recipe
from bert_jax.objectives.base import Batch
from bert_jax.objectives.causal import Causal
from bert_jax.objectives.mlm import Mlm
from bert_jax.training import numerics
from bert_jax.training.step import Recipe

# Tokens of the rows that are computed at once.
_BATCH_TOKENS = 4096
_SHORTEST_ROW = 32


@dataclasses.dataclass(frozen=True)
class Likelihood:
  """Of a text.

  Attributes:
    log_probability: in nats.
    tokens: those that it is the sum over.
    bytes: of the text, UTF-8.
  """

  log_probability: float
  tokens: int
  bytes: int

  @property
  def bits_per_byte(self) -> float:
    return -self.log_probability / np.log(2) / max(self.bytes, 1)


def measure(objective: Any) -> str:
  """What the numbers of an objective are.

  Raises:
    UserError: it gives texts no probability.
  """
  if type(objective) is Causal:
    return "log-probability"
  if type(objective) in (Mlm, *Mlm.__subclasses__()) and (
      objective.choice_name in ("mlm", "mlm_nsp", "mlm_sop")):
    return "pseudo-log-likelihood"
  raise UserError(
      f"objective={objective.choice_name} gives texts no probability; "
      "objective=causal does, and a masked LM a pseudo-likelihood.")


def likelihoods(saved: Checkpoint, texts: Sequence[str]) -> list[Likelihood]:
  """log p of each text.

  Of a causal network the sum over all tokens and [SEP], each given those before
  it; of a masked LM the pseudo-log-likelihood (Salazar et al. 2020): the sum
  over all tokens, each masked alone and given all others.

  Raises:
    UserError: the objective gives none, or a text does not fit in a row.
  """
  experiment = saved.manifest.experiment
  is_causal = measure(experiment.objective) == "log-probability"
  tokenizer = saved.manifest.tokenizer
  built = recipe(experiment, tokenizer.vocabulary)
  ids = tokenizer.encode(list(texts))
  room = experiment.model.max_position_embeddings
  for number, row in enumerate(ids, 1):
    if len(row) + 2 > room:
      raise UserError(f"Text {number} has {len(row) + 2} tokens with [CLS] and "
                      f"[SEP], but the network {room} positions.")
  step = numerics.jit(functools.partial(_nats, built, is_causal))
  totals = np.zeros(len(texts))
  length = -(-max([_SHORTEST_ROW, *(len(row) + 2 for row in ids)])
             // _SHORTEST_ROW) * _SHORTEST_ROW
  length = min(length, room)
  for batch, text_B in _batches(built, ids, length, is_causal):
    nats_B = np.asarray(step(saved.params, batch), np.float64)
    np.add.at(totals, text_B, nats_B[:len(text_B)])
  return [Likelihood(-total, len(row) + is_causal, len(text.encode()))
          for total, row, text in zip(totals, ids, texts)]


def _batches(recipe: Recipe, ids: Sequence[Sequence[int]], length: int,
             is_causal: bool) -> Iterator[tuple[Batch, np.ndarray]]:
  """Rows of one text, and which; of a masked LM a row a token."""
  vocabulary = recipe.vocabulary
  questions = [(text, place) for text, row in enumerate(ids) for place in (
      [0] if is_causal else range(1, len(row) + 1))]
  size = max(1, _BATCH_TOKENS // length)
  for first in range(0, len(questions), size):
    part = questions[first:first + size]
    batch = {"input_ids": np.full((size, length), vocabulary.pad_id, np.int32),
             "example_ids": np.zeros((size, length), np.int32),
             "masked_positions": np.zeros((size, 1), np.int32),
             "masked_labels": np.zeros((size, 1), np.int32),
             "cls_positions": np.zeros((size, 1), np.int32),
             "example_mask": np.ones((size, 1), np.float32)}
    for b, (text, place) in enumerate(part):
      row = [vocabulary.cls_id, *ids[text], vocabulary.sep_id]
      batch["input_ids"][b, :len(row)] = row
      batch["example_ids"][b, :len(row)] = 1
      if not is_causal:
        batch["masked_positions"][b] = place
        batch["masked_labels"][b] = row[place]
        batch["input_ids"][b, place] = vocabulary.mask_id
    batch["position_ids"] = np.where(
        batch["example_ids"] > 0, np.arange(length, dtype=np.int32), 0)
    batch["token_type_ids"] = np.zeros_like(batch["input_ids"])
    yield batch, np.array([text for text, _ in part])


def _nats(recipe: Recipe, is_causal: bool, params: Any,
          batch: Batch) -> jax.Array:
  """-log p of what is asked of each row, (B)."""
  if is_causal:
    batch = recipe.inputs(batch, None, None)
    outputs = recipe.network.apply(params, batch)
    return jnp.sum(outputs["next_token"] * batch["next_weights"], axis=1)
  logits_BPV = recipe.network.apply(params, batch)["mlm"]
  nats_BPV = -jax.nn.log_softmax(logits_BPV)
  return jnp.take_along_axis(nats_BPV, batch["masked_labels"][..., None],
                             axis=-1)[:, 0, 0]
