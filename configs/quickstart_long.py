r"""The same small BERT reads on, in rows of 64 tokens.

The second half of what `bert-jax quickstart` pretrains.

  bert-jax pretrain quickstart_long init_from=runs/short \
      --workdir runs/long

Measured: `bert-jax quickstart`, which trains this page after quickstart and
before quickstart_task with three seeds, takes 4.1 minutes on two shared CPU
cores. The held-out masked-LM loss is 4.357 nats (2.520 bits per byte); that of
a unigram model is 6.158.
"""

from bert_jax import config

experiment = config.override(config.load_page("quickstart").experiment, [
    "init_from=runs/quickstart/short", "data.length=64",
    "data.examples_per_row=4", "batch_size=32", "schedule=cosine",
    "schedule.learning_rate=1e-3", "schedule.warmup_fraction=0.02",
])
