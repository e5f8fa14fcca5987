"""ALBERT-base: 12 layers of 768 that share their parameters, 12M of them.

  bert-jax pretrain albert_base data.text=my/text/*.txt --workdir runs/albert

Lan et al. 2020 (section 4.1): 125,000 steps of 4,096 rows of 512 tokens, LAMB
at .00176, the order of two segments in place of the next sentence, spans of up
to three words (there with 1/n as the odds of length n, here geometric). Cost on
a TPU v5e-64 and score: not measured.
"""

from bert_jax import config
from bert_jax.data.pretraining.formats import OrderedPairsFormat
from bert_jax.data.sources import TextData
from bert_jax.data.tokenizers.choices import SentencePieceTokenizer
from bert_jax.experiment import Experiment
from bert_jax.model.bert import BertConfig
from bert_jax.objectives.masking import SpanMasking
from bert_jax.objectives.sentence_order import MlmSop
from bert_jax.training.optimizers import Lamb
from bert_jax.training.schedules import LinearSchedule

experiment = Experiment(
    model=config.override(BertConfig(), [
        "embedding_size=128", "stack=shared", "hidden_act=gelu_new",
        "hidden_dropout_prob=0", "attention_probs_dropout_prob=0"]),
    objective=MlmSop(masking=SpanMasking(span_p=0.5, longest_span=3)),
    data=TextData(length=512, format=OrderedPairsFormat(),
                  tokenizer=SentencePieceTokenizer(
                      vocab_size=30000, model_type="unigram", lowercase=True)),
    optimizer=Lamb(),
    schedule=LinearSchedule(learning_rate=0.00176, warmup_fraction=0.025),
    steps=125_000, batch_size=4096)
