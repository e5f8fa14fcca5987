"""ModernBERT (Warner et al. 2024)."""

from bert_jax import config
from bert_jax.config import UserError
from bert_jax.interop.family import Family, Option, Options, activation, same
from bert_jax.interop.family_bert import LAYERS, SIZES, classifier
from bert_jax.interop.parameter_map import Entry, embedding, linear, norm
from bert_jax.model.bert import BertConfig


def _as_first(options: Options) -> Options:
  """Today's keys as those of its first release, which today's program reads,
  too.

  Raises:
    UserError: layers in another order, or scaled rotary positions.
  """
  options = dict(options)
  kinds = options.pop("layer_types", None)
  if kinds:
    expected = lambda every: [f"{'sliding' if n % every else 'full'}_attention"
                              for n in range(len(kinds))]
    every = next((n for n in range(1, len(kinds) + 1)
                  if expected(n) == list(kinds)), None)
    if every is None:
      raise UserError(f"layer_types={kinds}: full attention is not in every "
                      "n-th layer from the first on.")
    options["global_attn_every_n_layers"] = every
  rotary = options.pop("rope_parameters", None) or {}
  for kind, key in (("full", "global"), ("sliding", "local")):
    given = rotary.get(f"{kind}_attention") or {}
    if given.get("rope_type", "default") != "default":
      raise UserError(f"rope_parameters={rotary}: only rope_type=default has a "
                      "counterpart here.")
    if "rope_theta" in given:
      options[f"{key}_rope_theta"] = given["rope_theta"]
  return options


def _norm(name: str, path: str, letter: str = "D",
          first: bool = True) -> tuple[Entry, Entry]:
  return norm(name, path, letter, first, biased="norm.bias")


def _head(path: str, norm_path: str, outputs: str) -> tuple[Entry, ...]:
  return (*linear("head.dense", path, "D", outputs, biased="heads_have_bias"),
          *_norm("head.norm", norm_path, outputs.replace("O", "D")))


_LABELS = (*_head("encoder/pooler", "encoder/pooler/norm", "O"),
           *classifier("classifier"))

MODERNBERT = Family(
    model_type="modernbert", title="ModernBERT", prefix="ModernBert",
    inside="model",
    base=config.override(BertConfig(), [
        "num_hidden_layers=22", "intermediate_size=1152",
        "hidden_dropout_prob=0", "attention_probs_dropout_prob=0",
        "max_position_embeddings=8192", "layer_norm_eps=1e-5", "use_bias=false",
        "inputs.types=false", "norm.bias=false", "norm_placement=pre",
        "first_attention_norm=false", "positions=rotary",
        "positions.base=160000", "locality=alternating", "feed_forward=gated",
        "pooler.activation=gelu", "pooler.norm=true", "pooler.tokens=true"]),
    options=(
        *SIZES, *same("max_position_embeddings", "initializer_range"),
        Option("pooler", "classifier_pooling",
               write=lambda pooler: pooler.choice_name),
        activation("pooler.activation", "classifier_activation"),
        activation("hidden_act", "classifier_activation"),
        activation("feed_forward.activation", "hidden_activation"),
        *(Option(ours, theirs) for ours, theirs in (
            ("layer_norm_eps", "norm_eps"), ("norm.bias", "norm_bias"),
            ("use_bias", "attention_bias"), ("feed_forward.bias", "mlp_bias"),
            ("hidden_dropout_prob", "embedding_dropout"),
            ("attention_probs_dropout_prob", "attention_dropout"),
            ("positions.base", "global_rope_theta"),
            ("locality.window_base", "local_rope_theta"),
            ("locality.every", "global_attn_every_n_layers"))),
        Option("head_bias", "classifier_bias", effective="heads_have_bias"),
        # Both sides of a token, and those of one side.
        Option("locality.size", "local_attention", lambda size: size // 2,
               lambda size: 2 * size)),
    fixed={"decoder_bias": True},
    encoder=(
        embedding("embeddings.tok_embeddings", "word_embeddings", "V"),
        *_norm("embeddings.norm", "encoder/embeddings/norm", "E"),
        *linear("layers.N.attn.Wqkv", f"{LAYERS}/attention/{{}}", "D", "HK",
                ("query", "key", "value"), "use_bias"),
        *linear("layers.N.attn.Wo", f"{LAYERS}/attention/output", "HK", "D",
                biased="use_bias"),
        *_norm("layers.N.attn_norm", f"{LAYERS}/attention_norm", first=False),
        *linear("layers.N.mlp.Wi", f"{LAYERS}/{{}}", "D", "F",
                ("gate", "intermediate"), "feed_forward.bias"),
        *linear("layers.N.mlp.Wo", f"{LAYERS}/output", "F", "D",
                biased="feed_forward.bias"),
        *_norm("layers.N.mlp_norm", f"{LAYERS}/output_norm"),
        *_norm("final_norm", "encoder/final_norm")),
    classes={
        "Model": (), "ForMaskedLM": (
            *_head("mlm/transform", "mlm/norm", "E"),
            Entry("decoder.bias", "V", "mlm/bias", "V")),
        **dict.fromkeys(("ForSequenceClassification", "ForTokenClassification",
                         "ForQuestionAnswering", "ForMultipleChoice"),
                        _LABELS)},
    tied={"decoder.weight": "embeddings.tok_embeddings.weight"},
    today=_as_first)
