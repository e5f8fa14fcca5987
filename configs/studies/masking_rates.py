"""How much should be masked? Six rates, scored by one ruler.

Wettig et al. 2023 ("Should you mask 15% in masked language modeling?") train
BERT-large with an efficient recipe, and 40% is better than 15% by the tasks;
smaller networks do best at lower rates. Losses at rates of their own cannot be
compared, as more context is an easier task: all are scored by mlm@1, which
masks 15% of the tokens whatever the training did. Its percent=20 is a fifth of
the held-out documents.

  bert-jax ablate studies/masking_rates --workdir runs/masking_rates

Six arms of five seeds with equal steps, on two CPU cores. Rows have 32 tokens:
in 16, rates of 10% and 15% are both two tokens. No next sentences, pre-norm and
no dropout, as networks of today are trained.

Cost: 40 minutes of each of two cores (--members 3 --share 1/2, 2/2). Score, in
nats, of 10%: 5.49, 15%: 4.71, 20%: 4.19, 30%: 3.92, 40%: 3.76, 50%: 3.82. More
than 15% helps, and 40% has the lowest mean.
"""

from bert_jax import config
from bert_jax.studies.study import Study

experiment = config.override(
    config.load_page("studies/bert_2018").experiment,
    ["objective=mlm", "data.format=full_sentences", "data.examples_per_row=2",
     "data.length=32", "batch_size=64", "model.norm_placement=pre",
     "model.hidden_dropout_prob=0", "model.attention_probs_dropout_prob=0"])
study = Study(
    arms={f"mask{rate:.0%}".rstrip("%"): f"objective.masking.rate={rate}"
          for rate in (0.1, 0.2, 0.3, 0.4, 0.5)},
    seeds=5, protocols=["mlm percent=20"])
