"""Members of a sweep are the runs by themselves, one on each device."""

import dataclasses
import functools
import json
import re

import jax
import numpy as np
import pytest

from bert_jax import checkpoint, loop, outcomes, sweep
from bert_jax.config import UserError
from bert_jax.data.columns import Columns
from bert_jax.data.datasets import TableData
from bert_jax.data.tokenizers import WordPieceTokenizer
from bert_jax.experiment import Experiment
from bert_jax.interop import exporting
from bert_jax.objectives.mlm import Mlm
from bert_jax.objectives.tasks import Classification
from bert_jax.outcomes import Kept, Member, Outcome
from bert_jax.sweep import Sweep
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


@pytest.fixture(scope="module")
def ended(eight, folder) -> list[Outcome]:
  return eight.train(folder / "sweep")


def test_each_member_is_the_run_by_itself(eight, ended, folder):
  outcome = ended[6]
  assert outcome.member == Member(2, 1e-3)
  solo = loop.train(eight.of(outcome.member).experiment, folder / "alone")
  assert outcome.step == 4
  assert outcome.scores == pytest.approx(solo.scores, rel=1e-5)
  jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=0,
                                 atol=1e-6), outcome.params, solo.params)
  outcomes.save(outcome, eight.of(outcome.member), folder / "member")
  saved = checkpoint.read(folder / "member")
  jax.tree.map(np.testing.assert_array_equal, saved.params, outcome.params)
  assert saved.facts.experiment.schedule.learning_rate == 1e-3
  exporting.export(folder / "member", folder / "exported", exporting.Told())
  card = (folder / "exported" / "README.md").read_text()
  assert "shared with other members of a sweep" in card


def test_members_differ(ended):
  losses = {outcome.scores["loss"] for outcome in ended}
  assert len(losses) == 8


def test_eight_members_on_eight_devices_do_not_talk(eight):
  states = eight._first(eight.members)
  kernel = states.params["classifier"]["kernel"]
  assert [shard.data.shape[0] for shard in kernel.addressable_shards] == [1] * 8
  assert len({shard.device for shard in kernel.addressable_shards}) == 8
  batches = next(eight._batches(eight.members))
  text = eight._step.lower(
      states, eight._spread([np.float32(1e-3)] * 8), eight._spread(batches)
  ).compile().as_text()
  talk = r"(all-(reduce|gather|to-all)|reduce-scatter|collective|send|recv)"
  assert not re.search(rf"\b{talk}[a-z-]*\(", text)
  assert "fusion" in text


def test_what_became_of_all_is_told(eight, ended, tmp_path, monkeypatch):
  """A member that diverged is not the best, and JSON stays JSON."""
  lost = dataclasses.replace(ended[0], scores={
      name: float("nan") for name in ended[0].scores})
  better = dataclasses.replace(ended[1], scores=ended[1].scores | {"loss": 0.1})
  monkeypatch.setattr(eight, "train", lambda workdir: [lost, better, ended[2]])
  monkeypatch.setattr(sweep, "Sweep", lambda *_: eight)
  again = lambda: sweep.run(eight.run.experiment, tmp_path, 2,
                            page="experiment = 1")
  told = again()
  assert f"Best by loss: {better.member}." in told and "nan" in told
  kept = json.loads((tmp_path / "outcomes.json").read_text(),
                    parse_constant=pytest.fail)
  assert [o["scores"]["loss"] for o in kept][:2] == [None, 0.1]
  assert checkpoint.read(tmp_path / "best").facts.page == "experiment = 1"
  with pytest.raises(UserError, match="outcomes.json tells of a sweep"):
    again()
  # After a kill before that file was written, what was best then goes.
  (tmp_path / "outcomes.json").unlink()
  better = dataclasses.replace(better, step=3, member=ended[3].member)
  again()
  assert checkpoint.read(tmp_path / "best").step == 3


def test_the_best_until_patience_is_over_counts(experiment):
  member = Member(0, 1e-3)
  seen = [0.5, 0.7, 0.7, 0.6, 0.9]

  def outcome(**options) -> Outcome:
    kept = Kept(member, dataclasses.replace(experiment, **options))
    for step, accuracy in enumerate(seen, 1):
      kept.see(step, {"accuracy": accuracy}, None, lambda: step, 1.0,
               last=step == len(seen))
    return kept.outcome

  assert outcome().step == outcome(best="accuracy").step == 5
  found = outcome(best="accuracy", patience=2)
  assert (found.step, found.params) == (2, 2)


@pytest.mark.parametrize("options, told", [
    ({"microbatches": 3}, "batch_size=8 cannot be split into 3"),
    ({"evaluation_batches": 1}, "evaluates on the whole set"),
    ({"spike_deviations": 3.0}, "set spike_deviations=0.0"),
    ({"budget": "1min"}, "a sweep has no budget"),
    ({"objective": Mlm()}, "sweeps are for labelled tasks")])
def test_what_no_sweep_does_is_told(experiment, options, told):
  with pytest.raises(UserError, match=told):
    Sweep(dataclasses.replace(experiment, **options), [Member(0, 1e-3)])
