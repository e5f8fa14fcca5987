r"""Which of the changes since BERT are still needed, beside all the others?

The second page of studies/from_2018_to_today: the base has all of its changes,
and each arm takes one back. A change may help when it comes and be of no use in
the end, or the other way around.

  bert-jax ablate studies/leave_one_out --workdir runs/leave_one_out \
      --then code_words

12 arms of three seeds, each with the FLOPs of studies/bert_2018, on two CPU
cores.

Cost: 75 minutes of each of two cores (--members 3 --share 1/2, 2/2). Score, in
nats of mlm@1 with a fifth of the held-out documents, minus the base: without
the trapezoid +.74, no dropout +.47, rotary +.37, no NSP +.31, 30% masking +.21
(worse); without a gate -.22, Muon at Adam's rate -.19 (better); of pre-norm
+.02, no biases -.02, RMSNorm -.03 and b2 = .98 +.03 three seeds cannot tell.
"""

import dataclasses
import shlex
import sys

from bert_jax import config
from bert_jax.studies.arms import joined

walk = sys.modules[config.load_page("studies/from_2018_to_today").module]
bert_2018 = walk.experiment


def without(*names):
  """BERT with all of the changes but these."""
  return config.override(bert_2018, shlex.split(joined(
      words for name, words in switches.items() if name not in names)))


switches = walk.switches(bert_2018)
# The FLOPs of bert_2018, so that the base is the last arm of the other page.
experiment = config.override(without(), [
    "budget=8.1037e12flops", "evaluate_every=295", "save_every=295"])
study = dataclasses.replace(walk.study, cumulative=False, seeds=3, arms={
    f"without_{name}": shlex.join(config.changes(without(), without(name)))
    for name in switches})
