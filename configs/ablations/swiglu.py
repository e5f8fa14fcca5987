"""Is a gate worth its third matrix? SwiGLU in place of GELU.

Shazeer 2020, table 1: gated layers of the same number of parameters have lower
perplexity. `intermediate_size` is 2/3 of the plain one, for as many parameters.

  bert-jax pretrain ablations/swiglu --workdir runs/swiglu

Against `pretrain quickstart`, on 2 CPU cores. Cost and score: not measured.
"""

from bert_jax import config

base = config.load_page("quickstart").experiment
experiment = config.override(base, [
    "model.feed_forward=gated",
    "model.feed_forward.activation=silu",
    f"model.intermediate_size={base.model.intermediate_size * 2 // 3}"])
