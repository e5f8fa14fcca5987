"""Medians, deviations and intervals of seeds."""

import math

import pytest

from bert_jax.reporting.statistics import SeedStatistics


def test_interval_uses_students_t():
  # 4 +- 2.7764 (of 4 degrees of freedom) times 12.5 ** 0.5 / 5 ** 0.5.
  summary = SeedStatistics.of([4, 1, 10, 2, 3])
  assert (summary.count, summary.median, summary.mean) == (5, 3, 4)
  assert summary.deviation == pytest.approx(12.5 ** 0.5)
  assert (summary.low, summary.high) == pytest.approx((-0.390, 8.390), abs=1e-3)


def test_single_seed_has_no_deviation():
  summary = SeedStatistics.of([0.5])
  assert (summary.median, summary.mean) == (0.5, 0.5)
  assert math.isnan(summary.deviation) and math.isnan(summary.low)


def test_seed_without_a_score_gives_no_median():
  assert math.isnan(SeedStatistics.of([0.5, math.nan]).median)
