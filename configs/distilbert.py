"""DistilBERT: 6 layers of 768 without types of tokens, 66M parameters.

  bert-jax pretrain distilbert data.text=my/text/*.txt --workdir runs/distilbert

Sanh et al. 2019: 4,000 rows of 512 tokens a step, no next sentence, three
passes over the text of BERT at 5e-4. This page learns from the text alone:
their teacher's targets and hidden states, and every second of its layers to
begin with, are left out. objective=distillation of ablations/distillation has a
teacher. Cost on a TPU v5e-64 and score: not measured.
"""

from bert_jax import config
from bert_jax.data.pretraining.formats import FullSentencesFormat
from bert_jax.data.sources import TextData
from bert_jax.data.tokenizers.choices import WordPieceTokenizer
from bert_jax.experiment import Experiment
from bert_jax.model.bert import BertConfig
from bert_jax.objectives.mlm import Mlm
from bert_jax.training.schedules import LinearSchedule

experiment = Experiment(
    model=config.override(BertConfig(), [
        "num_hidden_layers=6", "inputs.types=false", "pooler.activation=relu"]),
    objective=Mlm(),
    data=TextData(length=512, format=FullSentencesFormat(),
                  tokenizer=WordPieceTokenizer(vocab_size=30522)),
    schedule=LinearSchedule(learning_rate=5e-4, warmup_fraction=0.05),
    epochs=3.0, batch_size=4000)
