"""BERT-large: 24 layers of 1024, 16 heads, 335M parameters.

  bert-jax pretrain large data.text=my/text/*.txt --workdir runs/large

The recipe is that of Devlin et al. 2019 (section A.2): 256 rows of 512
tokens, a million steps, AdamW at 1e-4. Not measured.
"""

from bert_jax.data.sources import TextData
from bert_jax.data.tokenizers.choices import WordPieceTokenizer
from bert_jax.experiment import Experiment
from bert_jax.model.bert import BertConfig

experiment = Experiment(
    model=BertConfig(hidden_size=1024, num_hidden_layers=24, num_attention_heads=16,
               intermediate_size=4096),
    data=TextData(tokenizer=WordPieceTokenizer(vocab_size=30522)),
)
