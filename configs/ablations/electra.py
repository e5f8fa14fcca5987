"""Is it enough to tell which tokens are wrong? ELECTRA (Clark et al. 2020).

A generator a fourth as wide fills in masked tokens, and the encoder judges of
every token whether it is the original.

  bert-jax pretrain ablations/electra --workdir runs/electra

Against `pretrain quickstart` by its task, on 2 CPU cores. Not measured.
"""

from bert_jax import config

experiment = config.override(config.load_page("quickstart").experiment,
                             ["objective=replaced_tokens"])
