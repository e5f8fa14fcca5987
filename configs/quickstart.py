"""A small BERT that reads the documentation every installation carries.

What `bash tools/quickstart.sh` and `python -m bert_jax quickstart` pretrains: two layers of 128, two heads, rows
of 64 tokens, 30% masked (more to learn from in few steps), 2 CPU cores.
Cost and score: see the README's table, which that command makes.
"""

from bert_jax.data.datasets import TextData
from bert_jax.data.formats import FullSentencesFormat
from bert_jax.data.tokenizers import SentencePieceTokenizer
from bert_jax.experiment import Experiment
from bert_jax.model.encoder import Bert
from bert_jax.objectives.masking import TokenMasking
from bert_jax.objectives.mlm import Mlm
from bert_jax.training.optimizers import AdamW
from bert_jax.training.schedules import CosineSchedule

experiment = Experiment(
    model=Bert(
        hidden_size=128, num_hidden_layers=2, num_attention_heads=2,
        intermediate_size=512, max_position_embeddings=64,
        hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0),
    objective=Mlm(masking=TokenMasking(rate=0.3)),
    data=TextData(
        length=64, examples_per_row=4, text="embedded", held_out_percent=15.0,
        tokenizer=SentencePieceTokenizer(vocab_size=1024,
                                         byte_fallback=False),
        format=FullSentencesFormat(short_seq_prob=0.0)),
    optimizer=AdamW(b2=0.98, bias_correction=True),
    schedule=CosineSchedule(learning_rate=3e-3, warmup=0.06),
    steps=1500,
    batch_size=32,
    evaluate_every=250,
    evaluation_batches=50,
    save_every=500,
    log_every=25,
)
