r"""GLUE (Wang et al. 2019), from a pretrained network.

  bert-jax import SOURCE --workdir runs/bert
  bert-jax glue --workdir runs/glue init_from=runs/bert \
      data.folder=glue

Every task whose files are there, five seeds each. Rows of 128 tokens that
hold several short examples, 32 examples a step on average, three passes at a
small rate with warm-up and bias correction (Mosbach et al. 2020). The rate is
for networks of BERT-base's size; small ones like 1e-4.
"""

from bert_jax.data.sources import GlueData
from bert_jax.experiment import Experiment
from bert_jax.objectives.classification import Classification
from bert_jax.training.optimizers import AdamW
from bert_jax.training.schedules import LinearSchedule

experiment = Experiment(
    objective=Classification(),
    data=GlueData(length=128, examples_per_row=16),
    optimizer=AdamW(),
    schedule=LinearSchedule(learning_rate=2e-5, warmup_fraction=0.1),
    epochs=3.0,
    examples_per_batch=32,
    evaluate_every=1_000_000,
    log_every=25,
)
