"""How often the intervals of a study cover the truth, in simulated studies.

  python tools/coverage.py [--studies 1000]

An arm's differences from its base, of n seeds on 100 items, are the sum of what
its seeds, the items, and both together add; their true mean is 0. Prints the
share of 95% intervals that cover it. The t interval is of the same items only:
it need not cover where items add much.
"""

import argparse

import numpy as np

from bert_jax.metrics import differences, multi_bootstrap
from bert_jax.metrics.multi_bootstrap import resample_items
from bert_jax.reporting import markdown

ITEMS = 100
# Standard deviations: of seeds, of items, of both together.
SPREADS = {"seeds": (1, 0, 1), "both together": (0, 0, 10),
           "seeds and items": (1, 5, 5), "items": (.2, 10, 3)}
INTERVALS = {
    "t over seeds": lambda scores: differences.t_interval(scores.values_S)[0],
    "Multi-Bootstrap": multi_bootstrap.widened,
    "its percentiles": multi_bootstrap.percentiles}


def covered(seeds: int, spread: tuple[float, float, float],
            studies: int) -> list[float]:
  """The share of each of INTERVALS that contains 0."""
  generator, counts = np.random.default_rng(seeds), np.zeros(len(INTERVALS))
  of_seeds, of_items, of_both = spread
  for _ in range(studies):
    totals = (of_seeds * generator.normal(size=(seeds, 1, 1))
              + of_items * generator.normal(size=ITEMS)
              + of_both * generator.normal(size=(seeds, 1, ITEMS)))
    scores = resample_items(totals, np.ones_like(totals))
    counts += [not of(scores).excludes_zero() for of in INTERVALS.values()]
  return list(counts / studies)


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument("--studies", type=int, default=1000)
  studies = parser.parse_args().studies
  print(markdown.table(["what varies", "seeds", *INTERVALS], [
      [name, str(seeds), *(f"{100 * share:.1f}%" for share in covered(
          seeds, spread, studies))]
      for name, spread in SPREADS.items() for seeds in (3, 5, 10)]))


if __name__ == "__main__":
  main()
