"""May a head look at nothing? A learned score beside those of the tokens.

Each head has a number that takes part in its softmax and has no value (gpt-oss,
OpenAI 2025). A template for an attention of one's own with parameters.

  bert-jax pretrain ablations/attention_sink --workdir runs/sink

Against `pretrain quickstart`, on 2 CPU cores. Cost and score: not measured.
"""

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp

import bert_jax.model.attention as attention
from bert_jax import config


@dataclasses.dataclass(frozen=True)
class SinkAttention(attention.Attention):

  def build(self, options):
    return SinkMixer(options)


class SinkMixer(attention.PlainMixer):

  @nn.compact
  def weights(self, score_BHLM):
    bias_H = self.param("bias", nn.initializers.zeros, score_BHLM.shape[1:2])
    sink = jnp.broadcast_to(bias_H[None, :, None, None],
                            (*score_BHLM.shape[:3], 1))
    return jax.nn.softmax(jnp.concatenate([sink, score_BHLM], -1))[..., 1:]


experiment = config.override(config.load_page("quickstart").experiment,
                             ["model.attention=sink"])
