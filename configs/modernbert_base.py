"""ModernBERT-base: 22 layers of 768, windows in two of three, 150M parameters.

  bert-jax pretrain modernbert_base data.text=my/text/*.txt --workdir runs/short
  bert-jax pretrain modernbert_base init_from=runs/short data.text=my/text/*.txt \
      data.length=8192 model.positions.base=160000 batch_size=576 steps=53000 \
      schedule=constant schedule.learning_rate=3e-4 --workdir runs/long

Warner et al. 2024 (section 2.2, tables 3 and 4): 1.7 trillion tokens in rows of
1,024, the rate constant after its warm-up, 30 % masked; then 250 billion in
rows of 8,192, with 160,000 in place of 10,000 as the rotary base of the layers
with full attention. Left out: StableAdamW (AdamW here), the batch that grows
from 768 rows to 4,608, initial weights by depth, its tokenizer (byte-level BPE;
import one), and the last 50 billion tokens, in which the rate falls. Several
examples in a row, as there: data.examples_per_row. Cost on a TPU v5e-64 and
score: not measured.
"""

from bert_jax import config
from bert_jax.data.pretraining.formats import FullSentencesFormat
from bert_jax.data.sources import TextData
from bert_jax.data.tokenizers.choices import SentencePieceTokenizer
from bert_jax.experiment import Experiment
from bert_jax.model.bert import BertConfig
from bert_jax.objectives.masking import TokenMasking
from bert_jax.objectives.mlm import Mlm
from bert_jax.training.optimizers import AdamW
from bert_jax.training.schedules import TrapezoidSchedule

experiment = Experiment(
    model=config.override(BertConfig(), [
        "num_hidden_layers=22", "intermediate_size=1152", "use_bias=false",
        "hidden_dropout_prob=0", "attention_probs_dropout_prob=0",
        "max_position_embeddings=8192", "layer_norm_eps=1e-5",
        "inputs.types=false", "positions=rotary", "locality=alternating",
        "feed_forward=gated", "norm.bias=false", "norm_placement=pre",
        "first_attention_norm=false", "pooler.activation=gelu",
        "pooler.norm=true", "pooler.tokens=true", "dtype=bfloat16"]),
    objective=Mlm(masking=TokenMasking(rate=0.3)),
    data=TextData(length=1024, format=FullSentencesFormat(short_seq_prob=0.0),
                  tokenizer=SentencePieceTokenizer(vocab_size=50368)),
    optimizer=AdamW(b2=0.98, eps=1e-6, weight_decay=1e-5),
    schedule=TrapezoidSchedule(learning_rate=8e-4, warmup_fraction=0.002,
                               decay_fraction=0.0),
    steps=364_000, batch_size=4608)
