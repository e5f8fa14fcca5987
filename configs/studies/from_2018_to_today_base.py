r"""Which of the changes since BERT help, at the size of BERT-base?

The arms of studies/from_2018_to_today, with 12 layers of 768, rows of 128
tokens and the paper's vocabulary, initial weights and learning rate, for an
accelerator.

  bert-jax ablate studies/from_2018_to_today_base \
      data.text=my/text/*.txt --workdir runs/walk_base

Cost and score: not measured.
"""

import dataclasses
import sys

from bert_jax import config

walk = config.load_page("studies/from_2018_to_today")
experiment = config.override(config.load_page("base").experiment, [
    "data.length=128", "data.held_out_percent=2", "steps=100000",
    "evaluate_every=10000", "evaluation_batches=100"])
walk = sys.modules[walk.module]
study = dataclasses.replace(walk.study, arms=walk.switches(experiment))
