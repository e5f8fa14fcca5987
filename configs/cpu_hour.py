r"""BERT-mini on text of your own, within an hour on two CPU cores.

Short rows first: on long ones a network this young sees no order in its
tokens for a long time, and an hour is over before; larger initial weights
than BERT-base has shorten that further. Then rows of 64 tokens.

  bert-jax pretrain cpu_hour data.text=books.txt.xz \
      --workdir runs/short
  bert-jax pretrain cpu_hour data.text=books.txt.xz \
      init_from=runs/short data.length=64 batch_size=64 steps=500 \
      schedule=cosine schedule.learning_rate=1e-3 --workdir runs/hour

Measured, with earlier code: half an hour for both on two shared cores of a
Xeon; 22 books of 8.5 M words, a held-out masked-LM loss of 4.26 nats of a
vocabulary of 4,096, or 1.64 bits per byte.
"""

from bert_jax.data.pretraining.formats import FullSentencesFormat
from bert_jax.data.sources import TextData
from bert_jax.data.tokenizers.choices import SentencePieceTokenizer
from bert_jax.experiment import Experiment
from bert_jax.model.bert import BertConfig
from bert_jax.objectives.mlm import Mlm
from bert_jax.training.optimizers import AdamW
from bert_jax.training.schedules import ConstantSchedule

experiment = Experiment(
    model=BertConfig(
        hidden_size=256, num_hidden_layers=4, num_attention_heads=4,
        intermediate_size=1024, max_position_embeddings=128,
        hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0,
        initializer_range=0.05),
    objective=Mlm(),
    data=TextData(
        length=32, examples_per_row=2, held_out_percent=2.0,
        tokenizer=SentencePieceTokenizer(vocab_size=4096, lowercase=True),
        format=FullSentencesFormat(short_seq_prob=0.0)),
    optimizer=AdamW(b2=0.98),
    schedule=ConstantSchedule(learning_rate=1e-3, warmup_fraction=0.15),
    steps=800,
    batch_size=128,
    evaluate_every=200,
    evaluation_batches=20,
    save_every=200,
    log_every=25,
)
