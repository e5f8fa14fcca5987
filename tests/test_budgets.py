"""Budgets of tokens, FLOPs and time; checkpoints every few minutes."""

import dataclasses
import json

import numpy as np
import pytest

from bert_jax import config
from bert_jax.checkpoints.reading import read_manifests
from bert_jax.config import UserError
from bert_jax.data.batches import loader
from bert_jax.data.sources import TableData
from bert_jax.data.tokenizers.choices import WordPieceTokenizer
from bert_jax.experiment import compose, step_flops, workload
from bert_jax.objectives.classification import Classification
from bert_jax.runs import time_budget, train
from bert_jax.runs.clock import Clock
from bert_jax.studies import budgets
from bert_jax.training.param_paths import leaves
from tests.small_run import curve, pretraining, pull_the_plug


def test_budget_of_tokens_or_flops_sets_the_steps(folder):
  # Short examples, so that much of each row is padding.
  run = pretraining(
      folder, budget="2e3tokens", batch_size=4, objective=Classification(),
      data=TableData(length=32, examples_per_row=1,
                     tokenizer=WordPieceTokenizer(vocab_size=60),
                     train=str(folder / "train.tsv"),
                     evaluation=str(folder / "dev.tsv")))
  steps = compose(run).experiment.steps
  rows = compose(run).prepared.train
  tokens = sum(np.count_nonzero(loader.batch(rows, 4, step)["example_ids"])
               for step in range(steps))
  assert 0.9 * 2e3 < tokens < 1.1 * 2e3
  run = dataclasses.replace(compose(run).experiment, budget="1e9flops")
  each = workload(run).flops
  assert compose(run).experiment.steps == int(1e9 / each) > 1


def test_arms_get_the_same_of_the_unit_and_as_many_evaluations(
    folder, monkeypatch):
  experiment = config.override(
      pretraining(folder, steps=96, evaluate_every=24, save_every=48),
      ["model.intermediate_size=1024"])
  variant = config.override(experiment, [
      "objective=mlm", "data.format=full_sentences",
      "model.feed_forward=gated"])
  base, arm = compose(experiment), compose(variant)

  def tokens(run, steps):  # More than one epoch of both.
    return sum(
        np.count_nonzero(loader.batch(run.prepared.train, 8, i)["example_ids"])
        for i in range(steps))

  assert tokens(arm, 96) < 0.8 * tokens(base, 96) == 0.8 * budgets.tokens(base)
  equal = {unit: budgets.equalize(variant, arm, base, unit)
           for unit in ("tokens", "flops", "parameters")}
  assert tokens(arm, equal["tokens"].steps) == pytest.approx(
      tokens(base, 96), rel=0.01)
  assert equal["flops"].steps * step_flops(arm.experiment) == pytest.approx(
      96 * step_flops(base.experiment), rel=0.01)
  sizes = [sum(x.size for x in leaves(workload(config.override(
      one.experiment, [f"model.intermediate_size={width}"])).state.params
  ).values()) for one, width in (
      (base, 1024), (arm, 1024),
      (arm, equal["parameters"].model.intermediate_size))]
  assert sizes[1] > 1.3 * sizes[0]
  assert sizes[2] == pytest.approx(sizes[0], rel=0.01)
  assert equal["parameters"].steps == 96
  # Evaluations cost the same in all arms, as there are as many.
  monkeypatch.setattr(
      time_budget, "measure", lambda run, folder: time_budget.Costs(
          9.0, 0.2 if run is arm else 0.1, 7.0, 9.0))
  equal["seconds"] = budgets.equalize(variant, arm, base, "seconds")
  assert equal["seconds"].steps == 48
  for one in equal.values():
    # The last step is evaluated, too.
    assert -(-one.steps // one.evaluate_every) == 4
    assert -(-one.steps // one.save_every) == 2
  tiny = dataclasses.replace(base, experiment=config.override(
      base.experiment, ["model.hidden_size=8", "model.intermediate_size=8"]))
  with pytest.raises(UserError, match="no width comes closer"):
    budgets.equalize(variant, arm, tiny, "parameters")


@pytest.mark.parametrize("options, message", [
    (dict(budget="20 parsecs"), "budget=20 parsecs: a number and one of s, "),
    (dict(budget="1h", epochs=2.0), "one of them"),
    (dict(budget="10tokens"), "not enough: a step takes")])
def test_invalid_budget_is_explained(folder, options, message):
  with pytest.raises(UserError, match=message):
    compose(pretraining(folder, **options))


def test_clock_counts_earlier_processes():
  now = [100.0]
  clock = Clock(save_minutes=1.0, now=lambda: now[0])
  clock.load_state(50.0)
  clock.load_state(70.0)  # A rollback to a checkpoint of this process.
  clock.limit(150.0)
  now[0] += 59.0
  assert clock.used() == 109.0
  assert not clock.save_due() and not clock.should_stop()
  now[0] += 41.0
  assert clock.should_stop() and clock.save_due()
  clock.saved()
  assert not clock.save_due()


def test_budget_of_time_is_measured_once_and_kept(folder, tmp_path):
  run = pretraining(folder, budget="1h", save_every=5, evaluate_every=1000)
  pull_the_plug(run, tmp_path, 7)
  plan = json.loads((tmp_path / "budget.json").read_text())
  used = read_manifests(tmp_path)[5].progress.seconds
  assert used > 0
  with pytest.MonkeyPatch.context() as patch:
    # The clock itself is tested above.
    patch.setattr(Clock, "should_stop",
                  lambda clock: clock.used() > used + 1e-3)
    result = train.train(run, tmp_path)
  assert json.loads((tmp_path / "budget.json").read_text()) == plan
  assert result.run.experiment.steps == plan["steps"] > 7
  (last, manifest), = list(read_manifests(tmp_path).items())[-1:]
  assert last == 6 and manifest.progress.seconds > used
  assert curve(tmp_path)[-1]["step"] == 6
  assert "held_out/loss" in curve(tmp_path)[-1]
  assert not (tmp_path / "measured").exists()


def test_save_minutes_saves_by_time(folder, tmp_path):
  train.train(
      pretraining(folder, save_minutes=1e-9, save_every=100,
                  keep_checkpoints=9), tmp_path)
  assert list(read_manifests(tmp_path)) == [1, 2, 3, 4]
