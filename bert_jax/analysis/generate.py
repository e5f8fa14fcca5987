"""Texts that a causal or prefix language model writes, token by token."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from bert_jax.analysis.growing_rows import GrowingRows
from bert_jax.checkpoints.reading import Checkpoint
from bert_jax.config import UserError
from bert_jax.model.attention import PlainAttention
from bert_jax.model.bert import BertConfig
from bert_jax.model.cache import CACHE
from bert_jax.model.encoder import Encoder
from bert_jax.model.heads import MlmHead
from bert_jax.objectives.base import Batch
from bert_jax.objectives.causal import Causal
from bert_jax.objectives.prefix import Prefix
from bert_jax.training import numerics


@dataclasses.dataclass(frozen=True)
class Decoding:
  """How the next token is chosen.

  Attributes:
    tokens: most tokens that are written.
    temperature: divides the logits; 0: always the likeliest token.
    top_k: only that many likeliest tokens are drawn; 0: all.
    top_p: only the likeliest tokens whose probabilities sum to it are drawn
      (nucleus sampling: Holtzman et al. 2020); 1: all.
    beams: sequences that are kept side by side, of which the likeliest a token
      is returned (beam search); 1: none.
    cache: whether keys and values are kept; without it each token takes the
      time of the complete text, and gets the same.
    seed: of the draws.
  """

  tokens: int = 64
  temperature: float = 1.0
  top_k: int = 0
  top_p: float = 1.0
  beams: int = 1
  cache: bool = True
  seed: int = 0

  def __post_init__(self):
    for name, low in (("tokens", 1), ("beams", 1), ("top_k", 0),
                      ("temperature", 0)):
      if getattr(self, name) < low:
        raise UserError(f"{name}={getattr(self, name)}: at least {low}.")
    if not 0 < self.top_p <= 1:
      raise UserError(f"top_p={self.top_p:g}: more than 0, and 1 at most.")


@dataclasses.dataclass(frozen=True)
class Written:
  """A text that was written.

  Attributes:
    ids: its tokens, without the prompt.
    text: they as text.
    nats: -log p of each, by the network itself, as it was, [SEP] at the end
      included if `ended`.
    ended: whether the network ended it, before there were too many tokens.
  """

  ids: list[int]
  text: str
  nats: list[float]
  ended: bool


class Writer:
  """A network that writes.

  Raises:
    UserError: its objective is none of writing.
  """

  def __init__(self, saved: Checkpoint):
    experiment = saved.manifest.experiment
    objective = experiment.objective
    if type(objective) not in (Causal, Prefix):
      raise UserError(
          f"objective={objective.choice_name} does not write texts; train with "
          "objective=causal or objective=prefix.")
    self.tokenizer = saved.manifest.tokenizer
    self.model, self.params = experiment.model, saved.params
    self._is_prefix = isinstance(objective, Prefix)
    self._keeps = isinstance(self.model.attention.with_weights(),
                             PlainAttention)
    module = _Writing(self.model)
    forbidden = jnp.ones(self.tokenizer.vocabulary.size, bool).at[
        self.tokenizer.vocabulary.ordinary_ids].set(False)
    # A text has no special token but its end.
    self._mask_V = jnp.where(forbidden.at[self.tokenizer.vocabulary.sep_id].set(
        False), -jnp.inf, 0.0)

    def first(params: Any, batch: Batch, last_B: jax.Array) -> Any:
      return module.apply({"params": params}, batch, last_B, mutable=[CACHE])

    def more(params: Any, cache: Any, batch: Batch, place_B: jax.Array,
             tokens: int) -> Any:
      return module.apply({"params": params, **cache}, batch, place_B, tokens,
                          mutable=[CACHE], method=_Writing.next)

    self._first = numerics.jit(first)
    self._more = numerics.jit(more, static_argnames="tokens")
    self._choose = numerics.jit(_choose, static_argnames=("top_k", "greedy"))

  def write(self, prompts: Sequence[str],
            decoding: Decoding = Decoding()) -> list[Written]:
    """A text for each prompt.

    Raises:
      UserError: a prompt leaves no room.
    """
    if decoding.beams > 1:
      return [self._beam_search(prompt, decoding) for prompt in prompts]
    rows = self._rows(prompts, decoding.tokens)
    key = numerics.key(decoding.seed)
    written: list[list[int]] = [[] for _ in prompts]
    nats: list[list[float]] = [[] for _ in prompts]
    ended = np.zeros(len(prompts), bool)
    for number, logits_BV in enumerate(self._steps(rows, decoding)):
      ids_B, nats_B = jax.device_get(self._choose(
          logits_BV + self._mask_V[None], jax.random.fold_in(key, number),
          jnp.float32(decoding.temperature or 1), jnp.float32(decoding.top_p),
          top_k=decoding.top_k, greedy=decoding.temperature == 0))
      for b in np.flatnonzero(~ended):
        nats[b].append(float(nats_B[b]))
        if ids_B[b] == self.tokenizer.vocabulary.sep_id:
          ended[b] = True
        else:
          written[b].append(int(ids_B[b]))
      if ended.all() or number + 1 == decoding.tokens:
        break
      rows.append(ids_B)
    return [Written(ids, self.tokenizer.decode(ids), nats[b], bool(ended[b]))
            for b, ids in enumerate(written)]

  def rank(self, prompt: str, choices: Sequence[str]) -> list[float]:
    """log p of each choice as what follows the prompt, in nats, [SEP] left
    out: a choice need not be the end."""
    before, = self.tokenizer.encode([prompt])
    scores = []
    for choice in choices:
      # Pieces of the choice may differ behind the prompt.
      ids, = self.tokenizer.encode([prompt + choice])
      shared = next((i for i, (a, b) in enumerate(zip(before, ids)) if a != b),
                    min(len(before), len(ids)))
      rows = self._rows([prompt], len(ids) - shared + 1, [ids[:shared]])
      total = 0.0
      for id_, logits_BV in zip(ids[shared:], self._steps(rows, Decoding())):
        total += float(jax.nn.log_softmax(logits_BV[0])[id_])
        rows.append(np.array([id_], np.int32))
      scores.append(total)
    return scores

  def _rows(self, prompts: Sequence[str], tokens: int,
            ids: Sequence[Sequence[int]] | None = None) -> GrowingRows:
    ids = self.tokenizer.encode(prompts) if ids is None else ids
    vocabulary = self.tokenizer.vocabulary
    starts = [[vocabulary.cls_id, *row] for row in ids]
    longest = max(map(len, starts))
    room = self.model.max_position_embeddings
    if longest + tokens > room:
      raise UserError(
          f"A prompt of {longest} tokens, with [CLS], and {tokens} more do not "
          f"fit in the network's {room} positions; write at most "
          f"{max(room - longest, 0)}.")
    return GrowingRows(starts, longest + tokens, vocabulary.pad_id, self._is_prefix)

  def _steps(self, rows: GrowingRows, decoding: Decoding) -> Any:
    """The logits (B, V) of what follows `rows`, which grow between them."""
    logits_BV, cache = self._first(self.params, rows.batch(), rows.last())
    while True:
      yield logits_BV
      if decoding.cache and self._keeps:
        token, place_B = rows.token()
        logits_BV, cache = self._more(
            self.params, rows.reordered(cache), token, place_B,
            tokens=rows.tokens)
      else:
        logits_BV, _ = self._first(self.params, rows.batch(), rows.last())

  def _beam_search(self, prompt: str, decoding: Decoding) -> Written:
    """The likeliest sequence a token of those that `beams` sequences become."""
    count, sep = decoding.beams, self.tokenizer.vocabulary.sep_id
    rows = self._rows([prompt] * count, decoding.tokens)
    # All beams are alike at first, and one of them goes.
    totals_B = np.array([0.0] + [np.inf] * (count - 1))
    beams: list[list[tuple[int, float]]] = [[] for _ in range(count)]
    finished: list[tuple[float, list[tuple[int, float]]]] = []
    for number, logits_BV in enumerate(self._steps(rows, decoding)):
      nats_BV = -np.asarray(jax.nn.log_softmax(
          logits_BV + self._mask_V[None]), np.float64)
      all_BV = totals_B[:, None] + nats_BV
      best = np.argsort(all_BV, axis=None, kind="stable")[:2 * count]
      kept = []
      for beam, id_ in zip(*np.unravel_index(best, all_BV.shape)):
        sequence = [*beams[beam], (int(id_), float(nats_BV[beam, id_]))]
        total = float(all_BV[beam, id_])
        if id_ == sep and np.isfinite(total):
          finished.append((total / len(sequence), sequence))
        elif id_ != sep and len(kept) < count:
          kept.append((total, int(beam), sequence))
      totals_B = np.array([total for total, _, _ in kept])
      beams = [sequence for _, _, sequence in kept]
      if number + 1 == decoding.tokens or len(finished) >= count:
        break
      rows.reorder([beam for _, beam, _ in kept])
      rows.append(np.array([sequence[-1][0] for sequence in beams], np.int32))
    open_ = [(total / len(sequence), sequence)
             for total, sequence in zip(totals_B, beams) if sequence]
    _, sequence = min(finished or open_, key=lambda pair: pair[0])
    ids = [id_ for id_, _ in sequence if id_ != sep]
    return Written(ids, self.tokenizer.decode(ids),
                   [nats for _, nats in sequence], sequence[-1][0] == sep)


class _Writing(nn.Module):
  """Logits (B, V) of the token behind the last one."""

  model: BertConfig

  def setup(self):
    self.encoder = Encoder(self.model)
    self.next_token = MlmHead(self.model)

  def __call__(self, batch: Batch, last_B: jax.Array) -> jax.Array:
    return self._logits(self.encoder(batch), last_B)

  def next(self, batch: Batch, place_B: jax.Array, tokens: int) -> jax.Array:
    return self._logits(self.encoder.next(batch, place_B, tokens),
                        jnp.zeros_like(place_B))

  def _logits(self, x_BLD: jax.Array, place_B: jax.Array) -> jax.Array:
    return self.next_token(x_BLD, place_B[:, None],
                           self.encoder.word_embeddings())[:, 0]


def _choose(logits_BV: jax.Array, key: jax.Array, temperature: jax.Array,
            top_p: jax.Array, top_k: int, greedy: bool
            ) -> tuple[jax.Array, jax.Array]:
  """A token of each row, and its -log p before anything was left out."""
  nats_BV = -jax.nn.log_softmax(logits_BV)
  if greedy:
    ids_B = jnp.argmax(logits_BV, axis=-1)
  else:
    logits_BV = logits_BV / temperature
    sorted_BV = jnp.sort(logits_BV, axis=-1, descending=True)
    if top_k:
      least_B1 = sorted_BV[:, min(top_k, sorted_BV.shape[-1]) - 1][:, None]
      logits_BV = jnp.where(logits_BV < least_B1, -jnp.inf, logits_BV)
      sorted_BV = jnp.where(sorted_BV < least_B1, -jnp.inf, sorted_BV)
    probability_BV = jax.nn.softmax(sorted_BV)
    # The likeliest always stays.
    before_BV = jnp.cumsum(probability_BV, axis=-1) - probability_BV
    least_B1 = jnp.min(jnp.where(before_BV < top_p, sorted_BV, jnp.inf),
                       axis=-1, keepdims=True)
    ids_B = jax.random.categorical(key, jnp.where(
        logits_BV < least_B1, -jnp.inf, logits_BV))
  return ids_B, jnp.take_along_axis(nats_BV, ids_B[:, None], axis=-1)[:, 0]
