r"""Which architecture learns most from the same FLOPs? Four encoders' shapes.

BERT (Devlin et al. 2019); ALBERT (Lan et al. 2020): shared layers and
factorized embeddings; ModernBERT (Warner et al. 2024): pre-norm, no biases,
GeGLU, rotary positions, windows in two of three layers; NeoBERT (Le Breton et
al. 2025): pre-norm, RMSNorm, SwiGLU, rotary positions. At the same width; the
gated parts have 2/3 of the feed-forward width.

  bert-jax ablate studies/encoders --workdir runs/encoders --then code_words

Four arms of five seeds with the base's FLOPs, on two CPU cores. Not measured.
"""

from bert_jax import config
from bert_jax.studies.study import Study

experiment = config.override(
    config.load_page("studies/bert_2018").experiment,
    ["objective=mlm", "data.format=full_sentences", "data.examples_per_row=2",
     "data.length=32", "batch_size=64", "model.hidden_dropout_prob=0",
     "model.attention_probs_dropout_prob=0"])
_GATED = round(experiment.model.intermediate_size * 2 / 3 / 8) * 8
study = Study(
    arms={"albert": "model.stack=shared "
                    f"model.embedding_size={experiment.model.hidden_size // 4}",
          "modernbert": "model.norm_placement=pre model.use_bias=false "
                        "model.norm.bias=false model.feed_forward=gated "
                        f"model.intermediate_size={_GATED} "
                        "model.positions=rotary model.locality=alternating "
                        "model.locality.size=8",
          "neobert": "model.norm_placement=pre model.use_bias=false "
                     "model.norm=rms model.feed_forward=gated "
                     "model.feed_forward.activation=silu "
                     f"model.intermediate_size={_GATED} "
                     "model.positions=rotary"},
    seeds=5, budget="flops", protocols=["mlm percent=20"])
