r"""Which of the changes since BERT help? One at a time, each kept.

From BERT as published (Devlin et al. 2019) to the recipe of today's encoders:
no next sentences and packed full sentences (RoBERTa: Liu et al. 2019), 30%
masking (Wettig et al. 2023), pre-norm (Xiong et al. 2020), no biases, gated
feed-forward (Shazeer 2020), rotary positions (Su et al. 2021), RMSNorm (Zhang
and Sennrich 2019), no dropout, a trapezoid of the learning rate (Zhai et al.
2022), AdamW with b2 = .98, Muon (Jordan et al. 2024). ModernBERT (Warner et al.
2024) is near it. Each arm has all changes up to its own.

  bert-jax ablate studies/from_2018_to_today --workdir runs/walk \
      --then code_words

12 arms of five seeds with the base's FLOPs, on two CPU cores. The feed-forward
of a gated layer has half as many parameters again, which takes steps from that
arm on. One learning rate serves all arms; `--tune` looks for that of each. On
an accelerator, studies/from_2018_to_today_base is the same at the size of
BERT-base.

Cost: 70 minutes of each of two cores (--members 5 --share 1/2, 2/2). Score, in
nats of mlm@1 with a fifth of the held-out documents, minus the arm before: no
NSP -.76, rotary -.44, 30% masking -.36, no dropout -.28 and the trapezoid -.22
help; a gate +.31, b2 = .98 +.20 and Muon at Adam's rate +.18 hurt; of pre-norm
+.05, no biases +.02 and RMSNorm +.05 five seeds cannot tell. All eleven at
once: -1.31 nats, and +.26 entity F1 on the code words (three seeds).
"""

from bert_jax import config
from bert_jax.studies.study import Study


def switches(experiment):
  """What each arm adds; another schedule keeps the learning rate."""
  schedule = experiment.schedule
  return {
      "no_nsp": "objective=mlm data.format=full_sentences "
                "data.examples_per_row=2",
      "mask30": "objective.masking.rate=0.3",
      "pre_norm": "model.norm_placement=pre",
      "no_biases": "model.use_bias=false model.norm.bias=false",
      "gated": "model.feed_forward=gated",
      "rotary": "model.positions=rotary",
      "rms_norm": "model.norm=rms",
      "no_dropout": "model.hidden_dropout_prob=0 "
                    "model.attention_probs_dropout_prob=0",
      "trapezoid": "schedule=trapezoid "
                   f"schedule.learning_rate={schedule.learning_rate} "
                   f"schedule.warmup_fraction={schedule.warmup_fraction}",
      "adamw_betas": "optimizer=adamw optimizer.b2=0.98",
      "muon": "optimizer=muon optimizer.weight_decay=0.01",
  }


experiment = config.load_page("studies/bert_2018").experiment
study = Study(arms=switches(experiment), cumulative=True, seeds=5,
              budget="flops", protocols=["mlm percent=20"])
