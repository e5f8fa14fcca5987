"""Which of the changes since BERT are still needed, beside all the others?

The second page of from_2018_to_today.py: the base has all of its changes, and
each arm takes one back. A change may help when it comes and be of no use in the
end, or the other way around.

  python -m bert_jax ablate studies/leave_one_out --workdir runs/leave_one_out \
      --then code_words

12 arms of three seeds with the base's FLOPs, on two CPU cores.

Cost and score: not measured.
"""

import dataclasses
import sys

from bert_jax import config

walk = sys.modules[config.load_page("studies/from_2018_to_today").module]
bert_2018 = walk.experiment


def with_switches(names):
  """BERT with these of the changes."""
  return config.override(bert_2018, walk.words(names, bert_2018).split())


experiment = with_switches(walk.SWITCHES)
study = dataclasses.replace(walk.study, seeds=3, arms={
    f"without_{switch}": " ".join(config.changes(experiment, with_switches(
        [name for name in walk.SWITCHES if name != switch])))
    for switch in walk.SWITCHES})
