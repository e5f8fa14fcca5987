"""Does it help to mask much at first and less later?

A masking rate that falls linearly, as in Yang et al. 2023 (Learning Better
Masking for Better Language Model Pre-training): from 30% at the first update
to BERT's 15% at the last of the run's 600.

  bert-jax pretrain ablations/decaying_rate --workdir runs/decaying

Against `pretrain quickstart`, on 2 CPU cores. Not measured. Evaluation masks
15% whatever the training step, so held-out losses can be compared.
"""

from bert_jax import config

_base = config.load_page("quickstart").experiment
experiment = config.override(_base, [
    "objective.masking.initial_rate=0.3",
    f"objective.masking.rate_steps={_base.steps}"])
