r"""Which digit is a signal? MNIST-1D, from the network of the page mnist1d.

  bert-jax finetune mnist1d_task init_from=runs/signals data.train=mnist1d.npz \
      --workdir runs/digits

Not measured.
"""

import dataclasses

from bert_jax import config
from bert_jax.objectives.classification import Classification

experiment = dataclasses.replace(
    config.load_page("mnist1d").experiment,
    init_from="runs/signals",
    objective=Classification(),
    steps=2000,
    evaluate_every=1000,
    save_every=2000,
)
