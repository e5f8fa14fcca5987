"""Is it enough to tell which tokens are wrong? Detection in place of filling.

ELECTRA's second half (Clark et al. 2020) with a generator that knows nothing:
some tokens are replaced by random ones, and every token has to be judged.

  python -m bert_jax pretrain ablations/replaced_tokens --workdir runs/replaced

Against `pretrain quickstart` by its task, on 2 CPU cores. Not measured.
"""

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

from bert_jax import config
from bert_jax.objectives.base import Objective, weighted_sum


@dataclasses.dataclass(frozen=True)
class ReplacedTokens(Objective):
  """Find the `rate` of the tokens that a random one has taken the place of."""

  rate: float = 0.15

  def corrupt(self, batch, keys_B, vocabulary):
    ids_BL = batch["input_ids"]
    ordinary = jnp.asarray(vocabulary.ordinary_ids)

    def draw(key: jax.Array) -> tuple[jax.Array, jax.Array]:
      which, what = jax.random.split(key)
      return (jax.random.bernoulli(which, self.rate, ids_BL.shape[1:]),
              jax.random.choice(what, ordinary, ids_BL.shape[1:]))

    chosen_BL, random_BL = jax.vmap(draw)(keys_B)
    chosen_BL &= jnp.isin(ids_BL, ordinary) & (batch["example_ids"] > 0)
    new_BL = jnp.where(chosen_BL, random_BL, ids_BL)
    return {**batch, "input_ids": new_BL, "replaced": new_BL != ids_BL}

  def logits(self, encoder, sequence_output_BLD, batch, keys_B):
    head = nn.Dense(1, name="detector")
    return {"detector": head(sequence_output_BLD)[..., 0]}

  def weights(self, batch):
    return {"detector": jnp.sum(batch["example_ids"] > 0, dtype=jnp.float32)}

  def losses(self, logits, batch):
    loss_BL = optax.sigmoid_binary_cross_entropy(
        logits["detector"], batch["replaced"].astype(jnp.float32))
    real_BL = (batch["example_ids"] > 0).astype(jnp.float32)
    return {"detector": weighted_sum(loss_BL, real_BL)}

  def metrics(self, logits, batch, vocabulary):
    found_BL = (logits["detector"] > 0) & batch["replaced"]
    return {"recall": (found_BL.sum(dtype=jnp.float32),
                       batch["replaced"].sum(dtype=jnp.float32))}


experiment = config.override(config.load_page("quickstart").experiment,
                             ["objective=replaced_tokens"])
