"""Is it enough to tell which tokens are wrong? ELECTRA (Clark et al. 2020).

A generator half as wide fills in masked tokens, and the encoder judges of every
token whether it is the original. The two share no embeddings, unlike ELECTRA's.

  bert-jax pretrain ablations/electra --workdir runs/electra

Against `pretrain quickstart` by its task, on 2 CPU cores. Not measured.
"""

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

from bert_jax import config
from bert_jax.objectives.base import weighted_sum
from bert_jax.objectives.mlm import Mlm


@dataclasses.dataclass(frozen=True)
class Electra(Mlm):
  """`weight` is that of the detector's loss, where the generator's is 1."""

  weight: float = 50.0

  def networks(self, model):
    return {"encoder": model, "generator": dataclasses.replace(
        model, hidden_size=model.hidden_size // 2,
        intermediate_size=model.intermediate_size // 2)}

  def outputs(self, networks, batch, keys_B):
    generator = networks["generator"]
    filled = self.logits(generator, generator(batch, keys_B), batch, keys_B)
    tokens_BP = (jnp.argmax(filled["mlm"], -1) if keys_B is None else
                 jax.vmap(jax.random.categorical)(keys_B, filled["mlm"]))
    # Slots without a masked token write behind the row, which is dropped.
    places_BP = jnp.where(batch["masked_weights"] > 0,
                          batch["masked_positions"], 2**30)
    seen_BL, original_BL = (
        jax.vmap(lambda row_L, at_P, to_P: row_L.at[at_P].set(
            to_P, mode="drop"))(batch["input_ids"], places_BP, written_BP)
        for written_BP in (tokens_BP, batch["masked_labels"]))
    x_BLD = networks["encoder"]({**batch, "input_ids": seen_BL}, keys_B)
    return filled | {"replaced": seen_BL != original_BL,
                     "detector": nn.Dense(1, name="detector")(x_BLD)[..., 0]}

  def weights(self, batch):
    tokens = jnp.sum(batch["example_ids"] > 0, dtype=jnp.float32)
    return {**super().weights(batch), "detector": tokens}

  def losses(self, outputs, batch):
    loss_BL = optax.sigmoid_binary_cross_entropy(
        outputs["detector"], outputs["replaced"].astype(jnp.float32))
    real_BL = (batch["example_ids"] > 0).astype(jnp.float32)
    return {**super().losses(outputs, batch),
            "detector": self.weight * weighted_sum(loss_BL, real_BL)}


experiment = config.override(config.load_page("quickstart").experiment,
                             ["objective=electra"])
