"""Medians, deviations and intervals of seeds."""

import math

import pytest

from bert_jax.reporting.statistics import SeedStatistics


def test_interval_is_students():
  # 4 +- 2.7764 (of 4 degrees of freedom) times 12.5 ** 0.5 / 5 ** 0.5.
  found = SeedStatistics.of([4, 1, 10, 2, 3])
  assert (found.count, found.median, found.mean) == (5, 3, 4)
  assert found.deviation == pytest.approx(12.5 ** 0.5)
  assert (found.low, found.high) == pytest.approx((-0.390, 8.390), abs=1e-3)


def test_of_one_seed_there_is_no_deviation():
  found = SeedStatistics.of([0.5])
  assert (found.median, found.mean) == (0.5, 0.5)
  assert math.isnan(found.deviation) and math.isnan(found.low)


def test_seed_without_a_score_leaves_none():
  assert math.isnan(SeedStatistics.of([0.5, math.nan]).median)
