"""Is it enough to see everything in every other layer? As ModernBERT.

Warner et al. 2024, 2.1.2: global layers (there every third) alternate with
windows, and rotary positions have a longer base where a layer is global.

  bert-jax pretrain ablations/alternating --workdir runs/alternating

Against `pretrain quickstart`, on 2 CPU cores. Cost and score: not measured.
"""

from bert_jax import config

experiment = config.override(config.load_page("quickstart").experiment, [
    "model.locality=alternating",
    "model.locality.every=2",
    "model.locality.size=8",
    "model.positions=rotary",
    "model.positions.base=160000"])
