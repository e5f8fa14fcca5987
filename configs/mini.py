"""BERT-mini: 4 layers of 256, 4 heads, 11.3M parameters.

  bert-jax pretrain mini data.text=my/text/*.txt --workdir runs/mini

The recipe is that of Devlin et al. 2019 (section A.2): 256 rows of 512
tokens, a million steps, AdamW at 1e-4. Not measured.
"""

from bert_jax.data.sources import TextData
from bert_jax.data.tokenizers.choices import WordPieceTokenizer
from bert_jax.experiment import Experiment
from bert_jax.model.bert import BertConfig

experiment = Experiment(
    model=BertConfig(hidden_size=256, num_hidden_layers=4, num_attention_heads=4,
               intermediate_size=1024),
    data=TextData(tokenizer=WordPieceTokenizer(vocab_size=30522)),
)
