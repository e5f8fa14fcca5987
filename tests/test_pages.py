"""The config pages: all can be built, the ablations do what they say."""

import dataclasses

import jax
import numpy as np
import pytest

from bert_jax import config
from bert_jax.analysis import describe
from bert_jax.experiment import Experiment
from bert_jax.metrics import weighted
from bert_jax.model.attention import DotProductAttention
from bert_jax.training.step import train_step
from tests import tiny

PAGES = sorted(str(p.relative_to(config.PAGES).with_suffix(""))
               for p in config.PAGES.rglob("*.py"))


@pytest.mark.parametrize("name", PAGES)
def test_every_page_says_what_it_is_and_can_be_written_down(name):
  page = config.load_page(name)
  assert "python -m bert_jax" in page.docstring or "tools/" in page.docstring
  changes = config.changes(Experiment(), page.experiment)
  assert config.override(Experiment(), changes) == page.experiment
  assert sum(describe.parameter_counts(page.experiment).values()) > 0


@pytest.mark.parametrize("name, millions", [
    ("tiny", 4.4), ("mini", 11.3), ("small", 29.1), ("medium", 41.7),
    ("base", 110.1), ("large", 335)])
def test_sizes_are_the_published_ones(name, millions):
  """google-research/bert's README and 1908.08962, table 1."""
  counts = describe.parameter_counts(config.load_page(name).experiment)
  published = sum(n for part, n in counts.items() if "mlm" not in part)
  assert published / 1e6 == pytest.approx(millions, rel=0.02)


def test_a_window_is_what_it_says():
  window = config.load_page("ablations/window_attention").experiment
  window = window.model.attention
  rng = np.random.default_rng(0)
  query, key, value = (rng.normal(size=(1, 12, 2, 4)).astype(np.float32)
                       for _ in range(3))
  ids = np.ones((1, 12), np.int32)
  attend = lambda choice, value: choice.attend(query, key, value, ids, ids, 0.0,
                                               None)
  narrow = dataclasses.replace(window, reach=2)
  changed = value.copy()
  changed[0, 6] += 1
  moved = np.abs(attend(narrow, changed) - attend(narrow, value)).max((0, 2, 3))
  assert (np.flatnonzero(moved) == [4, 5, 6, 7, 8]).all()
  np.testing.assert_allclose(
      attend(dataclasses.replace(window, reach=12), value),
      attend(DotProductAttention(), value), atol=1e-6)


def test_replaced_tokens_are_trained_on():
  objective = config.load_page("ablations/replaced_tokens").experiment.objective
  recipe = tiny.recipe(objective)
  batch = tiny.batch()
  keys_B = jax.random.split(jax.random.key(0), tiny.BATCH)
  corrupted = objective.corrupt(batch, keys_B, tiny.VOCABULARY)
  replaced_BL = np.asarray(corrupted["replaced"])
  np.testing.assert_array_equal(
      replaced_BL, corrupted["input_ids"] != batch["input_ids"])
  assert (batch["input_ids"][replaced_BL] >= 5).all()  # never special
  assert replaced_BL.sum() / (batch["input_ids"] >= 5).sum() == pytest.approx(
      objective.rate, abs=0.06)
  step = jax.jit(lambda state, batch: train_step(recipe, state, batch))
  state, losses = jax.jit(recipe.init)(np.int32(0), batch), []
  for _ in range(3):
    state, pairs = step(state, batch)
    losses.append(weighted.summarize(weighted.merge([pairs]))["loss"])
  assert losses == sorted(losses, reverse=True)
