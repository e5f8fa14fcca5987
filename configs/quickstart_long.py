"""The same small BERT reads on, in rows of 64 tokens.

The second half of what `bash tools/quickstart.sh` pretrains.

  python -m bert_jax pretrain quickstart_long init_from=runs/short \
      --workdir runs/long

Cost and score: see the README's table, which the quickstart makes.
"""

from bert_jax import config

experiment = config.override(config.load_page("quickstart").experiment, [
    "init_from=runs/quickstart/short", "data.length=64",
    "data.examples_per_row=4", "batch_size=32", "schedule=cosine",
    "schedule.learning_rate=1e-3", "schedule.warmup_fraction=0.02",
])
