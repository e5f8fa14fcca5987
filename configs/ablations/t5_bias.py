"""Is a learned number for each distance enough? T5's relative bias.

Raffel et al. 2020, 2.1: 32 buckets of distances, shared by all layers.

  bert-jax pretrain ablations/t5_bias --workdir runs/t5_bias

Against `pretrain quickstart`, on 2 CPU cores. Cost and score: not measured.
"""

from bert_jax import config

experiment = config.override(config.load_page("quickstart").experiment, [
    "model.positions=relative_bias"])
