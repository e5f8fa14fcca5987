"""Is a span harder to fill in, and a better lesson, than scattered tokens?

SpanBERT's masking (Joshi et al. 2020, 3.1): spans of words whose lengths are
geometric (p = 0.2, at most 10 words), up to the same 15% of the tokens. Its
other two parts, the span-boundary objective and single-sequence rows, are not
in it.

  bert-jax pretrain ablations/random_spans --workdir runs/spans

Against `pretrain quickstart`, on 2 CPU cores. Not measured. The held-out loss
is that of filling in spans: compare by a task, not by it.
"""

from bert_jax import config

experiment = config.override(config.load_page("quickstart").experiment,
                             ["objective.masking=span"])
