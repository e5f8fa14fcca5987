"""The encoder: a batch in, a vector for every token out."""

from collections.abc import Mapping

import flax.linen as nn
import jax
import jax.numpy as jnp

from bert_jax.model.bert import BertConfig
from bert_jax.model.dropout import DropoutSite, fold_in
from bert_jax.model.embeddings import Embeddings
from bert_jax.model.norms import finish
from bert_jax.model.visibility import Context


class Encoder(nn.Module):
  """BERT (Devlin et al. 2019) up to its last hidden states and the pooler."""

  options: BertConfig

  def setup(self):
    o = self.options
    self.embeddings = Embeddings(o)
    self.position_bias = o.positions.bias(o)
    self.layers = o.stack.build(o)
    self.final_norm = o.norm.build(o.layer_norm_eps)
    self.pooler = o.pooler.build(o)

  def __call__(self, batch: Mapping[str, jax.Array],
               keys_B: jax.Array | None = None,
               tables: Embeddings | None = None) -> jax.Array:
    """The last hidden states, (B, L, D).

    Args:
      batch: what `options.inputs` reads, as `input_ids` and `token_type_ids`
        (sentence A = 0, B = 1), and `position_ids` (0, 1, 2, ... in each
        packed example), `example_ids` (the packed example of each token; 0 is
        padding) and, if it is there, `order` (a token sees those whose order is
        not later), each (B, L).
      keys_B: a typed threefry key a row for dropout; None: no dropout.
      tables: the `embeddings` of another encoder, which it shares; None: its
        own.
    """
    x_BLD = self.layers(self.embeddings(batch, keys_B, tables),
                        self._context(batch),
                        fold_in(keys_B, DropoutSite.LAYERS))
    return finish(self.options.norm_placement, x_BLD, self.final_norm)

  def hidden_states(self, batch: Mapping[str, jax.Array],
                    keys_B: jax.Array | None = None) -> jax.Array:
    """(N + 1, B, L, D): the embeddings' output, then that of each layer.

    The last one is what `__call__` returns.
    """
    first_BLD = self.embeddings(batch, keys_B)
    states_NBLD = self.layers.keep(first_BLD, self._context(batch),
                                   fold_in(keys_B, DropoutSite.LAYERS))
    last_BLD = finish(self.options.norm_placement, states_NBLD[-1],
                      self.final_norm)
    return jnp.concatenate(
        [first_BLD[None], states_NBLD[:-1], last_BLD[None]])

  def next(self, batch: Mapping[str, jax.Array], place_B: jax.Array,
           tokens: int) -> jax.Array:
    """The last hidden state of one more token of each row, (B, 1, D).

    The network is applied with what it has kept of the row, see model/cache.py.

    Args:
      batch: of the token, with L = 1.
      place_B: where in its row it stands.
      tokens: of a complete row.
    """
    context = self._context(batch, tokens)._replace(place_B=place_B)
    x_BLD = self.layers(self.embeddings(batch, None), context, None)
    return finish(self.options.norm_placement, x_BLD, self.final_norm)

  def pool(self, sequence_output_BLD: jax.Array,
           batch: Mapping[str, jax.Array]) -> jax.Array:
    """(B, E, D): one vector for each example, of `options.pooler`.

    Args:
      sequence_output_BLD: the last hidden states.
      batch: of `cls_positions` and `example_ids`.
    """
    return self.pooler(sequence_output_BLD, batch["cls_positions"],
                       batch["example_ids"])

  def features(self, sequence_output_BLD: jax.Array) -> jax.Array:
    """(B, L, D): what heads read that label tokens."""
    if not self.options.pooler.tokens:
      return sequence_output_BLD
    return self.pooler.transform(sequence_output_BLD)

  def word_embeddings(self) -> jax.Array:
    """The (V, D) float32 table, which the masked-LM decoder shares."""
    return self.embeddings.table()

  def _context(self, batch: Mapping[str, jax.Array],
               tokens: int | None = None) -> Context:
    example_ids_BL, bias_HA = batch["example_ids"], None
    if self.position_bias is not None:
      # Positions of an example follow each other, so that between tokens that
      # see each other they are as far apart as places in the row.
      tokens = tokens or example_ids_BL.shape[1]
      bias_HA = self.position_bias(jnp.arange(1 - tokens, tokens))
    lengths_B, starts_BE = None, batch.get("cls_positions")
    if starts_BE is not None and starts_BE.shape[1] == 1:
      lengths_B = jnp.sum(example_ids_BL > 0, axis=1)
    return Context(example_ids_BL, batch.get("order"), batch["position_ids"],
                   bias_HA, lengths_B)
