r"""A planted null: the objective's head has a parameter that nothing reads.

  bert-jax ablate studies/aa --seeds 3 --workdir runs/planted \
      slow=schedule.learning_rate=1e-4 unused=studies/unused.py

An arm with it has to come out as the base. Measured with three seeds: its
difference is zero to the last digit; that of a rate ten times too small is
+.194 nats (+.132 to +.256).
"""

import dataclasses

import flax.linen as nn

from bert_jax import config
from bert_jax.objectives.mlm import Mlm


class _Unused(nn.Module):

  @nn.compact
  def __call__(self):
    self.param("kernel", nn.initializers.normal(0.02), (64, 64))


@dataclasses.dataclass(frozen=True)
class UnusedMlm(Mlm):
  """Masked language modeling beside a parameter without a use."""

  def logits(self, encoder, sequence_output_BLD, batch, keys_B):
    _Unused(name="unused")()
    return super().logits(encoder, sequence_output_BLD, batch, keys_B)


experiment = config.override(config.load_page("studies/aa").experiment,
                             ["objective=unused_mlm"])
