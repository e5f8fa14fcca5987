"""BERT (Devlin et al. 2019), RoBERTa (Liu et al. 2019) and those that are
RoBERTa on other text: XLM-RoBERTa and CamemBERT."""

import dataclasses

from bert_jax.interop.family import Family, activation, same
from bert_jax.interop.parameter_map import Entry, embedding, linear, norm
from bert_jax.model.bert import BertConfig

LAYER, LAYERS = "encoder.layer.N", "encoder/layers"
SIZES = same(
    "vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads",
    "intermediate_size")
# What most families call alike.
OPTIONS = (
    *SIZES, activation("hidden_act", "hidden_act"),
    *same("hidden_dropout_prob", "attention_probs_dropout_prob",
          "max_position_embeddings", "type_vocab_size", "initializer_range",
          "layer_norm_eps"))


def embeddings() -> tuple[Entry, ...]:
  return (*(embedding(f"embeddings.{name}", name, rows) for name, rows in (
      ("word_embeddings", "V"), ("position_embeddings", "S"),
      ("token_type_embeddings", "T"))),
          *norm("embeddings.LayerNorm", "encoder/embeddings/norm", "E"))


def layers(names: dict[str, str]) -> tuple[Entry, ...]:
  """The tensors of BERT's layers, N of them.

  Args:
    names: of query, key, value, attention, attention_norm, intermediate, output
      and output_norm.
  """
  at = lambda part: f"{LAYERS}/{part}"
  return (
      *(entry for part in ("query", "key", "value") for entry in linear(
          names[part], at(f"attention/{part}"), "D", "HK")),
      *linear(names["attention"], at("attention/output"), "HK", "D"),
      *norm(names["attention_norm"], at("attention_norm")),
      *linear(names["intermediate"], at("intermediate"), "D", "F"),
      *linear(names["output"], at("output"), "F", "D"),
      *norm(names["output_norm"], at("output_norm")))


BERT_LAYERS = layers({
    **{part: f"{LAYER}.attention.self.{part}" for part in (
        "query", "key", "value")},
    "attention": f"{LAYER}.attention.output.dense",
    "attention_norm": f"{LAYER}.attention.output.LayerNorm",
    "intermediate": f"{LAYER}.intermediate.dense",
    "output": f"{LAYER}.output.dense",
    "output_norm": f"{LAYER}.output.LayerNorm"})


def pooler(name: str) -> tuple[Entry, ...]:
  return linear(name, "encoder/pooler", "D", "O")


def classifier(name: str) -> tuple[Entry, ...]:
  return linear(name, "classifier", "D", "C")


def mlm(transform: str, norm_: str, bias: str) -> tuple[Entry, ...]:
  """The masked-LM head, whose decoder is the table of word vectors."""
  return (*linear(transform, "mlm/transform", "D", "E"),
          *norm(norm_, "mlm/norm", "E"), Entry(bias, "V", "mlm/bias", "V"))


_POOLER, _TAGS = pooler("pooler.dense"), classifier("classifier")
_MLM = mlm("cls.predictions.transform.dense",
           "cls.predictions.transform.LayerNorm", "cls.predictions.bias")
_NSP = linear("cls.seq_relationship", "nsp", "D", "Q")
WORDS = "embeddings.word_embeddings.weight"

BERT = Family(
    model_type="bert", title="BERT", prefix="Bert", inside="bert",
    base=BertConfig(), options=OPTIONS,
    fixed={"position_embedding_type": "absolute", "is_decoder": False,
           "add_cross_attention": False},
    encoder=(*embeddings(), *BERT_LAYERS), spare=_POOLER,
    classes={
        "Model": (), "ForPreTraining": (*_POOLER, *_MLM, *_NSP),
        "ForMaskedLM": _MLM, "LMHeadModel": _MLM,
        "ForNextSentencePrediction": (*_POOLER, *_NSP),
        "ForSequenceClassification": (*_POOLER, *_TAGS),
        "ForTokenClassification": _TAGS,
        "ForMultipleChoice": (*_POOLER, *_TAGS),
        "ForQuestionAnswering": classifier("qa_outputs")},
    tied={"cls.predictions.decoder.weight": WORDS,
          "cls.predictions.decoder.bias": "cls.predictions.bias"})

LM_HEAD = mlm("lm_head.dense", "lm_head.layer_norm", "lm_head.bias")
ROBERTA = dataclasses.replace(
    BERT, model_type="roberta", title="RoBERTa", prefix="Roberta",
    inside="roberta", classes={
        "Model": (), "ForMaskedLM": LM_HEAD,
        "ForSequenceClassification": (
            *pooler("classifier.dense"), *classifier("classifier.out_proj")),
        "ForTokenClassification": _TAGS,
        "ForMultipleChoice": (*_POOLER, *_TAGS),
        "ForQuestionAnswering": classifier("qa_outputs")},
    tied={"lm_head.decoder.weight": WORDS, "lm_head.decoder.bias":
          "lm_head.bias"},
    first_position=None, mlm_activation="gelu")
XLM_ROBERTA = dataclasses.replace(
    ROBERTA, model_type="xlm-roberta", title="XLM-RoBERTa", prefix="XLMRoberta")
CAMEMBERT = dataclasses.replace(
    ROBERTA, model_type="camembert", title="CamemBERT", prefix="Camembert")
