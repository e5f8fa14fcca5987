"""Do norms on both sides of a sublayer train more stably?

Sandwich layer normalization of CogView (Ding et al. 2021, 2.4).

  bert-jax pretrain ablations/sandwich_norm --workdir runs/sandwich

Against `pretrain quickstart`, on 2 CPU cores. Cost and score: not measured.
"""

from bert_jax import config

experiment = config.override(config.load_page("quickstart").experiment, [
    "model.norm_placement=sandwich"])
