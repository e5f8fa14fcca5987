"""A causal language model of characters, as nanoGPT's small CPU recipe.

karpathy/nanoGPT, `train_shakespeare_char.py` as it is to be run on a CPU: 4
layers, 4 heads, width 128, blocks of 64 characters, 12 rows, 2,000 steps, no
dropout; 1.88 nats a character on the last tenth of tiny Shakespeare. Train on
the first nine tenths of the text and evaluate on the rest:

  bert-jax pretrain characters --workdir runs/characters \\
      data.text="train.txt?format=verbatim" \\
      data.evaluation_text="val.txt?format=verbatim"

On a CPU core, with three seeds: held-out bits_per_byte 2.726, 2.732 and 2.739,
which is 1.889, 1.893 and 1.898 nats a character. The first character of each
block is predicted from nothing here; nanoGPT counts those behind it, of which
it is 1.866, 1.870 and 1.875.
"""

from bert_jax.data.pretraining.formats import BlocksFormat
from bert_jax.data.sources import TextData
from bert_jax.data.tokenizers.choices import ByteLevelTokenizer
from bert_jax.experiment import Experiment
from bert_jax.model.bert import BertConfig
from bert_jax.objectives.causal import Causal
from bert_jax.training.optimizers import AdamW
from bert_jax.training.schedules import CosineSchedule

LENGTH = 66  # 64 characters between [CLS] and [SEP]

experiment = Experiment(
    model=BertConfig(
        hidden_size=128, num_hidden_layers=4, num_attention_heads=4,
        intermediate_size=512, hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0, max_position_embeddings=LENGTH,
        norm_placement="pre"),
    objective=Causal(),
    data=TextData(length=LENGTH, tokenizer=ByteLevelTokenizer(vocab_size=261),
                  format=BlocksFormat()),
    optimizer=AdamW(b2=0.99, weight_decay=0.1),
    schedule=CosineSchedule(1e-3, warmup_fraction=0.05, final=0.1),
    batch_size=12, steps=2000, evaluate_every=500, save_every=2000)
