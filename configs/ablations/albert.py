"""What do layers lose that share their parameters? ALBERT.

Lan et al. 2020, tables 3 and 4: all layers shared, and embeddings of a quarter
of the width.

  bert-jax pretrain ablations/albert --workdir runs/albert

Against `pretrain quickstart`, on 2 CPU cores. Cost and score: not measured.
"""

from bert_jax import config

base = config.load_page("quickstart").experiment
experiment = config.override(base, [
    "model.stack=shared",
    f"model.embedding_size={base.model.hidden_size // 4}"])
