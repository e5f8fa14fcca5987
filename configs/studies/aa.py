"""Are the intervals right? The base against itself, under other seeds (A/A).

A study without arms: every difference that is drawn between two groups of its
runs is chance, so that of the 95% intervals 5% should exclude zero. The report
says how many do, of each kind of interval and for several numbers of seeds.

  bert-jax ablate studies/aa --workdir runs/aa

The network of the quickstart, 300 steps, scored on a fifth of the held-out
documents.

Measured: of 1,000 pairings of groups of 3, 5 and 8 of these runs, 5.1%, 5.3%
and 4.4% of the t intervals over seeds exclude zero. Cost: not measured.
"""

from bert_jax import config
from bert_jax.studies.study import Study

experiment = config.override(config.load_page("quickstart").experiment, [
    "steps=300", "evaluate_every=150", "save_every=150"])
study = Study(seeds=24, protocols=("mlm percent=20",))
