"""Does a token need to see beyond its neighbors? A window in each layer.

Longformer's local attention (Beltagy et al. 2020) without global tokens. It is
computed densely: it answers what is lost, not what is saved.

  bert-jax pretrain ablations/window --workdir runs/window

Against `pretrain quickstart`, on 2 CPU cores. Cost and score: not measured.
"""

from bert_jax import config

experiment = config.override(config.load_page("quickstart").experiment, [
    "model.locality=window",
    "model.locality.size=8"])
