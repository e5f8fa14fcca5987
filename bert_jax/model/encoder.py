"""The encoder: token ids in, a vector for every token out."""

from collections.abc import Mapping

import flax.linen as nn
import jax
import jax.numpy as jnp

from bert_jax.model.bert import BertConfig
from bert_jax.model.block import Layer
from bert_jax.model.embeddings import Embeddings
from bert_jax.model.layers import Dense, DropoutSite, fold_in
from bert_jax.model.norms import Norm


class Encoder(nn.Module):
  """BERT (Devlin et al. 2019) up to its last hidden states and the pooler."""

  options: BertConfig

  def setup(self):
    o = self.options
    self.embeddings = Embeddings(o)
    self.layers = nn.scan(
        Layer,
        variable_axes={"params": 0},
        split_rngs={"params": True},
        in_axes=(0, nn.broadcast, nn.broadcast),
        length=o.num_hidden_layers,
        unroll=min(o.scan_unroll, o.num_hidden_layers),
        methods=["__call__", "keep"],
    )(o)
    if o.norm_placement == "pre":
      self.final_norm = Norm(o.layer_norm_eps)
    self.pooler = Dense((o.hidden_size,), (o.hidden_size,), o)

  def __call__(self, batch: Mapping[str, jax.Array],
               keys_B: jax.Array | None = None) -> jax.Array:
    """The last hidden states, (B, L, D).

    Args:
      batch: `input_ids`, `token_type_ids` (sentence A = 0, B = 1),
        `position_ids` (restart in each packed example) and `example_ids` (the
        packed example of each token; 0 is padding), each (B, L).
      keys_B: a typed threefry key a row for dropout; None: no dropout.
    """
    x_BLD = self.embeddings(batch, keys_B)
    x_BLD, _ = self.layers(x_BLD, *self._per_layer(batch, keys_B))
    return self._finish(x_BLD)

  def hidden_states(self, batch: Mapping[str, jax.Array],
                    keys_B: jax.Array | None = None) -> jax.Array:
    """(N + 1, B, L, D): the embeddings' output, then that of each layer.

    The last one is what `__call__` returns.
    """
    first_BLD = self.embeddings(batch, keys_B)
    _, states_NBLD = self.layers.keep(
        first_BLD, *self._per_layer(batch, keys_B))
    last_BLD = self._finish(states_NBLD[-1])
    return jnp.concatenate(
        [first_BLD[None], states_NBLD[:-1], last_BLD[None]])

  def pool(
      self, sequence_output_BLD: jax.Array, cls_positions_BE: jax.Array
  ) -> jax.Array:
    """(B, E, D): each example's first token through the tanh pooler."""
    cls_BED = gather(sequence_output_BLD, cls_positions_BE)
    return jnp.tanh(self.pooler(cls_BED))

  def word_embeddings(self) -> jax.Array:
    """The (V, D) float32 table, which the masked-LM decoder shares."""
    return self.embeddings.word_embeddings.embedding

  def _per_layer(self, batch, keys_B):
    numbers_N = jnp.arange(self.options.num_hidden_layers)
    return (numbers_N, batch["example_ids"],
            fold_in(keys_B, DropoutSite.LAYERS))

  def _finish(self, x_BLD):
    if self.options.norm_placement == "pre":
      x_BLD = self.final_norm(x_BLD)
    return x_BLD


def gather(x_BLD: jax.Array, positions_BP: jax.Array) -> jax.Array:
  """(B, P, D): the vectors at each row's positions."""
  return jnp.take_along_axis(x_BLD, positions_BP[..., None], axis=1,
                             mode="clip")
