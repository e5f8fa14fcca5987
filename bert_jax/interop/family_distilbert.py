"""DistilBERT (Sanh et al. 2019): BERT without types and without a pooler."""

from bert_jax import config
from bert_jax.interop.family import Family, Option, activation, same
from bert_jax.interop.family_bert import (
    WORDS, classifier, layers, mlm, pooler)
from bert_jax.interop.parameter_map import embedding, norm
from bert_jax.model.bert import BertConfig

_LAYER = "transformer.layer.N"
_POOLED = (*pooler("pre_classifier"), *classifier("classifier"))

DISTILBERT = Family(
    model_type="distilbert", title="DistilBERT", prefix="DistilBert",
    inside="distilbert",
    base=config.override(BertConfig(), [
        "num_hidden_layers=6", "inputs.types=false", "pooler.activation=relu"]),
    options=(
        *same("vocab_size", "max_position_embeddings", "initializer_range"),
        activation("hidden_act", "activation"),
        *(Option(ours, theirs) for ours, theirs in (
            ("hidden_size", "dim"), ("num_hidden_layers", "n_layers"),
            ("num_attention_heads", "n_heads"),
            ("intermediate_size", "hidden_dim"),
            ("hidden_dropout_prob", "dropout"),
            ("attention_probs_dropout_prob", "attention_dropout")))),
    encoder=(
        embedding("embeddings.word_embeddings", "word_embeddings", "V"),
        embedding("embeddings.position_embeddings", "position_embeddings", "S"),
        *norm("embeddings.LayerNorm", "encoder/embeddings/norm", "E"),
        *layers({
            "query": f"{_LAYER}.attention.q_lin",
            "key": f"{_LAYER}.attention.k_lin",
            "value": f"{_LAYER}.attention.v_lin",
            "attention": f"{_LAYER}.attention.out_lin",
            "attention_norm": f"{_LAYER}.sa_layer_norm",
            "intermediate": f"{_LAYER}.ffn.lin1",
            "output": f"{_LAYER}.ffn.lin2",
            "output_norm": f"{_LAYER}.output_layer_norm"})),
    classes={
        "Model": (), "ForMaskedLM": mlm(
            "vocab_transform", "vocab_layer_norm", "vocab_projector.bias"),
        "ForSequenceClassification": _POOLED,
        "ForTokenClassification": classifier("classifier"),
        "ForMultipleChoice": _POOLED,
        "ForQuestionAnswering": classifier("qa_outputs")},
    tied={"vocab_projector.weight": WORDS})
