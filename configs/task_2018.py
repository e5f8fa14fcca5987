r"""A labeled task by the recipe that BERT was published with.

  bert-jax finetune task_2018 --workdir runs/my-task \
      init_from=runs/pretraining data.train=train.tsv \
      data.evaluation=dev.tsv data.columns.text=sentence

As the page task, but three passes with Adam without bias correction (Devlin
et al. 2019, A.3, and run_classifier.py: batches of 32, the best rate on the
development set of 5e-5, 4e-5, 3e-5 and 2e-5, a tenth of the steps as warm-up).
On small sets some seeds fail with it (Mosbach et al. 2020). Not measured.
"""

from bert_jax.data.sources import TableData
from bert_jax.experiment import Experiment
from bert_jax.objectives.classification import Classification
from bert_jax.training.optimizers import BertAdam
from bert_jax.training.schedules import LinearSchedule

experiment = Experiment(
    objective=Classification(),
    data=TableData(),
    optimizer=BertAdam(),
    schedule=LinearSchedule(learning_rate=5e-5, warmup_fraction=0.1),
    epochs=3.0,
    batch_size=32,
    evaluate_every=500,
    save_every=1000,
    log_every=25,
)
