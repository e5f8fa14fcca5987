"""Distillation: a network learns from a larger one, the frozen teacher."""

import dataclasses
import re
from collections.abc import Mapping
from typing import ClassVar, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp

from bert_jax.config import UserError
from bert_jax.model.attention import ATTENTION, SCORES
from bert_jax.model.bert import BertConfig
from bert_jax.model.encoder import Encoder
from bert_jax.model.stack import layers_first
from bert_jax.model.visibility import visible
from bert_jax.objectives.base import Batch, Objective, weighted_sum
from bert_jax.objectives.classification import Classification
from bert_jax.objectives.mlm import Mlm
from bert_jax.objectives.soft_labels import _Soft

_TEACHER, _HEADS, _PROJECTION = "teacher", "teacher_heads", "hidden_projection"


@dataclasses.dataclass(frozen=True)
class _Distilled(_Soft):
  """A teacher beside the encoder, which learns its outputs, hidden states and
  attention.

  The teacher is not trained and drops nothing. It lies in the checkpoints, as
  the run's own losses need it, and is not exported.

  Attributes:
    teacher: work directory of the run whose network is the teacher: with the
      same tokenizer, and the same head where `soft_weight` is not 0.
    hidden_weight: factor of the loss of hidden states, a sum over the pairs of
      layers; 0: none.
    hidden_loss: mse: the mean squared difference, of the student's through a
      learned projection where widths differ (TinyBERT: Jiao et al. 2020);
      cosine: 1 minus the cosine (DistilBERT: Sanh et al. 2019).
    attention_weight: factor of the mean squared difference of attention's
      scores before the softmax, a sum over the pairs of layers (TinyBERT); 0:
      none. Both networks have as many heads, and plain attention.
    layer_map: pairs of layers, student's:teacher's, counted from 1, as
      0:0,1:3,2:6; 0 is the embeddings, which have no attention; "": 0:0, and
      the student's layers at even distances among the teacher's.
    teacher_model: the teacher's network; read from `teacher`.
  """

  teacher: str = ""
  hidden_weight: float = 0.0
  hidden_loss: Literal["mse", "cosine"] = "mse"
  attention_weight: float = 0.0
  layer_map: tuple[str, ...] = ()
  teacher_model: BertConfig = BertConfig()
  frozen: ClassVar = rf"^({_TEACHER}|{_HEADS})/"
  training_only: ClassVar = rf"^({_TEACHER}|{_HEADS}|{_PROJECTION})/"
  sharding: ClassVar = ((rf"^{_HEADS}/", ()),)

  def __post_init__(self):
    super().__post_init__()
    for pair in self.layer_map:
      if not re.fullmatch(r"\d+:\d+", pair):
        raise UserError(f"objective.layer_map has {pair}: expected pairs of "
                        "layers, student:teacher, as in "
                        "objective.layer_map=1:2,2:4,3:6.")

  def factors(self) -> dict[str, float]:
    return {**super().factors(), "hidden_weight": self.hidden_weight,
            "attention_weight": self.attention_weight}

  @property
  def collections(self) -> tuple[str, ...]:
    return (ATTENTION,) if self.attention_weight else ()

  def networks(self, model: BertConfig) -> dict[str, BertConfig]:
    """The teacher is another like `model` as long as none is named."""
    teacher = self.teacher_model if self.teacher else model
    networks = {"encoder": model, _TEACHER: dataclasses.replace(
        teacher, vocab_size=teacher.vocab_size or model.vocab_size)}
    if not self.attention_weight:
      return networks
    return {name: dataclasses.replace(
        options, attention=options.attention.with_weights())
            for name, options in networks.items()}

  def origin(self, path: str) -> str:
    return "" if self.is_frozen(path) else path

  def teacher_origin(self, path: str) -> str:
    head, _, rest = path.partition("/")
    return {_TEACHER: f"encoder/{rest}", _HEADS: rest}.get(head, "")

  def outputs(self, networks: Mapping[str, Encoder], batch: Batch,
              keys_B: jax.Array | None) -> dict[str, jax.Array]:
    student, teacher = networks["encoder"], networks[_TEACHER]
    states_NBLD = self._states(student, batch, keys_B)
    theirs_NBLD = jax.lax.stop_gradient(self._states(teacher, batch, None))
    outputs = self.logits(student, states_NBLD[-1], batch, keys_B)
    if self.soft_weight:
      logits = _Heads(self, name=_HEADS)(teacher, theirs_NBLD[-1], batch)
      outputs["teacher"] = jax.lax.stop_gradient(logits[self.head])
    if not (self.hidden_weight or self.attention_weight):
      return outputs
    pairs = self.pairs(student.options, teacher.options)
    if self.hidden_weight:
      outputs["hidden"] = self._hidden(states_NBLD, theirs_NBLD, pairs,
                                       student.options.initializer_range)
    if self.attention_weight:
      outputs["attention"] = _attention(
          _scores(student), jax.lax.stop_gradient(_scores(teacher)), pairs)
    return outputs

  def _states(self, encoder: Encoder, batch: Batch,
              keys_B: jax.Array | None) -> jax.Array:
    """The hidden states that are compared, or the last ones alone."""
    if self.hidden_weight:
      return encoder.hidden_states(batch, keys_B)
    return encoder(batch, keys_B)[None]

  def pairs(self, student: BertConfig,
            teacher: BertConfig) -> list[tuple[int, int]]:
    """The layers that are compared, the student's first.

    Raises:
      UserError: there is no such layer, or heads differ whose attention is
        compared.
    """
    layers = student.num_hidden_layers, teacher.num_hidden_layers
    heads = student.num_attention_heads, teacher.num_attention_heads
    if self.attention_weight and heads[0] != heads[1]:
      raise UserError(
          f"objective.attention_weight={self.attention_weight:g} compares the "
          f"attention of heads: the student has {heads[0]}, the teacher "
          f"{heads[1]}; set model.num_attention_heads={heads[1]}, or the "
          "weight to 0.")
    pairs = [tuple(map(int, pair.split(":"))) for pair in self.layer_map]
    for pair, text in zip(pairs, self.layer_map):
      if any(layer > count for layer, count in zip(pair, layers)):
        raise UserError(f"objective.layer_map has {text}: the student has "
                        f"{layers[0]} layers, the teacher {layers[1]}.")
    return pairs or [(layer, layer * layers[1] // layers[0])
                     for layer in range(layers[0] + 1)]

  def _hidden(self, states_NBLD: jax.Array, theirs_NBLD: jax.Array,
              pairs: list[tuple[int, int]], deviation: float) -> jax.Array:
    """(B, L): how far the hidden states of a token are apart."""
    projection, width = lambda x: x, theirs_NBLD.shape[-1]
    if states_NBLD.shape[-1] != width:
      projection = nn.Dense(
          width, use_bias=False, name=_PROJECTION,
          kernel_init=nn.initializers.truncated_normal(deviation))
    distance = _squared if self.hidden_loss == "mse" else _cosine
    return sum(distance(projection(states_NBLD[own].astype(jnp.float32)),
                        theirs_NBLD[other].astype(jnp.float32))
               for own, other in pairs)

  def soft_labels(self, outputs: Mapping[str, jax.Array],
                  batch: Batch) -> jax.Array:
    return jax.nn.softmax(outputs["teacher"] / self.temperature)

  def weights(self, batch: Batch) -> dict[str, jax.Array]:
    weights = super().weights(batch)
    if self.hidden_weight:
      weights["hidden"] = _real(batch).sum()
    if self.attention_weight:
      seen_BLM = visible(batch["example_ids"], batch.get("order"))
      weights["attention"] = jnp.sum(
          jnp.where(seen_BLM, _real(batch)[..., None], 0.0))
    return weights

  def losses(self, outputs: Mapping[str, jax.Array],
             batch: Batch) -> dict[str, jax.Array]:
    losses = super().losses(outputs, batch)
    for name in ("hidden", "attention"):
      if factor := self.factors()[f"{name}_weight"]:
        losses[name] = factor * weighted_sum(outputs[name], _real(batch))
    return losses


@dataclasses.dataclass(frozen=True)
class Distillation(_Distilled, Classification):
  """Distillation of a classifier: its soft labels, hidden states and attention
  (Hinton et al. 2015; Jiao et al. 2020)."""


@dataclasses.dataclass(frozen=True)
class MlmDistillation(_Distilled, Mlm):
  """Distillation of a masked language model: what the teacher predicts at the
  masked tokens, hidden states and attention (Sanh et al. 2019)."""

  head: ClassVar = "mlm"

  def soft_mask(self, batch: Batch) -> jax.Array:
    return batch["masked_weights"]


class _Heads(nn.Module):
  """The teacher's heads, under a name of their own."""

  objective: Objective

  @nn.compact
  def __call__(self, encoder: Encoder, sequence_output_BLD: jax.Array,
               batch: Batch) -> dict[str, jax.Array]:
    return self.objective.logits(encoder, sequence_output_BLD, batch, None)


def _real(batch: Batch) -> jax.Array:
  """(B, L): 1.0 at tokens, 0.0 at padding."""
  return (batch["example_ids"] > 0).astype(jnp.float32)


def _squared(x_BLD: jax.Array, y_BLD: jax.Array) -> jax.Array:
  return jnp.square(x_BLD - y_BLD).mean(-1)


def _cosine(x_BLD: jax.Array, y_BLD: jax.Array) -> jax.Array:
  """1 minus the cosine."""
  square = lambda x_BLD: jnp.square(x_BLD).sum(-1)
  return 1 - (x_BLD * y_BLD).sum(-1) * jax.lax.rsqrt(
      jnp.maximum(square(x_BLD) * square(y_BLD), 1e-24))


def _scores(encoder: Encoder) -> jax.Array:
  """(N, B, H, L, M): of its attention, very low where a key is hidden."""
  return layers_first(encoder.variables[ATTENTION], SCORES)


def _attention(score_NBHLM: jax.Array, theirs_NBHLM: jax.Array,
               pairs: list[tuple[int, int]]) -> jax.Array:
  """(B, L): the sum over what a query sees of the squared differences of
  scores, a mean over heads."""
  lowest = jnp.finfo(jnp.float32).min / 2

  def distance(x_BHLM: jax.Array, y_BHLM: jax.Array) -> jax.Array:
    seen_BHLM = (x_BHLM > lowest) & (y_BHLM > lowest)
    # The inner one, so that what is hidden has a finite gradient.
    difference_BHLM = jnp.where(seen_BHLM, x_BHLM - y_BHLM, 0.0)
    return jnp.square(difference_BHLM).sum(-1).mean(1)

  return sum(distance(score_NBHLM[own - 1], theirs_NBHLM[other - 1])
             for own, other in pairs if own and other)
