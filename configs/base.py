"""BERT-base: 12 layers of 768, 12 heads, 110M parameters.

  bert-jax pretrain base data.text=my/text/*.txt --workdir runs/base

The recipe is that of Devlin et al. 2019 (section A.2): 256 rows of 512
tokens, a million steps, AdamW at 1e-4. Not measured.
"""

from bert_jax.data.sources import TextData
from bert_jax.data.tokenizers.choices import WordPieceTokenizer
from bert_jax.experiment import Experiment
from bert_jax.model.bert import BertConfig

experiment = Experiment(
    model=BertConfig(hidden_size=768, num_hidden_layers=12, num_attention_heads=12,
               intermediate_size=3072),
    data=TextData(tokenizer=WordPieceTokenizer(vocab_size=30522)),
)
