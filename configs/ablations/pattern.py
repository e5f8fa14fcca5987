"""Do layers have to be alike? A window in every other layer, and a gate.

A template for layers that differ: each block of the pattern overrides options
of the model, and the blocks are repeated up to `model.num_hidden_layers`.

  bert-jax pretrain ablations/pattern --workdir runs/pattern

Against `pretrain quickstart`, on 2 CPU cores. Cost and score: not measured.
"""

from bert_jax import config

experiment = config.override(config.load_page("quickstart").experiment, [
    "model.stack=pattern",
    "model.stack.pattern=locality=window locality.size=8,feed_forward=gated"])
