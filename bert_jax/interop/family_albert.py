"""ALBERT (Lan et al. 2020): shared layers, factorized embeddings."""

from bert_jax import config
from bert_jax.interop.family import Family, Option
from bert_jax.interop.family_bert import (
    OPTIONS, WORDS, classifier, embeddings, layers, mlm, pooler)
from bert_jax.interop.parameter_map import linear
from bert_jax.model.bert import BertConfig

_LAYER = "encoder.albert_layer_groups.N.albert_layers.0"
_POOLER = pooler("pooler")
_POOLED = (*_POOLER, *classifier("classifier"))
_MLM = mlm("predictions.dense", "predictions.LayerNorm", "predictions.bias")

ALBERT = Family(
    model_type="albert", title="ALBERT", prefix="Albert", inside="albert",
    base=config.override(BertConfig(), [
        "embedding_size=128", "hidden_size=4096", "num_attention_heads=64",
        "intermediate_size=16384", "hidden_act=gelu_new",
        "hidden_dropout_prob=0", "attention_probs_dropout_prob=0",
        "stack=shared"]),
    options=(
        *OPTIONS, Option("stack.groups", "num_hidden_groups"),
        Option("embedding_size", "embedding_size",
               effective="embedding_width")),
    fixed={"position_embedding_type": "absolute", "inner_group_num": 1},
    needs="projects_embeddings",
    encoder=(
        *embeddings(),
        *linear("encoder.embedding_hidden_mapping_in",
                "encoder/embeddings/projection", "E", "D"),
        *layers({
            **{part: f"{_LAYER}.attention.{part}" for part in (
                "query", "key", "value")},
            "attention": f"{_LAYER}.attention.dense",
            "attention_norm": f"{_LAYER}.attention.LayerNorm",
            "intermediate": f"{_LAYER}.ffn", "output": f"{_LAYER}.ffn_output",
            "output_norm": f"{_LAYER}.full_layer_layer_norm"})),
    spare=_POOLER,
    classes={
        "Model": (), "ForMaskedLM": _MLM, "ForPreTraining": (
            *_POOLER, *_MLM, *linear("sop_classifier.classifier", "sop", "D",
                                     "Q")),
        "ForSequenceClassification": _POOLED,
        "ForTokenClassification": classifier("classifier"),
        "ForMultipleChoice": _POOLED,
        "ForQuestionAnswering": classifier("qa_outputs")},
    tied={"predictions.decoder.weight": WORDS,
          "predictions.decoder.bias": "predictions.bias"})
