"""The generator of dropout: uniform, and independent wherever it is asked."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from bert_jax.model import random_bits
from bert_jax.model.dropout import DropoutSite, dropout, fold_in
from bert_jax.training.step import row_keys

SIZE = 128
# Of a statistic that is normal where bits are random; a seed is fixed, so a
# test fails always or never.
LARGEST = 4.0


def words(keys_B: jax.Array) -> np.ndarray:
  """(B, SIZE, SIZE) words."""
  key = random_bits.Key(*(word[:, None]
                          for word in random_bits.of_keys(keys_B)))
  places = jnp.arange(SIZE)[None]
  return np.asarray(random_bits.join(
      random_bits.row_words(key, places)[..., None],
      random_bits.column_words(key, places)[:, None]))


def kept(keys_B: jax.Array, probability: float) -> np.ndarray:
  """Whether a word is within the bound, with mean 0 and variance 1."""
  inside = words(keys_B) <= np.asarray(random_bits.bound(probability))
  return (inside - probability) / np.sqrt(probability * (1 - probability))


def normal(products: np.ndarray) -> float:
  return float(products.mean() * np.sqrt(products.size))


KEYS = jax.random.split(jax.random.key(0), 64)


def test_each_byte_of_the_words_is_uniform():
  bits = words(KEYS).view(np.uint32)
  for shift in (16, 24):
    counts = np.bincount((bits >> shift & 255).ravel(), minlength=256)
    assert scipy.stats.chisquare(counts).pvalue > 1e-3


@pytest.mark.parametrize("probability", [0.5, 0.9, 0.999])
def test_words_within_the_bound_have_its_probability(probability):
  assert abs(normal(kept(KEYS, probability))) < LARGEST


def test_bound_of_one_keeps_everything():
  assert np.asarray(random_bits.bound(1.0)) == np.iinfo(np.int32).max


@pytest.mark.parametrize("probability", [0.5, 0.9])
def test_places_are_independent(probability):
  x = kept(KEYS, probability)
  for rows, columns in itertools.product((0, 1, 8, 64), repeat=2):
    if rows or columns:
      other = np.roll(x, (rows, columns), (1, 2))
      assert abs(normal(x * other)) < LARGEST, (rows, columns)


@pytest.mark.parametrize("probability", [0.5, 0.9])
def test_two_rows_and_two_columns_are_independent_together(probability):
  x = kept(KEYS, probability)
  pairs = SIZE * (SIZE - 1) / 2
  statistics = []
  for distance in range(1, 65):
    both = x * np.roll(x, distance, 1)
    # The sum over pairs of columns of the product of both.
    total = (both.sum(2)**2 - (both**2).sum(2)) / 2
    statistics.append(total.sum() / np.sqrt(pairs * total.size))
  assert abs(np.mean(statistics) * np.sqrt(len(statistics))) < LARGEST


def test_streams_are_independent():
  """Of heads, layers, sites, rows of a batch, steps, seeds."""
  base = jax.random.key(7)
  numbers = jnp.arange(16)
  steps = jax.vmap(lambda n: jax.random.fold_in(base, n))(numbers)
  rows = row_keys(base, numbers)
  layers = jax.vmap(lambda n: jax.random.fold_in(rows[0], n))(numbers)
  seeds = jax.vmap(jax.random.key)(numbers)
  sites = jnp.concatenate([fold_in(rows[:1], site) for site in DropoutSite])
  for keys_B in (steps, rows, layers, seeds, sites):
    x = kept(keys_B, 0.9)
    assert abs(normal(x)) < LARGEST
    for distance in (1, 2, 3):
      assert abs(normal(x * np.roll(x, distance, 0))) < LARGEST
  weights = dropout(jnp.ones((4, 16, SIZE, SIZE)), 0.1, rows[:4], 0)
  heads = (np.asarray(weights > 0) - 0.9) / 0.3
  for distance in (1, 2):
    assert abs(normal(heads * np.roll(heads, distance, 1))) < LARGEST
