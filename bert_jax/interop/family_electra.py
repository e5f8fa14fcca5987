"""ELECTRA (Clark et al. 2020): ForPreTraining is the discriminator, ForMaskedLM
the generator."""

from bert_jax import config
from bert_jax.interop.family import Family, Option
from bert_jax.interop.family_bert import (
    BERT_LAYERS, OPTIONS, WORDS, classifier, embeddings, mlm, pooler)
from bert_jax.interop.parameter_map import linear
from bert_jax.model.bert import BertConfig

ELECTRA = Family(
    model_type="electra", title="ELECTRA", prefix="Electra", inside="electra",
    base=config.override(BertConfig(), [
        "embedding_size=128", "hidden_size=256", "num_attention_heads=4",
        "intermediate_size=1024", "pooler.activation=gelu"]),
    options=(*OPTIONS, Option("embedding_size", "embedding_size",
                              effective="embedding_width")),
    fixed={"position_embedding_type": "absolute", "is_decoder": False,
           "add_cross_attention": False, "summary_type": "first",
           "summary_use_proj": True, "summary_activation": "gelu"},
    encoder=(
        *embeddings(),
        *linear("embeddings_project", "encoder/embeddings/projection", "E", "D",
                when="projects_embeddings"), *BERT_LAYERS),
    classes={
        "Model": (), "ForPreTraining": (
            *linear("discriminator_predictions.dense", "replaced/transform",
                    "D", "O"),
            *linear("discriminator_predictions.dense_prediction",
                    "replaced/classifier", "D", "1")),
        "ForMaskedLM": mlm(
            "generator_predictions.dense", "generator_predictions.LayerNorm",
            "generator_lm_head.bias"),
        "ForSequenceClassification": (
            *pooler("classifier.dense"), *classifier("classifier.out_proj")),
        "ForTokenClassification": classifier("classifier"),
        "ForMultipleChoice": (
            *pooler("sequence_summary.summary"), *classifier("classifier")),
        "ForQuestionAnswering": classifier("qa_outputs")},
    tied={"generator_lm_head.weight": WORDS}, mlm_activation="gelu")
