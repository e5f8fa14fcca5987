"""Are fixed penalties for distance enough? ALiBi.

Press et al. 2022, to both sides alike; nothing is learned of positions.

  bert-jax pretrain ablations/alibi --workdir runs/alibi

Against `pretrain quickstart`, on 2 CPU cores. Cost and score: not measured.
"""

from bert_jax import config

experiment = config.override(config.load_page("quickstart").experiment, [
    "model.positions=alibi"])
