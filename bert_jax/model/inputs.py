"""What a row consists of: tokens, vectors of numbers, or what a page reads."""

import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp

from bert_jax.config import Choice, Count
from bert_jax.model.placement import constrain
from bert_jax.model.dense import Dense, Embed
from bert_jax.model.ops import look_up_few

if TYPE_CHECKING:
  from bert_jax.model.bert import BertConfig


class Inputs(Choice):
  """What the network reads.

  Each member makes vectors from keys of the batch, its own among them, which
  the objective or its kind of labels declares.
  """

  # Which of the keys of data/batches/spec.py it reads; the data has to have
  # them.
  reads: ClassVar[tuple[str, ...]] = ("input_ids", "token_type_ids")

  def sizes(self) -> Mapping[str, int]:
    """Of the dimensions, by letter, that these keys have beside L."""
    return {}

  def build(self, options: "BertConfig") -> nn.Module:
    """A module from the batch to (B, L, D), where D is
    `options.embedding_width`. Its parameters lie at encoder/embeddings."""
    raise NotImplementedError


@dataclasses.dataclass(frozen=True)
class TokensInputs(Inputs):
  """The sum of the embeddings of each token and of its type.

  Attributes:
    types: whether types have embeddings: BERT's segments A and B, which later
      networks do without.
  """

  types: bool = True

  def build(self, options):
    return Tokens(options, self.types)


class Tokens(nn.Module):
  options: "BertConfig"
  types: bool = True

  def setup(self):
    o = self.options
    self.word_embeddings = Embed(o.vocab_size, o.embedding_width, o)
    if self.types:
      self.token_type_embeddings = Embed(o.type_vocab_size, o.embedding_width,
                                         o)

  def __call__(self, batch) -> jax.Array:
    word_BLD = self.word_embeddings(
        constrain(batch["input_ids"], "looked_up_ids"))
    word_BLD = constrain(constrain(word_BLD, "looked_up"), "rows")
    if not self.types:
      return word_BLD
    return word_BLD + look_up_few(self.token_type_embeddings.embedding,
                                  batch["token_type_ids"])

  def table(self) -> jax.Array:
    """The (V, D) float32 table of the word vectors."""
    return self.word_embeddings.embedding


@dataclasses.dataclass(frozen=True)
class ValuesInputs(Inputs):
  """Vectors of numbers, as patches of an image, through a linear projection.

  The first place of an example holds no vector but a learned [CLS]. Another
  learned vector stands where the objective hides a vector of numbers.

  Attributes:
    width: numbers in a vector, as `data` makes them: those of a patch, times
      its channels.
  """

  width: Count = 1
  reads: ClassVar = ("values",)

  def sizes(self) -> Mapping[str, int]:
    return {"J": self.width}

  def build(self, options):
    return Values(self.width, options)


class Values(nn.Module):
  width: int
  options: "BertConfig"

  def setup(self):
    o = self.options
    self.value_projection = Dense((self.width,), (o.embedding_width,), o)
    self.cls_embedding = Embed(1, o.embedding_width, o)
    self.mask_embedding = Embed(1, o.embedding_width, o)

  def __call__(self, batch) -> jax.Array:
    """Of `values` (B, L, J), and `hidden` (B, L), 1 where one is hidden; where
    there is no such key, none is."""
    first_BL1 = (batch["position_ids"] == 0)[..., None]
    hidden_BL = batch.get("hidden")
    if hidden_BL is None:
      hidden_BL = jnp.zeros(batch["position_ids"].shape)
    x_BLD = self.value_projection(batch["values"]).astype(jnp.float32)
    x_BLD = jnp.where(hidden_BL[..., None] > 0,
                      self.mask_embedding.embedding[None], x_BLD)
    return constrain(jnp.where(first_BL1, self.cls_embedding.embedding[None],
                               x_BLD), "rows")
