"""NomicBERT (Nussbaum et al. 2024), as transformers has it."""

from typing import Any

from bert_jax import config
from bert_jax.config import UserError
from bert_jax.interop.family import Family, Option, activation
from bert_jax.interop.family_bert import (
    LAYERS, OPTIONS, WORDS, classifier, mlm, pooler)
from bert_jax.interop.parameter_map import embedding, norm, weight
from bert_jax.model.bert import BertConfig

_LAYER, _TYPES = "encoder.layers.N", "token_type_embeddings"
_POOLER = pooler("pooler.dense")


def _base(rotary: dict[str, Any] | None) -> float:
  rotary = rotary or {}
  if rotary.get("rope_type", "default") != "default":
    raise UserError(f"rope_parameters={rotary}: only rope_type=default has a "
                    "counterpart here.")
  return rotary.get("rope_theta", 1000.0)


NOMIC_BERT = Family(
    model_type="nomic_bert", title="NomicBERT", prefix="NomicBert",
    inside="nomic_bert",
    base=config.override(BertConfig(), [
        "hidden_act=silu", "hidden_dropout_prob=0",
        "attention_probs_dropout_prob=0", "max_position_embeddings=2048",
        "use_bias=false", "head_bias=true", "positions=rotary",
        "positions.base=1000", "feed_forward=gated",
        "feed_forward.activation=silu"]),
    options=(
        activation("feed_forward.activation", "hidden_act"), *OPTIONS,
        Option("positions.base", "rope_parameters", _base,
               lambda base: {"rope_theta": base, "rope_type": "default"})),
    encoder=(
        embedding("embeddings.word_embeddings", "word_embeddings", "V"),
        embedding(f"embeddings.{_TYPES}", _TYPES, "T"),
        *norm("emb_ln", "encoder/embeddings/norm", "E"),
        weight(f"{_LAYER}.attn.Wqkv", f"{LAYERS}/attention/{{}}", "D", "HK",
               ("query", "key", "value")),
        weight(f"{_LAYER}.attn.out_proj", f"{LAYERS}/attention/output", "HK",
               "D"),
        *norm(f"{_LAYER}.norm1", f"{LAYERS}/attention_norm"),
        weight(f"{_LAYER}.mlp.fc11", f"{LAYERS}/intermediate", "D", "F"),
        weight(f"{_LAYER}.mlp.fc12", f"{LAYERS}/gate", "D", "F"),
        weight(f"{_LAYER}.mlp.fc2", f"{LAYERS}/output", "F", "D"),
        *norm(f"{_LAYER}.norm2", f"{LAYERS}/output_norm")),
    spare=_POOLER,
    classes={
        "Model": (), "ForMaskedLM": mlm(
            "cls.predictions.transform.dense",
            "cls.predictions.transform.layer_norm", "cls.predictions.bias"),
        "ForSequenceClassification": (*_POOLER, *classifier("classifier")),
        "ForTokenClassification": classifier("classifier")},
    tied={"cls.predictions.decoder.weight": WORDS,
          "cls.predictions.decoder.bias": "cls.predictions.bias"})
