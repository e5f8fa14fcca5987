"""Does a norm need a mean and a bias? RMSNorm without bias.

Zhang and Sennrich 2019: as good as layer normalization, and cheaper.

  bert-jax pretrain ablations/rms_norm --workdir runs/rms_norm

Against `pretrain quickstart`, on 2 CPU cores. Cost and score: not measured.
"""

from bert_jax import config

experiment = config.override(config.load_page("quickstart").experiment, [
    "model.norm=rms"])
