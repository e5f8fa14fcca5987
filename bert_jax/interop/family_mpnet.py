"""MPNet (Song et al. 2020): T5's biases of scores beside learned positions."""

from bert_jax import config
from bert_jax.interop.family import Family
from bert_jax.interop.family_bert import (
    LAYER, LM_HEAD, OPTIONS, WORDS, classifier, layers, pooler)
from bert_jax.interop.parameter_map import Entry, embedding, norm
from bert_jax.model.bert import BertConfig

_POOLER = pooler("pooler.dense")

MPNET = Family(
    model_type="mpnet", title="MPNet", prefix="MPNet", inside="mpnet",
    base=config.override(BertConfig(), [
        "inputs.types=false", "positions=relative_bias",
        "positions.learned=true"]),
    options=tuple(option for option in OPTIONS
                  if option.ours != "type_vocab_size"),
    # Its code has this number of buckets, whatever the options say.
    fixed={"relative_attention_num_buckets": 32},
    encoder=(
        embedding("embeddings.word_embeddings", "word_embeddings", "V"),
        embedding("embeddings.position_embeddings", "position_embeddings", "S"),
        *norm("embeddings.LayerNorm", "encoder/embeddings/norm", "E"),
        Entry("encoder.relative_attention_bias.weight", "W H",
              "encoder/position_bias/embedding", "WH"),
        *layers({
            "query": f"{LAYER}.attention.attn.q",
            "key": f"{LAYER}.attention.attn.k",
            "value": f"{LAYER}.attention.attn.v",
            "attention": f"{LAYER}.attention.attn.o",
            "attention_norm": f"{LAYER}.attention.LayerNorm",
            "intermediate": f"{LAYER}.intermediate.dense",
            "output": f"{LAYER}.output.dense",
            "output_norm": f"{LAYER}.output.LayerNorm"})),
    spare=_POOLER,
    classes={
        "Model": (), "ForMaskedLM": LM_HEAD,
        "ForSequenceClassification": (
            *pooler("classifier.dense"), *classifier("classifier.out_proj")),
        "ForTokenClassification": classifier("classifier"),
        "ForMultipleChoice": (*_POOLER, *classifier("classifier")),
        "ForQuestionAnswering": classifier("qa_outputs")},
    tied={"lm_head.decoder.weight": WORDS,
          "lm_head.decoder.bias": "lm_head.bias"},
    first_position=2, mlm_activation="gelu")
