r"""Which digit is a signal? MNIST-1D, from the network of the page mnist1d.

  bert-jax finetune mnist1d_task init_from=runs/signals data.train=mnist1d.npz \
      --workdir runs/digits

Measured: accuracy .950 over five seeds (standard deviation .011), from new
parameters .884 (.006), and .911 and .922 of two seeds that took the 3,000 steps
of the pretraining, too. The signals of x_test choose nothing. A pretraining
took five minutes on two CPU cores beside other jobs.
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
