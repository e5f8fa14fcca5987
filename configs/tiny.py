"""BERT-tiny: 2 layers of 128, 2 heads, 4.4M parameters.

  bert-jax pretrain tiny data.text=my/text/*.txt --workdir runs/tiny

The recipe is that of Devlin et al. 2019 (section A.2): 256 rows of 512
tokens, a million steps, AdamW at 1e-4. Not measured.
"""

from bert_jax.data.sources import TextData
from bert_jax.data.tokenizers.choices import WordPieceTokenizer
from bert_jax.experiment import Experiment
from bert_jax.model.bert import BertConfig

experiment = Experiment(
    model=BertConfig(hidden_size=128, num_hidden_layers=2, num_attention_heads=2,
               intermediate_size=512),
    data=TextData(tokenizer=WordPieceTokenizer(vocab_size=30522)),
)
