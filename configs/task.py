r"""A labeled task of your own, from a pretrained network.

  bert-jax finetune task --workdir runs/my-task \
      init_from=runs/pretraining data.train=train.tsv \
      data.evaluation=dev.tsv data.columns.text=sentence

The stable recipe of Mosbach et al. 2020 ("On the stability of fine-tuning
BERT"): a small rate, a tenth of the steps as warm-up, bias correction, and many
passes, here 20. Over 10,000 examples 3 are enough: epochs=3. The rate is for
networks of some size; small ones like 1e-4 to 1e-3. The page task_2018 is
what BERT was published with. Not measured.
"""

from bert_jax.data.sources import TableData
from bert_jax.experiment import Experiment
from bert_jax.objectives.classification import Classification
from bert_jax.training.optimizers import AdamW
from bert_jax.training.schedules import LinearSchedule

experiment = Experiment(
    objective=Classification(),
    data=TableData(),
    optimizer=AdamW(),
    schedule=LinearSchedule(learning_rate=2e-5, warmup_fraction=0.1),
    epochs=20.0,
    batch_size=16,
    evaluate_every=500,
    save_every=1000,
    log_every=25,
)
