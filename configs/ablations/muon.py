"""Does it help to orthogonalize the updates of matrices? Muon (Jordan 2024).

Scaled so that Adam's learning rate holds for it (Liu et al. 2025).

  bert-jax pretrain ablations/muon --workdir runs/muon

Against `pretrain quickstart`, on 2 CPU cores. Not measured.
"""

from bert_jax import config

experiment = config.override(
    config.load_page("quickstart").experiment,
    ["optimizer=muon", "optimizer.weight_decay=0.01"])
