"""Paired differences against scipy, by hand, and in simulated studies."""

import math

import numpy as np
import pytest
import scipy.stats

from bert_jax.metrics import differences, multi_bootstrap
from bert_jax.metrics.multi_bootstrap import resample_items


def test_paired_difference_is_scipys_paired_t_test():
  base_S = np.array([4.1, 4.0, 4.3, 4.2, 4.05])
  arm_S = base_S - np.array([.02, .05, .01, .04, .03])
  result = differences.paired(base_S, arm_S)
  test = scipy.stats.ttest_rel(arm_S, base_S)
  interval = test.confidence_interval(.95)
  np.testing.assert_allclose(
      [result.seeds, result.mean, result.p, result.over_seeds.low,
       result.over_seeds.high],
      [5, -.03, test.pvalue, interval.low, interval.high])


def test_paired_difference_of_one_seed_or_of_equal_values_is_defined():
  alone = differences.paired(np.array([2.0]), np.array([1.5]))
  assert (alone.mean, math.isnan(alone.p), math.isnan(alone.over_seeds.low),
          math.isnan(alone.detectable), math.isnan(alone.seeds_needed)
          ) == (-.5, True, True, True, True)
  same = differences.paired(np.ones(3), np.ones(3))
  assert (same.mean, same.p, same.over_seeds.low, same.seeds_needed) == (
      0, 1, 0, math.inf)


def test_detectable_difference_is_seen_in_four_of_five_studies():
  # As G*Power has them, of a paired t test at 5%, two-sided.
  assert round(differences.detectable(1, 10), 3) == .996
  assert differences.seeds_needed(1, 1) == 10
  assert differences.seeds_needed(.5, 1) == 34
  for seeds in (3, 5):
    effect = differences.detectable(2, seeds)
    study = np.random.default_rng(0).normal(effect, 2, (20_000, seeds))
    seen = np.mean(scipy.stats.ttest_1samp(study, 0, axis=1).pvalue < .05)
    assert abs(seen - .8) < .01
  assert math.isfinite(differences.detectable(1, 2))
  assert differences.seeds_needed(1e13, 1) == 2
  assert differences.seeds_needed(1e-9, 1) == math.inf


def test_holm_adjusts_as_published():
  adjusted = differences.holm([.01, .04, math.nan, .03, .005])
  np.testing.assert_allclose(adjusted, [.03, .06, math.nan, .06, .02])


def test_components_are_those_of_an_analysis_of_variance():
  generator = np.random.default_rng(0)
  values_SR = generator.normal(size=(6, 1)) + generator.normal(
      scale=.3, size=(6, 4))
  parts = differences.components(values_SR)
  squares = lambda values: ((values - values_SR.mean()) ** 2).sum()
  rows, columns = (values_SR.mean(axis, keepdims=True) for axis in (1, 0))
  interaction = (squares(values_SR) - 4 * squares(rows)
                 - 6 * squares(columns)) / (5 * 3)
  np.testing.assert_allclose(parts.between_seeds**2, (
      4 * squares(rows) / 5 - interaction) / 4)
  # What a replicate does to all seeds alike does not hide their differences.
  many = generator.normal(scale=.5, size=(2000, 1)) + generator.normal(
      scale=2, size=(2000, 3))
  for shared in (np.zeros(3), np.array([5, 0, -5])):
    large = differences.components(many + shared)
    assert abs(large.between_seeds - .5) < .15
    assert abs(large.within_seeds**2 - 4 - shared.var(ddof=1)) < 1
  assert differences.components(values_SR[:, :1]) is None


def test_multi_bootstrap_draws_seeds_and_items_together():
  generator = np.random.default_rng(0)
  weights = generator.integers(1, 9, (1, 1, 12)).repeat(4, 0).astype(float)
  values = generator.normal(size=(2, 4, 1, 12)) + generator.normal(
      scale=5, size=12)  # of the items, the same in base and arm
  base, arm = (resample_items(v * weights, weights) for v in values)
  result = multi_bootstrap.percentiles(arm - base)
  means = []
  for _ in range(4000):
    seeds = generator.integers(4, size=4)
    items = generator.integers(12, size=12)
    score = [np.mean([np.average(v[s, 0, items], weights=weights[s, 0, items])
                      for s in seeds]) for v in values]
    means.append(score[1] - score[0])
  np.testing.assert_allclose([result.low, result.high],
                             np.quantile(means, [.025, .975]), atol=.04)
  np.testing.assert_allclose(
      (arm - base).values_S.mean(), np.mean([
          np.average(values[1, s, 0] - values[0, s, 0], weights=weights[s, 0])
          for s in range(4)]))


def test_multi_bootstrap_is_in_the_mean_over_replicates():
  totals = np.array([[[1., 3.], [3., 5.]]])
  scores = resample_items(totals, np.ones((1, 2, 2)))
  assert scores.values_S == [3.]
  assert set(np.unique(scores.draws)) == {2., 3., 4.}


@pytest.mark.parametrize("of_seeds, of_items", [(1, 0), (.1, 5)])
def test_intervals_cover_the_truth_in_simulated_studies(
    monkeypatch, of_seeds, of_items):
  """Of 3 seeds and 30 items, with the true difference 0."""
  monkeypatch.setattr(multi_bootstrap, "DRAWS", 300)
  generator = np.random.default_rng(0)
  covered = {"t": 0, "widened": 0, "percentiles": 0}
  for _ in range(400):
    totals = (of_seeds * generator.normal(size=(3, 1, 1))
              + of_items * generator.normal(size=30)
              + .5 * generator.normal(size=(3, 1, 30)))
    scores = resample_items(totals, np.ones_like(totals))
    for name, interval in {
        "t": differences.t_interval(scores.values_S)[0],
        "widened": multi_bootstrap.widened(scores),
        "percentiles": multi_bootstrap.percentiles(scores)}.items():
      covered[name] += not interval.excludes_zero()
  share = {name: count / 400 for name, count in covered.items()}
  assert .92 <= share["widened"] <= .98
  if of_items:  # The t interval is of these items alone.
    assert share["t"] < .7
  else:
    assert .92 <= share["t"] <= .98 and share["percentiles"] < .85
