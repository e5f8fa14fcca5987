"""Non-finite steps and loss spikes."""

import dataclasses
import math

import numpy as np
import pytest

from bert_jax.checkpoints.manager import CheckpointManager
from bert_jax.checkpoints.reading import read_manifests
from bert_jax.config import UserError
from bert_jax.data.batches import loader
from bert_jax.experiment import compose
from bert_jax.metrics.weighted import Mean
from bert_jax.objectives.masking import WholeWordMasking
from bert_jax.objectives.mlm import Mlm
from bert_jax.runs import anomalies, evaluation, train
from tests import small_run
from tests.small_run import curve, equal, pretraining, pull_the_plug
from tests.tiny import Ill


def sums(experiment) -> np.ndarray:
  """The sums of the tokens of each step's rows, (X, B)."""
  rows = compose(experiment).prepared.train
  return np.stack([
      loader.batch(rows, experiment.batch_size, step)["input_ids"].sum(axis=1)
      for step in range(experiment.steps)])


def ill_steps(sums_XB: np.ndarray, divisor: int) -> list[int]:
  return [int(i) + 1 for i in np.flatnonzero(
      (sums_XB % divisor == 0).any(axis=1))]


def test_steps_without_weight_stop_a_run():
  full = {"mlm_loss": (7.0, 3.0), "nsp_loss": (1.0, 2.0), "skipped": (0., 1.)}
  empty = full | {"mlm_loss": (0.0, 0.0)}
  detector = lambda: anomalies.AnomalyDetector(3, deviations=0.0)
  with pytest.raises(anomalies.NonFiniteError,
                     match="mlm_loss had no weight in .* 1 to 1[.] .*unknown"):
    detector().update(1, empty)
  seen = detector()
  for step in (1, 2, 3, 4, 5, 6):  # A few in between are no error,
    seen.update(step, full if step in (1, 4) else empty)
  with pytest.raises(anomalies.NonFiniteError, match="steps 5 to 7"):
    seen.update(7, empty)
  assert seen.skipped == 0 and math.isfinite(seen.mean)  # nor ever in the mean.


def test_evaluation_without_weight_is_refused():
  sums = {"classifier_loss": Mean(0.0, 0.0), "batch_accuracy": Mean(0.0, 0.0)}
  with pytest.raises(UserError, match="classifier_loss of the evaluation has "
                     "no weight.*label missing"):
    evaluation.scores([evaluation.Outputs(sums)] * 2, None)


def test_masked_share_far_from_the_rate_is_said():
  objective = Mlm(WholeWordMasking(rate=0.15, initial_rate=0.3, rate_steps=9))
  remarks = [objective.remark({"masked_fraction": share})
             for share in (0.15, 0.3, 0.33, 0.08, 0.45)]
  assert remarks[:3] == [""] * 3 and objective.remark({}) == ""
  assert [remark[:5] for remark in remarks[3:]] == ["8.0% ", "45.0%"]


def test_non_finite_steps_are_skipped(folder, tmp_path):
  """The run equals one that never saw their batches."""
  run = pretraining(folder, objective=Ill(), steps=12, evaluate_every=12)
  ill = ill_steps(sums(run), 31)
  assert 1 <= len(ill) <= 6
  skipping = train.train(run, tmp_path / "skipping")
  (tmp_path / "other").mkdir()
  for step in ill:
    anomalies.skip_step(tmp_path / "other", step)
  equal(skipping.params, train.train(run, tmp_path / "other").params)
  lines = {line["step"]: line for line in curve(tmp_path / "skipping")
           if "held_out/loss" not in line}
  assert [s for s, line in lines.items() if "train/skipped" in line] == ill
  assert not any("train/skipped" in line for line in curve(tmp_path / "other"))


def test_too_many_non_finite_steps_stop_the_run(folder, tmp_path):
  run = pretraining(folder, objective=Ill(), steps=12, evaluate_every=12,
                    save_every=1, keep_checkpoints=12, max_nonfinite_steps=1)
  ill = ill_steps(sums(run), 31)
  for step in ill:
    with pytest.raises(anomalies.NonFiniteError, match=(
        f"steps {step} to {step} .*--step {step}`")) as error:
      train.train(run, tmp_path)
    saved = max(read_manifests(tmp_path))
    assert saved >= step and f"saved as step {saved}," in str(error.value)
    good = small_run.stored(tmp_path, compose(run), step - 1)
    equal(small_run.stored(tmp_path, compose(run), step).params, good.params)
  train.train(run, tmp_path)


def test_spike_rolls_back_and_skips_the_batch(folder, tmp_path, capsys):
  run = pretraining(folder, steps=75, save_every=20, evaluate_every=75)
  tokens = sums(run)
  divisor, ill = next(
      (divisor, ill) for divisor in range(211, 999, 2)
      if (ill := ill_steps(tokens, divisor)) and 62 < ill[0] < 70)
  run = dataclasses.replace(run, objective=Ill(divisor=divisor, times=1e3),
                            spike_deviations=20.0)
  # Losses from before the interruption count.
  pull_the_plug(run, tmp_path / "rolled", 61)
  rolled = train.train(run, tmp_path / "rolled")
  assert anomalies.skipped_steps(tmp_path / "rolled") == set(ill)
  assert f"at step {ill[0]}" in capsys.readouterr().err
  (tmp_path / "other").mkdir()
  for step in ill:
    anomalies.skip_step(tmp_path / "other", step)
  equal(rolled.params, train.train(run, tmp_path / "other").params)
  assert curve(tmp_path / "rolled") == curve(tmp_path / "other")


def test_repeated_spikes_stop_the_run(tmp_path):
  seen = anomalies.AnomalyDetector(max_nonfinite_steps=10, deviations=5.0)
  pairs = lambda loss: {"mlm_loss": (loss, 1.0), "skipped": (0.0, 1.0)}
  for step in range(1, 100):
    seen.update(step, pairs(1.0 + step % 2))
  with pytest.raises(anomalies.Spike, match="loss 9 at step 100"):
    seen.update(100, pairs(9.0))
  with CheckpointManager(tmp_path) as checkpoints:
    train._roll_back(tmp_path, checkpoints, anomalies.Spike(100, 9.0, 1.5), 1)
    with pytest.raises(anomalies.NonFiniteError,
                       match="step 101.* skipped already"):
      train._roll_back(tmp_path, checkpoints, anomalies.Spike(101, 9.0, 1.5), 1)
