"""run.json: what a run is, and how far."""

import dataclasses
import json
import shutil
import threading

import numpy as np
import pytest

from bert_jax import config
from bert_jax.config import UserError
from bert_jax.data.batches import loader
from bert_jax.experiment import Experiment, step_flops, workload
from bert_jax.runs import record, train
from bert_jax.runs.loop import Stopped
from bert_jax.runs.observers import Observers
from tests import small_run


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
  folder = tmp_path_factory.mktemp("record")
  small_run.write(folder)
  return folder


def test_record_counts_what_the_run_used_in_all_its_processes(
    folder, tmp_path, monkeypatch):
  monkeypatch.setattr(record, "step_flops", step_flops)
  experiment = small_run.pretraining(folder, steps=4)
  small_run.pull_the_plug(experiment, tmp_path, at=3)
  assert record.read(tmp_path).state == "failed"
  record.write(tmp_path, dataclasses.replace(
      record.read(tmp_path), state="running", started="2026-01-31T12:00:00"))
  result = train.train(experiment, tmp_path)
  saved, rows = record.read(tmp_path), result.run.prepared.train
  tokens = sum(np.count_nonzero(loader.batch(rows, 8, step)["example_ids"])
               for step in range(4))
  assert (saved.state, saved.step, saved.steps) == ("finished", 4, 4)
  assert saved.started == "2026-01-31T12:00:00" and saved.ended > saved.started
  assert saved.tokens == tokens and saved.seconds > 0
  assert saved.flops == 4 * workload(result.run.experiment).flops
  assert saved.parameters == sum(
      x.size for x in record.leaves(result.params).values())
  assert saved.data == rows.fingerprint
  assert config.override(type(experiment)(), saved.options).steps == 4
  assert len((tmp_path / "run.json").read_text()) < 5000


def test_flops_are_counted_beside_the_first_step(folder, tmp_path, monkeypatch):
  counted, steps = [], []

  def count(experiment):
    counted.append(threading.current_thread() is threading.main_thread())
    raise UserError("A matrix product in a while loop cannot be counted.")

  monkeypatch.setattr(record, "step_flops", count)
  train.train(small_run.pretraining(folder, steps=4), tmp_path,
              observers=Observers(steps.append))
  # Once, and not by who dispatches; that it fails is no reason to end.
  assert counted == [False] and steps == [1, 2, 3, 4]
  assert record.read(tmp_path).flops == 0


def test_record_says_how_a_run_ended(folder, tmp_path):
  experiment = small_run.pretraining(folder)

  def end(step):
    raise Stopped("Asked to end.")

  with pytest.raises(Stopped):
    train.train(experiment, tmp_path / "stopped", observers=Observers(end))
  stopped = record.read(tmp_path / "stopped")
  assert (stopped.state, stopped.message) == ("stopped", "Asked to end.")
  with pytest.raises(UserError):
    train.train(dataclasses.replace(experiment, best="nonsense"),
                tmp_path / "failed")
  failed = record.read(tmp_path / "failed")
  assert failed.state == "failed" and "nonsense" in failed.message


def test_refused_command_leaves_the_record_and_says_what_resumes(
    folder, tmp_path, capsys):
  experiment = small_run.pretraining(folder, steps=4)
  small_run.pull_the_plug(experiment, tmp_path, at=3)
  before = dataclasses.replace(record.read(tmp_path), command="bert-jax x")
  record.write(tmp_path, before)
  with pytest.raises(UserError, match="(?s)other options than.*as they were"
                     ".*log_every.*\n  bert-jax x$"):
    train.train(dataclasses.replace(experiment, seed=7), tmp_path)
  assert record.read(tmp_path) == before
  for say in ("resumes from step 2 of 4", "was finished before, at step 4"):
    train.train(experiment, tmp_path)
    assert capsys.readouterr().err.count(say) == 1


def test_why_a_run_failed_is_raised_where_no_record_can_be_written(tmp_path):
  with pytest.raises(ZeroDivisionError), record.Recorder(
      tmp_path / "run") as recorder:
    (tmp_path / "run").mkdir()
    recorder.begin(Experiment(), None)
    shutil.rmtree(tmp_path / "run")
    1 / 0


def test_record_holds_no_password(tmp_path):
  record.write(tmp_path, record.Record(
      command="bert-jax pretrain data.text=https://me:secret@host/a.txt",
      message="Not https://me:secret@host/a.txt.", page="# me@home: a/b"))
  assert "secret" not in (tmp_path / "run.json").read_text()
  saved = record.read(tmp_path)
  assert saved.command.endswith("data.text=https://...@host/a.txt")
  assert saved.page == "# me@home: a/b"


def test_damaged_record_is_an_error_that_names_it(tmp_path):
  assert record.read(tmp_path) is None
  for text in ("{", json.dumps({"no": "field"})):
    (tmp_path / "run.json").write_text(text)
    with pytest.raises(UserError, match="run.json cannot be read"):
      record.read(tmp_path)
    assert record.read_tolerantly(tmp_path) is None
