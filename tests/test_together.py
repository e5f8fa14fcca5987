"""Members of one program against runs by themselves."""

import dataclasses
import shutil
import types

import numpy as np
import pytest

from bert_jax import config
from bert_jax.checkpoints.reading import saved_steps
from bert_jax.experiment import Experiment
from bert_jax.objectives.mlm import Mlm
from bert_jax.runs import record, train
from bert_jax.runs.anomalies import AnomalyDetector, NonFiniteError
from bert_jax.runs.observers import Observers
from bert_jax.runs.step_log import StepLog
from bert_jax.studies.members import together
from bert_jax.studies.members.runs import Logs
from bert_jax.training.param_paths import leaves
from tests import small_run


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
  folder = tmp_path_factory.mktemp("together")
  small_run.write(folder)
  return folder


def members(folder) -> list[Experiment]:
  """Two that differ in the seed and in all numbers."""
  base = small_run.pretraining(folder, steps=4, objective=Mlm())
  return [config.override(base, words) for words in (
      ["schedule.learning_rate=1e-3"],
      ["seed=2", "objective.masking.rate=.4", "schedule.learning_rate=3e-4",
       "model.hidden_dropout_prob=0", "model.attention_probs_dropout_prob=.3",
       "objective.masking.mask_fraction=.5"])]


def test_members_are_what_they_are_by_themselves(folder, tmp_path, capsys):
  experiments = members(folder)
  observers = Observers(further_scores=lambda run: lambda params: {
      "sum": float(sum(np.abs(x).sum() for x in leaves(params).values()))})
  workdirs, alone = ([tmp_path / f"{name}{i}" for i in range(2)]
                     for name in ("member", "alone"))
  killed = dataclasses.replace(observers, on_step=_kill_at(3))
  with pytest.raises(small_run.Pulled):
    together.train_together(experiments, workdirs, None, [observers, killed])
  assert [max(saved_steps(workdir)) for workdir in workdirs] == [2, 2]
  # One of them is finished alone.
  shutil.copytree(workdirs[0], alone[0])
  results = together.train_together(experiments, workdirs, None,
                                    [observers] * 2)
  assert capsys.readouterr().err.count("resumes from step 2 of ") == 2
  for experiment, workdir, other, result in zip(
      experiments, workdirs, alone, results):
    expected = train.train(experiment, other, None, observers)
    assert result.scores == pytest.approx(expected.scores, rel=1e-5)
    for path, value in leaves(expected.params).items():
      np.testing.assert_allclose(leaves(result.params)[path], value,
                                 atol=1e-6, err_msg=path)
    for line, same in zip(*map(small_run.curve, (workdir, other)),
                          strict=True):
      assert line == pytest.approx(same, rel=1e-5, abs=1e-6)
    saved, same = map(record.read, (workdir, other))
    assert (saved.state, saved.step, saved.tokens, saved.data) == (
        "finished", same.step, same.tokens, same.data)


def _kill_at(at):
  def on_step(step):
    if step == at:
      raise small_run.Pulled

  return on_step


def test_members_that_diverge_end_and_the_others_continue(tmp_path):
  for name in ("diverging", "fine"):
    (tmp_path / name).mkdir()
  diverging, fine = (types.SimpleNamespace(error=None, log=StepLog(
      tmp_path / name, 4, 1, 8, AnomalyDetector(1, 0.0)))
                     for name in ("diverging", "fine"))
  logs, ones = Logs([diverging, fine]), np.ones(2)

  def step(number, skipped):
    logs.hold(number, {"example_ids": np.ones((2, 8, 32))}, {
        "loss": (2 * ones, ones), "skipped": (np.asarray(skipped), ones)})
    logs.flush()

  with diverging.log, fine.log:
    step(1, [0.0, 0.0])
    step(2, [1.0, 0.0])
    step(3, [0.0, 0.0])
    with pytest.raises(NonFiniteError):
      step(4, [0.0, 1.0])
  assert "steps 2 to 2" in str(diverging.error)
  assert "steps 4 to 4" in str(fine.error)
  assert [len(small_run.curve(tmp_path / name))
          for name in ("diverging", "fine")] == [1, 3]


def test_groups_have_one_program(folder):
  base, other = members(folder)
  deep = config.override(base, ["model.num_hidden_layers=2"])
  best = config.override(base, ["best=loss"])
  assert together.groups([base, deep, other, best]) == [[0, 2], [1], [3]]
  pattern = config.override(base, ["model.stack=pattern"])
  dropped = config.override(pattern, ["model.hidden_dropout_prob=0"])
  assert together.groups([pattern, dropped]) == [[0], [1]]
