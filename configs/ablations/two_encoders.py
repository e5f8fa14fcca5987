"""Do questions and passages need an encoder each? Dense passage retrieval
(Karpukhin et al. 2020).

  bert-jax finetune ablations/two_encoders init_from=runs/quickstart \\
      --workdir runs/two_encoders data.train=pairs.tsv \\
      data.columns.text=question data.columns.pair=passage

Both encoders start from the network of `init_from`. On 2 CPU cores. Not
measured.
"""

import dataclasses

import jax.numpy as jnp

from bert_jax import config
from bert_jax.objectives.embedding import Contrastive


@dataclasses.dataclass(frozen=True)
class TwoEncoders(Contrastive):
  """Pick the second text of a pair; the second texts have their own encoder."""

  def networks(self, model):
    return {"encoder": model, "passages": model}

  def origin(self, path):
    return path.replace("passages/", "encoder/")

  def outputs(self, networks, batch, keys_B):
    first, second = (
        self.logits(network, network(batch, keys_B), batch, keys_B)["vectors"]
        for network in (networks["encoder"], networks["passages"]))
    return {"vectors": jnp.stack([first[:, :, 0], second[:, :, 1]], axis=2)}


experiment = config.override(
    config.load_page("task").experiment,
    ["objective=two_encoders", "data.examples_per_row=8",
     "data.columns.pair=pair"])
