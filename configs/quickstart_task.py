"""Which words did the authors of the documentation mark as code?

The task of the quickstart, on the network that the page quickstart_long trains:
the back-ticks are gone, and every word is to be tagged as code or not.

  bert-jax finetune quickstart_task init_from=runs/long --workdir runs/words

Measured by `bert-jax quickstart`, with three seeds: entity F1 .598 (standard
deviation .012), from scratch .343 (.017), of a lexicon .517.
"""

from bert_jax.data.sources import CodeWordsData
from bert_jax.experiment import Experiment
from bert_jax.objectives.classification import Tagging
from bert_jax.training.optimizers import AdamW
from bert_jax.training.schedules import LinearSchedule

experiment = Experiment(
    init_from="runs/quickstart/long",
    objective=Tagging(),
    data=CodeWordsData(length=64, examples_per_row=4, held_out_percent=15.0),
    optimizer=AdamW(),
    schedule=LinearSchedule(learning_rate=2e-3, warmup_fraction=0.1),
    steps=250,
    batch_size=32,
    evaluate_every=250,
    save_every=250,
    log_every=25,
)
