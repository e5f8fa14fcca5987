"""Members of a sweep are the runs by themselves, one on each device."""

import dataclasses
import functools
import re

import jax
import numpy as np
import pytest

from bert_jax import checkpoint, loop, sweep
from bert_jax.config import UserError
from bert_jax.data.columns import Columns
from bert_jax.data.datasets import TableData
from bert_jax.data.tokenizers import WordPieceTokenizer
from bert_jax.experiment import Experiment
from bert_jax.objectives.tasks import Classification
from bert_jax.sweep import Member, Sweep
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
def outcomes(eight, folder) -> list[sweep.Outcome]:
  return eight.train(folder / "sweep")


def test_each_member_is_the_run_by_itself(eight, outcomes, folder):
  outcome = outcomes[6]
  assert outcome.member == Member(2, 1e-3)
  solo = loop.train(eight.of(outcome.member).experiment, folder / "alone")
  assert outcome.step == 4
  assert outcome.scores == pytest.approx(solo.scores, rel=1e-5)
  jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=0,
                                 atol=1e-6), outcome.params, solo.params)
  sweep.save(outcome, eight.of(outcome.member), folder / "member")
  saved = checkpoint.read(folder / "member")
  jax.tree.map(np.testing.assert_array_equal, saved.params, outcome.params)
  assert saved.facts.experiment.schedule.learning_rate == 1e-3


def test_members_differ(outcomes):
  losses = {outcome.scores["loss"] for outcome in outcomes}
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
