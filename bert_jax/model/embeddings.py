"""From ids to vectors."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from bert_jax.model.bert import BertConfig
from bert_jax.model.constrain import constrain
from bert_jax.model.layers import DropoutSite, dropout, initializer
from bert_jax.model.norms import Norm
from bert_jax.model.positions import sinusoids


class Embeddings(nn.Module):
  """Word, position and token type, summed and normalized."""

  options: BertConfig

  def setup(self):
    o = self.options
    self.word_embeddings = Embed(o.vocab_size, o)
    if o.position_embedding_type == "absolute":
      self.position_embeddings = Embed(o.max_position_embeddings, o)
    self.token_type_embeddings = Embed(o.type_vocab_size, o)
    self.norm = Norm(o.layer_norm_eps)

  def __call__(self, batch, keys_B):
    o, position_ids_BL = self.options, batch["position_ids"]
    word_BLD = self.word_embeddings(
        constrain(batch["input_ids"], "looked_up_ids"))
    x_BLD = (constrain(constrain(word_BLD, "looked_up"), "rows")
             + self.token_type_embeddings.product(batch["token_type_ids"]))
    match o.position_embedding_type:
      case "absolute":
        x_BLD += self.position_embeddings(position_ids_BL)
      case "sinusoidal":
        x_BLD += sinusoids(position_ids_BL, o.hidden_size)
      case "none":
        pass
    x_BLD = dropout(self.norm(x_BLD), o.hidden_dropout_prob, keys_B,
                    DropoutSite.EMBEDDINGS)
    return constrain(x_BLD.astype(o.dtype), "rows")


class Embed(nn.Module):
  """One learned vector for each of `size` ids; ids beyond it are clamped."""

  size: int
  options: BertConfig

  def setup(self):
    self.embedding = self.param("embedding", initializer(self.options),
                                (self.size, self.options.hidden_size))

  def __call__(self, ids: jax.Array) -> jax.Array:
    return self.embedding.at[ids].get(mode="clip")

  def product(self, ids: jax.Array) -> jax.Array:
    """The same for a table of few vectors.

    The gradient of a look-up adds all tokens to them one after another, which
    costs digits; that of a product adds them in parts.
    """
    hot = jax.nn.one_hot(jnp.clip(ids.ravel(), 0, self.size - 1), self.size,
                         dtype=self.embedding.dtype)
    vectors = jnp.dot(hot, self.embedding, precision=jax.lax.Precision.HIGHEST)
    return vectors.reshape(*ids.shape, -1)
