"""Protocols that fine-tune: what they measure, and what is one ruler."""

import dataclasses
import json
import math
import types

import jax
import numpy as np
import pytest

from bert_jax.config import UserError
from bert_jax.data.labeled.tagging import TaggingSet
from bert_jax.data.labeled.texts import ClassificationSet, RegressionSet
from bert_jax.data.sources import CodeWordsData
from bert_jax.experiment import Experiment, compose
from bert_jax.model.bert import BertConfig
from bert_jax.studies.members.results import Member, MemberResult, save
from bert_jax.studies.members.sweep import Sweep
from bert_jax.studies.protocols import scored_runs, scores
from bert_jax.studies.protocols.base import Protocol
from bert_jax.studies.protocols.scores import Score
from bert_jax.studies.protocols.tasks import (
    CodeWordsProtocol, GlueProtocol, RteProtocol, Sst2Protocol, _GlueTask)
from tests import small_run

PAGE = '''"""Does "warm" occur in a text? Not measured."""

from bert_jax.data.records.columns import Columns
from bert_jax.data.sources import TableData
from bert_jax.experiment import Experiment
from bert_jax.objectives.classification import Classification
from bert_jax.training.adapters import Lora
from bert_jax.training.optimizers import AdamW
from bert_jax.training.schedules import LinearSchedule

experiment = Experiment(
    objective=Classification(), optimizer=AdamW(), adapter=Lora(),
    schedule=LinearSchedule(1e-2, 0.5), steps=3, batch_size=8, log_every=1,
    data=TableData(length=32, examples_per_row=4, train="{0}/train.tsv",
                   evaluation="{0}/dev.tsv", columns=Columns(label="label")))
'''


@pytest.mark.parametrize("labeled", [
    ClassificationSet(names=[""] * 40, texts_a=[""] * 40,
                      labels=np.arange(40) % 3 % 2, label_names=("a", "b")),
    TaggingSet(names=[""] * 40, words=[["w"] * 5] * 40,
               labels=[np.arange(i, i + 5) % 3 for i in range(40)],
               label_names=("B-X", "I-X", "O")),
    TaggingSet(names=[""] * 40, words=[["w"] * 5] * 40,
               labels=[np.arange(i, i + 5) % 3 for i in range(40)],
               label_names=("noun", "verb", "x"))],
    ids=["classes", "entities", "tags"])
def test_sums_over_examples_are_the_score(labeled):
  rng = np.random.default_rng(0)
  shape = (40, len(labeled.label_names))
  outputs = (list(rng.random((40, 5, 3))) if isinstance(labeled, TaggingSet)
             else rng.random(shape))
  official = labeled.scores(outputs)
  sums = {name: labeled.score_sums(name, outputs) for name in official}
  ratios = {name: both[0].sum() / both[1].sum()
            for name, both in sums.items() if both}
  assert labeled.deciding_score in ratios and len(ratios) > 0
  for name, value in ratios.items():
    assert sums[name][0].shape == sums[name][1].shape == (40,)
    assert value == pytest.approx(official[name], abs=1e-12)
  assert not sums.get("matthews")


def test_scores_that_are_no_ratio_have_no_sums():
  numbers = RegressionSet(names=["a"], texts_a=["a"], labels=np.ones(1))
  assert numbers.deciding_score == "pearson"
  assert numbers.score_sums("pearson", np.ones(1)) is None


def test_fingerprint_is_of_texts_and_labels():
  labeled = ClassificationSet(names=["x"], texts_a=["a"], labels=np.zeros(1),
                              label_names=("a", "b"))
  change = lambda **fields: dataclasses.replace(labeled, **fields).fingerprint()
  assert change(names=["elsewhere"]) == labeled.fingerprint()
  assert len({change(), change(texts_a=["b"]), change(labels=np.ones(1)),
              change(label_names=("b", "a"))}) == 4


def test_place_of_files_is_no_part_of_the_title(tmp_path):
  there = Protocol.parse(f"sst2@1 folder={tmp_path} rate=0.001")
  assert there.folder == str(tmp_path)
  assert there.title == "sst2@1 rate=0.001"
  with pytest.raises(UserError, match=f"no train.tsv and .* in {tmp_path}"):
    there.check()
  with pytest.raises(UserError, match="cola: no train.tsv"):
    GlueProtocol(folder=str(tmp_path)).check()


def test_rows_are_as_long_as_all_compared_networks_take():
  short, long = (Experiment(
      model=BertConfig(max_position_embeddings=n),
      data=CodeWordsData(length=16)) for n in (128, 512))
  assert RteProtocol().fit([short, long]).title == "rte@1 length=128"
  assert RteProtocol().fit([long]) == RteProtocol()
  task = CodeWordsProtocol().fit([short]).task(short)
  assert task.data.length == 64 and task.model.hidden_dropout_prob == 0.0
  assert Sst2Protocol().task(long).model.hidden_dropout_prob == 0.1


@pytest.fixture(scope="module")
def page(folder, tmp_path_factory) -> str:
  path = tmp_path_factory.mktemp("pages") / "my_task.py"
  path.write_text(PAGE.format(folder))
  return str(path)


def test_page_scores_a_run_once(folder, page, tmp_path, monkeypatch):
  run = compose(small_run.pretraining(folder))
  save(MemberResult(Member(0, 1e-2), 4, {}, 1.0, jax.tree.map(
      lambda x: np.full(x.shape, 0.1, x.dtype), run.shape().params)),
       run, tmp_path)
  protocol = Protocol.parse(f"{page} seeds=2")
  protocol.check()
  name, _, digest = protocol.title.removesuffix(" seeds=2").partition("@")
  assert name == "my_task.py" and Protocol.parse(f"{page}@{digest}")
  with pytest.raises(UserError, match=f"is of version {digest} here"):
    Protocol.parse(f"{page}@00000000")
  score, = scored_runs.score_run(tmp_path, [protocol]).values()
  assert score.measure == "accuracy" and not score.lower_is_better
  assert score.totals_RI.shape == score.weights_RI.shape == (2, 37)
  np.testing.assert_allclose(score.values_R, score.totals_RI.mean(1))
  # What was held out while it trained is what the items add up to.
  results = [json.loads(path.read_text())["results"] for path in sorted(
      tmp_path.glob("then/*/*/*/results.json"))]
  held_out = [r["scores"]["accuracy"] for group in results for r in group]
  np.testing.assert_allclose(score.values_R, held_out)
  assert not list(tmp_path.glob("then/**/checkpoints"))
  # Neither with its score nor without does anything train again.
  monkeypatch.setattr(Sweep, "train_group", pytest.fail)
  for path in tmp_path.glob("scores/*"):
    path.unlink()
  again, = scored_runs.score_run(tmp_path, [protocol]).values()
  assert scores.read(tmp_path)[protocol.title].checkpoint == score.checkpoint
  np.testing.assert_array_equal(again.totals_RI, score.totals_RI)


def test_diverged_finetuning_shows_in_the_score(page):
  outcome = {"measure": "entity_f1", "value": 0.5, "totals": [1, 0],
             "weights": [1, 1]}
  score = Protocol.parse(page).measured(
      [outcome, outcome | {"value": math.nan}], None, "data")
  np.testing.assert_array_equal(score.values_R, [0.5, math.nan])
  np.testing.assert_array_equal(np.isnan(score.totals_RI).all(1),
                                [False, True])
  assert math.isnan(score.value) and score.further == {"diverged": 1}


def test_page_may_be_for_longer_networks_than_the_default(folder, tmp_path):
  path = tmp_path / "long.py"
  path.write_text("from bert_jax.model.bert import BertConfig\n" + PAGE.format(
      folder).replace("length=32", "length=1024").replace(
          "steps=3", "steps=3, model=BertConfig(max_position_embeddings=1024)"))
  protocol = Protocol.parse(str(path))
  protocol.check()
  score = protocol.score(compose(small_run.pretraining(folder)), {}, tmp_path)
  assert "rows of 1024 tokens do not fit into model." in score.unscorable


@pytest.mark.parametrize("option, message", [
    ("best='loss'", "best=loss chooses a checkpoint"),
    ("from_scratch=True", "give every network the same score")])
def test_page_that_is_no_ruler_is_refused(tmp_path, option, message):
  path = tmp_path / "unfair.py"
  path.write_text(PAGE.format(".").replace("steps=3", f"steps=3, {option}"))
  with pytest.raises(UserError, match=message):
    Protocol.parse(str(path)).check()


def test_glue_is_the_mean_over_tasks_of_each_finetuning(monkeypatch):
  monkeypatch.setattr(_GlueTask, "score", lambda self, *_: Score(
      self.title, self.task_name, values_R=np.array(
          [1.0, 2.0] if self.task_name == "RTE" else [3.0, 8.0]),
      unscorable="no" if self.task_name == "CoLA" else ""))
  run = types.SimpleNamespace(experiment=Experiment())
  score = lambda *tasks: GlueProtocol(tasks=tasks).score(run, {}, None)
  np.testing.assert_array_equal(score("rte", "sst2").values_R, [2.0, 5.0])
  assert score("rte", "sst2").data != score("rte").data
  assert score("rte", "cola").unscorable == "cola: no"
  with pytest.raises(UserError, match="did you mean 'sst2'"):
    GlueProtocol(tasks=("sst",))
