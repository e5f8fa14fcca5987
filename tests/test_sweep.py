"""Members of a sweep equal separate runs, one on each device."""

import dataclasses
import functools
import json
import os
import re
import signal

import jax
import numpy as np
import pytest

from bert_jax import config
from bert_jax.checkpoints.reading import read_checkpoint
from bert_jax.cli import flags
from bert_jax.config import UserError
from bert_jax.data.batches import loader
from bert_jax.data.records.columns import Columns
from bert_jax.data.sources import TableData
from bert_jax.data.tokenizers.choices import WordPieceTokenizer
from bert_jax.experiment import Experiment
from bert_jax.interop import exporter
from bert_jax.objectives.classification import Classification
from bert_jax.objectives.mlm import Mlm
from bert_jax.runs import loop, record, train as train_lib
from bert_jax.studies.members import (
    layout as members, results as member_results, sweep)
from bert_jax.studies.members.layout import MemberProgram
from bert_jax.studies.members.results import Member, MemberResult
from bert_jax.studies.members.sweep import Sweep
from bert_jax.training.optimizers import AdamW
from bert_jax.training.schedules import LinearSchedule
from tests import small_run


@pytest.fixture(scope="module")
def experiment(folder) -> Experiment:
  return dataclasses.replace(
      small_run.pretraining(folder), objective=Classification(),
      data=TableData(length=32, examples_per_row=4,
                     train=str(folder / "train.tsv"),
                     evaluation=str(folder / "dev.tsv"),
                     columns=Columns(label="label"),
                     tokenizer=WordPieceTokenizer(vocab_size=60)),
      optimizer=AdamW(), schedule=LinearSchedule(1e-2, 0.5), steps=4,
      evaluate_every=2, save_every=100)


@pytest.fixture(scope="module")
def eight(experiment) -> Sweep:
  return Sweep(experiment, sweep.grid(experiment, 4, (1e-2, 1e-3)))


LEAST_LOSS = lambda scores: -scores["loss"]


@pytest.fixture(scope="module")
def ended(eight, folder) -> list[MemberResult]:
  """Results with parameters, which only `score_further` receives."""
  results = []
  eight.train(folder / "sweep", LEAST_LOSS,
              score_further=lambda result: results.append(result) or {})
  return results


def test_member_equals_the_run_by_itself(eight, ended, folder):
  outcome = ended[6]
  assert outcome.member == Member(2, 1e-3)
  solo = train_lib.train(eight.run_alone(outcome.member).experiment,
                         folder / "alone")
  assert outcome.step == 4
  assert outcome.scores == pytest.approx(solo.scores, rel=1e-5)
  jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=0,
                                 atol=1e-6), outcome.params, solo.params)


def test_best_member_can_be_exported(eight, ended, folder):
  best = max(ended, key=lambda outcome: LEAST_LOSS(outcome.scores))
  workdir = folder / "sweep" / "best"
  saved = read_checkpoint(workdir)
  jax.tree.map(np.testing.assert_array_equal, saved.params, best.params)
  experiment = saved.manifest.experiment
  assert best.member.configure(experiment) == experiment
  said = record.read(workdir)
  assert (said.state, said.seed, said.step, said.steps) == (
      "finished", best.member.seed, 4, 4)
  rows = eight.run_alone(best.member).prepared.train
  assert said.tokens == sum(
      np.count_nonzero(loader.batch(rows, 8, step)["example_ids"])
      for step in range(4))
  exporter.export(workdir, folder / "exported")
  card = (folder / "exported" / "README.md").read_text()
  assert "shared with other members" in card


def test_members_differ(ended):
  losses = {outcome.scores["loss"] for outcome in ended}
  assert len(losses) == 8


def test_members_on_separate_devices_do_not_communicate(eight):
  states = eight.first_states(eight.members)
  kernel = states.params["classifier"]["kernel"]
  assert [shard.data.shape[0] for shard in kernel.addressable_shards] == [1] * 8
  assert len({shard.device for shard in kernel.addressable_shards}) == 8
  seeds = [member.seed for member in eight.members]
  runner = eight.program.runner(
      eight.run, [member.numbers for member in eight.members])
  batch = runner.put(next(members.batches(eight.run, seeds, 0)))
  text = jax.jit(runner.step).lower(states, batch).compile().as_text()
  talk = r"(all-(reduce|gather|to-all)|reduce-scatter|collective|send|recv)"
  assert not re.search(rf"\b{talk}[a-z-]*\(", text)
  assert "fusion" in text


def test_diverged_member_is_reported_but_not_best(eight, ended, tmp_path,
                                                  monkeypatch):
  """A member that diverged is not the best, and JSON stays JSON."""
  lost = dataclasses.replace(ended[0], scores={
      name: float("nan") for name in ended[0].scores})
  better = dataclasses.replace(ended[1], scores=ended[1].scores | {"loss": 0.1})
  monkeypatch.setattr(eight, "train_group", lambda *_: [lost, better, ended[2]])
  monkeypatch.setattr(sweep, "Sweep", lambda *_: eight)
  report = sweep.run(eight.run.experiment, tmp_path, 2,
                     page=config.load_page("task"))
  assert f"Best by loss: {better.member}." in report and "nan" in report
  # Where it is the loss itself, it is said once.
  assert "classifier_loss" in report
  assert "classifier_loss" not in member_results.table(ended)
  saved = json.loads((tmp_path / "results.json").read_text(),
                    parse_constant=pytest.fail)["results"]
  assert [o["scores"]["loss"] for o in saved][:2] == [None, 0.1]
  assert read_checkpoint(tmp_path / "best").manifest.pages == [
      config.load_page("task").to_json()]
  # Finished members are reported again without training.
  monkeypatch.setattr(eight, "train_group", pytest.fail)
  assert sweep.run(eight.run.experiment, tmp_path, 2) == report


def test_killed_sweep_resumes_with_its_group(experiment, ended, tmp_path):
  four = sweep.grid(experiment, 2, (1e-2, 1e-3))

  def train(until: int, **options) -> list[Member]:
    """Trains until killed before member `until`; the members trained."""
    done = []

    def further(outcome: MemberResult) -> dict[str, float]:
      if len(done) == until:
        raise KeyboardInterrupt
      done.append(outcome.member)
      return {}

    Sweep(dataclasses.replace(experiment, **options), four, 2).train(
        tmp_path, LEAST_LOSS, score_further=further)
    return done

  with pytest.raises(KeyboardInterrupt):
    train(3)
  assert train(4) == four[2:]
  assert train(4) == []
  best = max((o for o in ended if o.member in four),
             key=lambda outcome: LEAST_LOSS(outcome.scores))
  jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=0,
                                 atol=1e-6),
               read_checkpoint(tmp_path / "best").params, best.params)
  with pytest.raises(UserError, match="of other options"):
    train(4, evaluate_every=4)


@pytest.mark.parametrize("options, counts", [
    ({}, [5, 5]), ({"best": "accuracy"}, [5, 2]),
    ({"best": "accuracy", "patience": 2}, [2, 2])],
    ids=["last", "best", "best until patience ends"])
def test_member_stops_by_its_own_patience(experiment, tmp_path, monkeypatch,
                                          options, counts):
  """A member that has stopped stays as it was; others continue."""
  seen = zip([0.5, 0.7, 0.7, 0.6, 0.9], [0.1, 0.9, 0.8, 0.8, 0.8])
  monkeypatch.setattr(MemberProgram, "evaluate", lambda *_: [
      {"accuracy": accuracy} for accuracy in next(seen)])
  two = Sweep(dataclasses.replace(experiment, steps=5, evaluate_every=1,
                                  **options),
              sweep.grid(experiment, 2, (1e-3,)), 2)
  results = two.train_group(two.members, tmp_path)
  assert [result.step for result in results] == counts


def test_sigterm_ends_a_sweep_before_its_group_is_done(experiment, tmp_path,
                                                     monkeypatch):
  evaluate = lambda *_: [{"accuracy": 0.5}] * 2

  def ask(*arguments):
    os.kill(os.getpid(), signal.SIGTERM)
    return evaluate(*arguments)

  two = Sweep(experiment, sweep.grid(experiment, 2, (1e-3,)), 2)
  monkeypatch.setattr(MemberProgram, "evaluate", ask)
  with pytest.raises(loop.Stopped, match="starts again with seed0_rate0.001"):
    two.train(tmp_path, lambda scores: scores["accuracy"])
  assert not list(tmp_path.rglob("results.json"))


@pytest.mark.parametrize("options, message", [
    ({"microbatches": 3}, "batch_size=8 cannot be split into 3"),
    ({"evaluation_batches": 1}, "evaluates on the full set"),
    ({"spike_deviations": 3.0}, "set spike_deviations=0.0"),
    ({"budget": "1min"}, "a sweep has no budget"),
    ({"objective": Mlm()}, "sweeps are for labeled tasks")])
def test_option_without_meaning_in_a_sweep_is_refused(experiment, options,
                                                      message):
  with pytest.raises(UserError, match=message):
    Sweep(dataclasses.replace(experiment, **options), [Member(0, 1e-3)])


def test_members_count_once(experiment):
  rates = flags.numbers("1e-3,1e-12,0.000000000001")
  with pytest.raises(UserError, match="seed0_rate1e-12 is given twice"):
    Sweep(experiment, sweep.grid(experiment, 2, rates))
  # Members that differ have folders that differ.
  assert str(Member(0, 1.0000001e-3)) != str(Member(0, 1e-3))
