"""Does a network with more feed-forward layers to choose from learn more?

Two of eight experts for each token (Shazeer et al. 2017), with the
load-balancing loss of Switch Transformers (Fedus et al. 2021). All experts are
computed: it answers what is gained, not what it costs.

  bert-jax pretrain ablations/experts --workdir runs/experts

Against `pretrain quickstart`, on 2 CPU cores. Cost and score: not measured.
"""

from bert_jax import config

experiment = config.override(config.load_page("quickstart").experiment, [
    "model.feed_forward=experts"])
