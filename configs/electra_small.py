"""ELECTRA-small: 12 layers of 256, 14M parameters, and a generator.

  bert-jax pretrain electra_small data.text=my/text/*.txt --workdir runs/electra
  bert-jax export runs/electra discriminator
  bert-jax export runs/electra generator --network generator

Clark et al. 2020 (section 3.4, table 6): a million steps of 128 rows of 128
tokens, Adam at 5e-4; the generator has a quarter of the width and shares the
embeddings. Cost on a TPU v5e-64 and score: not measured.
"""

from bert_jax import config
from bert_jax.data.pretraining.formats import FullSentencesFormat
from bert_jax.data.sources import TextData
from bert_jax.data.tokenizers.choices import WordPieceTokenizer
from bert_jax.experiment import Experiment
from bert_jax.model.bert import BertConfig
from bert_jax.objectives.replaced_tokens import ReplacedTokens
from bert_jax.training.schedules import LinearSchedule

experiment = Experiment(
    model=config.override(BertConfig(), [
        "hidden_size=256", "num_attention_heads=4", "intermediate_size=1024",
        "embedding_size=128", "pooler.activation=gelu"]),
    objective=ReplacedTokens(),
    data=TextData(length=128, format=FullSentencesFormat(),
                  tokenizer=WordPieceTokenizer(vocab_size=30522)),
    schedule=LinearSchedule(learning_rate=5e-4, warmup_fraction=0.01),
    steps=1_000_000, batch_size=128)
