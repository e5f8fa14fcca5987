r"""What should a network be pretrained for? Eight objectives, by their tasks.

Masked tokens (Devlin et al. 2019) and spans of them (Joshi et al. 2020);
replaced tokens (Clark et al. 2020) that are random, or of a generator that
shares its embeddings or has its own; the next token (Radford et al. 2018), in a
prefix language model (Raffel et al. 2020), and left-out spans (the same).

Their losses measure different things, and only masked LMs are scored by mlm@1:
what is compared is what a network is good for after fine-tuning.

  bert-jax ablate studies/objectives --workdir runs/objectives \
      --then code_words

Eight arms of five seeds with the base's FLOPs, on two CPU cores. Not measured.
"""

from bert_jax import config
from bert_jax.studies.study import Study

experiment = config.override(
    config.load_page("studies/bert_2018").experiment,
    ["objective=mlm", "data.format=full_sentences", "data.examples_per_row=2",
     "data.length=32", "batch_size=64", "model.norm_placement=pre",
     "model.hidden_dropout_prob=0", "model.attention_probs_dropout_prob=0"])
study = Study(
    arms={"spans": "objective.masking=span",
          "replaced_random": "objective=replaced_tokens "
                             "objective.generator=random",
          "replaced_tied": "objective=replaced_tokens",
          "replaced_untied": "objective=replaced_tokens "
                             "objective.generator=untied",
          "causal": "objective=causal", "prefix": "objective=prefix",
          "denoising": "objective=denoising"},
    seeds=5, budget="flops", protocols=["mlm percent=20"])
