"""The encoder under the heads of an objective."""

import flax.linen as nn
import jax

from bert_jax.model.bert import BertConfig
from bert_jax.model.encoder import Encoder
from bert_jax.objectives.base import Batch, Objective


class Network(nn.Module):
  """`apply({"params": params}, batch, keys_B)` gives the objective's logits.

  Without `keys_B` (one key a row) nothing is dropped.
  """

  options: BertConfig
  objective: Objective

  @nn.compact
  def __call__(self, batch: Batch,
               keys_B: jax.Array | None = None) -> dict[str, jax.Array]:
    encoder = Encoder(self.options, name="encoder")
    sequence_output_BLD = encoder(batch, keys_B)
    return self.objective.logits(encoder, sequence_output_BLD, batch, keys_B)
