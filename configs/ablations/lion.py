"""Does the sign of the momentum do? Lion (Chen et al. 2023) in Adam's place.

A third of Adam's learning rate and three times its decay, as the paper advises.

  bert-jax pretrain ablations/lion --workdir runs/lion

Against `pretrain quickstart`, on 2 CPU cores. Not measured.
"""

from bert_jax import config

experiment = config.override(
    config.load_page("quickstart").experiment,
    ["optimizer=lion", "optimizer.weight_decay=0.03",
     "schedule.learning_rate=3e-4"])
