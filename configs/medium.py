"""BERT-medium: 8 layers of 512, 8 heads, 41.7M parameters.

  bert-jax pretrain medium data.text=my/text/*.txt --workdir runs/medium

The recipe is that of Devlin et al. 2019 (section A.2): 256 rows of 512
tokens, a million steps, AdamW at 1e-4. Not measured.
"""

from bert_jax.data.sources import TextData
from bert_jax.data.tokenizers.choices import WordPieceTokenizer
from bert_jax.experiment import Experiment
from bert_jax.model.bert import BertConfig

experiment = Experiment(
    model=BertConfig(hidden_size=512, num_hidden_layers=8, num_attention_heads=8,
               intermediate_size=2048),
    data=TextData(tokenizer=WordPieceTokenizer(vocab_size=30522)),
)
