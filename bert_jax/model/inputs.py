"""What a row consists of: tokens, or what a page's own member reads."""

import dataclasses
from typing import TYPE_CHECKING

import flax.linen as nn
import jax

from bert_jax.config import Choice
from bert_jax.model.placement import constrain
from bert_jax.model.dense import Embed
from bert_jax.model.ops import look_up_few

if TYPE_CHECKING:
  from bert_jax.model.bert import BertConfig


class Inputs(Choice):
  """What the network reads.

  Each member makes vectors from keys of the batch, its own among them, which
  the objective or its kind of labels declares.
  """

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
