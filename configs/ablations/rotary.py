"""Do queries and keys that turn replace learned positions? RoPE.

Su et al. 2021, 4.3: RoFormer pretrains faster than BERT.

  bert-jax pretrain ablations/rotary --workdir runs/rotary

Against `pretrain quickstart`, on 2 CPU cores. Cost and score: not measured.
"""

from bert_jax import config

experiment = config.override(config.load_page("quickstart").experiment, [
    "model.positions=rotary"])
