"""A small BERT begins to read the documentation every installation carries.

The first half of what `bert-jax quickstart` pretrains: two layers of
128, rows of 16 tokens. In rows of 64 a network this young sees no order in
its tokens before the quickstart is over, and with BERT-base's initial
weights (0.02) not much sooner.

  bert-jax pretrain quickstart --workdir runs/short

Measured: `bert-jax quickstart`, which trains this page, quickstart_long and
quickstart_task with three seeds, takes 4.1 minutes on two shared CPU cores.
After both pretrainings the held-out masked-LM loss is 4.357 nats (2.520 bits
per byte); that of a unigram model is 6.158.
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
        hidden_size=128, num_hidden_layers=2, num_attention_heads=2,
        intermediate_size=512, max_position_embeddings=64,
        hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0,
        initializer_range=0.05),
    objective=Mlm(),
    data=TextData(
        length=16, examples_per_row=2, text="embedded", held_out_percent=15.0,
        tokenizer=SentencePieceTokenizer(vocab_size=1024,
                                         byte_fallback=False),
        format=FullSentencesFormat(short_seq_prob=0.0)),
    optimizer=AdamW(b2=0.98),
    schedule=ConstantSchedule(learning_rate=1e-3, warmup_fraction=0.1),
    steps=600,
    batch_size=128,
    evaluate_every=200,
    evaluation_batches=40,
    save_every=200,
    log_every=25,
)
