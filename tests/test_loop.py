"""End-to-end runs in real work directories."""

import dataclasses
import json
import pathlib

import jax
import numpy as np
import pytest

from bert_jax import config
from bert_jax.analysis import embed, predict
from bert_jax.checkpoints import reading as checkpoints
from bert_jax.checkpoints.manager import CheckpointManager
from bert_jax.config import UserError
from bert_jax.data.records.columns import Columns
from bert_jax.data.sources import GlueData, SquadData, TableData
from bert_jax.experiment import Experiment, compose
from bert_jax.metrics import selection
from bert_jax.objectives.classification import Classification, Tagging
from bert_jax.objectives.regression import Regression
from bert_jax.parallel import layouts
from bert_jax.parallel.layouts import MeshLayout, PmapLayout
from bert_jax.reporting import plots
from bert_jax.runs import initialize, train
from bert_jax.runs.evaluation import Evaluator
from bert_jax.runs.observers import Observers
from bert_jax.training.optimizers import AdamW
from bert_jax.training.schedules import ConstantSchedule, LinearSchedule
from bert_jax.training.step import TrainState
from tests.small_run import (
    WORDS, FirstDevices, curve, pretraining, pull_the_plug, stored)


@pytest.fixture(scope="module")
def pretrained(folder) -> pathlib.Path:
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(train, "plots", plots)  # Drawn, as for users.
    train.train(pretraining(folder), folder / "pretrained")
  return folder / "pretrained"


def table(folder: pathlib.Path, pretrained: pathlib.Path, objective,
          **options) -> Experiment:
  return dataclasses.replace(Experiment(
      model=checkpoints.read_checkpoint(pretrained).manifest.experiment.model,
      init_from=str(pretrained), objective=objective,
      data=TableData(length=32, examples_per_row=4,
                     train=str(folder / "train.tsv"),
                     evaluation=str(folder / "dev.tsv")),
      schedule=ConstantSchedule(3e-3, 0.1),
      optimizer=AdamW(), epochs=2.0, batch_size=8, layout=FirstDevices(),
      evaluate_every=1000, save_every=1000, log_every=1), **options)


@pytest.mark.parametrize("layout", [MeshLayout(), pytest.param(
    PmapLayout(), marks=pytest.mark.slow)], ids=["mesh", "pmap"])
def test_run_resumes_bit_for_bit(folder, tmp_path, layout, pretrained):
  """Bit for bit: parameters, optimizer and curve."""
  four = pretraining(folder, layout=layout, schedule=LinearSchedule(1e-2))
  full = train.train(four, tmp_path / "full")

  pull_the_plug(four, tmp_path / "parts", 3)
  parts = train.train(four, tmp_path / "parts")
  jax.tree.map(np.testing.assert_array_equal, parts.params, full.params)
  assert parts.scores == full.scores
  states = [stored(tmp_path / name, full.run) for name in ("full", "parts")]
  jax.tree.map(np.testing.assert_array_equal, *states)
  assert curve(tmp_path / "full") == curve(tmp_path / "parts")


def test_run_writes_its_curves(pretrained):
  steps = [line["step"] for line in curve(pretrained) if "train/loss" in line]
  assert steps == [1, 2, 3, 4]
  held_out = [line for line in curve(pretrained) if "held_out/loss" in line]
  assert [line["step"] for line in held_out] == [2, 4]
  assert {"held_out/perplexity", "held_out/bits_per_byte", "held_out/mlm_loss",
          "held_out/nsp_loss", "held_out/nsp_accuracy"} < set(held_out[0])
  last = held_out[-1]
  assert last["held_out/loss"] == pytest.approx(
      last["held_out/mlm_loss"] + last["held_out/nsp_loss"])
  assert (pretrained / "curves.png").stat().st_size > 10_000


def test_run_says_how_many_microbatches_were_chosen(folder, monkeypatch):
  run = compose(pretraining(folder))
  size = run.experiment.batch_size
  runner = lambda: run.experiment.layout.build(run.recipe, run.shape(), size,
                                               run.row())
  assert train.chosen(run, runner()) == []
  monkeypatch.setattr(layouts, "memory_limit", lambda devices: 1)
  note, = train.chosen(run, runner())
  assert f"in {size} microbatches, so that it fits" in note


def test_another_seed_in_the_same_workdir_is_refused(folder, pretrained):
  other = dataclasses.replace(pretraining(folder), seed=1)
  with pytest.raises(UserError, match="seed=1"):
    train.train(other, pretrained)


def test_scores_do_not_depend_on_the_batch_size(pretrained):
  first, second = (predict.of_workdir(str(pretrained), [f"batch_size={n}"])
                   for n in (8, 24))
  for name, value in first.items():
    assert second[name] == pytest.approx(value, rel=1e-5), name


def test_overrides_of_an_evaluation_are_used(pretrained):
  """What differs in what is evaluated is said."""

  def scores(*overrides: str) -> dict[str, float]:
    said = []
    values = predict.of_workdir(str(pretrained), overrides, said.append)
    assert [line.split(" (was ")[0] for text in said
            for line in text.splitlines()] == ([
                "differs from the run:", *(f"  {o}" for o in overrides)
            ] if overrides else [])
    return values

  plain, masked = scores(), scores("objective.masking.rate=0.5")
  assert masked["masked_fraction"] > 2 * plain["masked_fraction"]
  rounded = scores("model.dtype=bfloat16", "layout.count=2")
  assert rounded["loss"] != plain["loss"] == pytest.approx(
      rounded["loss"], rel=0.02)
  alone = scores("objective=mlm")
  assert "nsp_loss" not in alone and alone["mlm_loss"] == pytest.approx(
      plain["mlm_loss"])


@pytest.mark.parametrize("override, words", [
    ("optimizer=sgd", "the run is trained"), ("steps=7", "the run is trained"),
    ("seed=3", "the run is trained"),
    ("model.hidden_dropout_prob=0.5", "the run is trained"),
    ("model.remat=true", "the run is trained"),
    ("data.tokenizer.vocab_size=70", "the run is trained"),
    ("model.hidden_size=32", r"(60, 16) there, (60, 32) here"),
    ("model.positions=none", "(32, 16) there, nothing here"),
    ("objective=casual", "no such objective")])
def test_override_that_cannot_apply_is_refused(pretrained, override, words):
  with pytest.raises(UserError) as caught:
    predict.of_workdir(str(pretrained), [override])
  assert words in str(caught.value)


@pytest.mark.parametrize("objective, label, score, least, options, new", [
    (Classification(), "label", "accuracy", 0.9, [], "classifier"),
    (Regression(), "score", "pearson", 0.8,
     ["finetuning.reinitialize_pooler=true", "finetuning.layer_decay=.9"],
     "classifier, encoder/pooler"),
    # LoRA gains little on a network pretrained for four batches.
    (Classification(), "label", "matthews", 0.2,
     ["adapter=lora", "adapter.targets=.", "schedule.learning_rate=1e-2"],
     "classifier, the adapter")], ids=["classes", "numbers", "LoRA"])
def test_finetuning_learns_and_predicts(
    folder, tmp_path, pretrained, capsys, objective, label, score, least,
    options, new):
  experiment = table(folder, pretrained, objective, epochs=12.0)
  experiment = config.override(
      experiment, [f"data.columns.label={label}", *options])
  result = train.train(experiment, tmp_path / "run")
  note = " ".join(capsys.readouterr().err.split()).replace("- ", "-")
  assert f"of {pretrained}; newly initialized: {new}; not used: " in note
  assert result.scores[score] > least
  assert predict.of_workdir(str(tmp_path / "run")) == pytest.approx(
      result.scores)
  count = predict.predict_file(
      str(tmp_path / "run"), str(folder / "dev.tsv"),
      str(tmp_path / "out.tsv"))
  lines = (tmp_path / "out.tsv").read_text().splitlines()
  read = (folder / "dev.tsv").read_text().splitlines()
  assert count == 37 and len(lines) == len(read) == 38
  assert all(out.startswith(line) for out, line in zip(lines, read))
  if isinstance(objective, Classification):
    columns = [line.split("\t") for line in lines[1:]]
    right = np.mean([c[1] == c[3] for c in columns])
    assert right == pytest.approx(result.scores["accuracy"])
    assert [float(c[4]) + float(c[5]) for c in columns] == pytest.approx(
        [1.0] * 37, abs=1e-5)


@pytest.mark.parametrize("data", [
    TableData(columns=Columns(bad_records="skip")),
    SquadData(bad_records="skip"), GlueData()])
def test_predicting_skips_bad_records_only_where_asked_to(data):
  def choices(*overrides):
    return {value for option, value in config.options(predict.configure(
        Experiment(data=data), overrides)).items() if "bad_records" in option}

  assert choices() == {"error"}
  assert choices("data=table", "data.columns.bad_records=skip") == {"skip"}


def test_finetuning_starts_from_pretrained_params(pretrained):
  saved = checkpoints.read_checkpoint(pretrained)
  fresh = jax.tree.map(np.zeros_like, saved.params) | {
      "classifier": {"kernel": np.zeros((16, 2))}}
  params, missing = initialize.start_from(saved, fresh)
  assert missing == ["classifier/kernel"]
  jax.tree.map(np.testing.assert_array_equal, params["encoder"],
               saved.params["encoder"])
  wider = {"encoder": {"pooler": {"kernel": np.zeros((16, 99))}}}
  with pytest.raises(UserError, match=r"encoder/pooler/kernel .*\(16, 16\)"):
    initialize.start_from(saved, wider)


def test_tagging_predicts_a_tag_for_every_word(folder, tmp_path, pretrained):
  rng = np.random.default_rng(1)
  for name, count in (("train", 150), ("dev", 20)):
    (folder / f"{name}.conll").write_text("\n\n".join("\n".join(
        f"{word}\t{'B-HEAT' if word in ('warm', 'cold') else 'O'}"
        for word in rng.choice(WORDS, 6)) for _ in range(count)) + "\n")
  experiment = config.override(
      table(folder, pretrained, Tagging(), epochs=8.0),
      [f"data.train={folder}/train.conll", "data.columns.text=0",
       f"data.evaluation={folder}/dev.conll", "data.columns.label=1"])
  result = train.train(experiment, tmp_path / "run")
  assert result.scores["entity_f1"] > 0.9
  predict.predict_file(str(tmp_path / "run"), f"{folder}/dev.conll",
                       str(tmp_path / "out.jsonl"))
  lines = [json.loads(line)
           for line in (tmp_path / "out.jsonl").read_text().splitlines()]
  assert len(lines) == 20
  for line in lines:
    assert len(line["words"]) == len(line["predicted_tags"]) == 6
    assert all(0.5 < float(p) <= 1 for p in line["probabilities"])


def test_embeddings_equal_those_of_each_text_alone(pretrained):
  saved = checkpoints.read_checkpoint(pretrained)
  texts = ["red green", "old", "new warm cold dark light soft red"] * 4
  for pooling in ("mean", "cls", "pooled", "tokens"):
    together = embed.embed(saved, texts, pooling=pooling, layer=1)
    alone = embed.embed(saved, texts[2:3], pooling=pooling, layer=-1)[0]
    for copy in together[2::3]:
      np.testing.assert_allclose(copy, alone, atol=1e-6)
  with pytest.raises(UserError, match="layer 2"):
    embed.embed(saved, texts, layer=2)


def test_patience_ends_a_run_even_after_a_kill(folder, tmp_path,
                                               monkeypatch):
  """Evaluations after the last checkpoint are repeated and count once."""
  seen = [0.1, 0.5, 0.4, 0.5, 0.3, 0.9, 0.9, 0.9]
  now = [0]
  monkeypatch.setattr(Evaluator, "evaluate", lambda *_: {
      "mlm_accuracy": seen[now[0] - 1]})

  def on_step(step):
    now[0] = step
    if step == 5 and not (tmp_path / "killed").exists():
      (tmp_path / "killed").touch()
      raise KeyboardInterrupt

  run = pretraining(folder, steps=8, evaluate_every=1, save_every=3,
                    best="mlm_accuracy", patience=3)
  with pytest.raises(KeyboardInterrupt):
    train.train(run, tmp_path, observers=Observers(on_step))
  best = {"mlm_accuracy": 0.5}
  assert train.train(run, tmp_path,
                     observers=Observers(on_step)).scores == best
  assert checkpoints.read_checkpoint(tmp_path).step == 2
  lines = curve(tmp_path)
  assert [line["step"] for line in lines
          if "held_out/mlm_accuracy" in line] == [1, 2, 3, 4, 5]
  assert train.train(run, tmp_path).scores == best
  assert curve(tmp_path) == lines


def test_best_checkpoint_is_kept_and_read(tmp_path, pretrained):
  manifest = checkpoints.read_checkpoint(pretrained).manifest
  manifest = dataclasses.replace(
      manifest, changes=[*manifest.changes, "best=accuracy"])
  with CheckpointManager(tmp_path, keep_checkpoints=1, best="accuracy") as out:
    for step, accuracy in ((1, 0.2), (2, 0.9), (3, 0.5), (4, 0.4)):
      out.save(TrainState(np.int32(step), np.int32(0),
                          {"step": np.float32(step)}, {"m": np.zeros(1)}),
               manifest, {"accuracy": accuracy})
  best = checkpoints.read_checkpoint(tmp_path)
  assert best.step == 2 and best.params == {"step": 2.0}
  saved = {p.name for p in (tmp_path / "checkpoints").iterdir()
          if p.name.isdecimal()}
  assert saved == {"2", "4"}
  with CheckpointManager(tmp_path, keep_checkpoints=1, best="accuracy") as out:
    state = TrainState(np.int32(4), np.int32(0), {"step": np.float32(4)},
                       {"m": np.zeros(1)})
    for score, again in ((0.95, False), (0.95, True)):
      out.save(state, manifest, {"accuracy": score}, again=again)
      out.wait()
      best = checkpoints.read_checkpoint(tmp_path)
      assert best.step == (4 if again else 2)
  assert best.manifest.scores == {"accuracy": 0.95}
  # A tie does not replace the best checkpoint.
  with CheckpointManager(tmp_path, keep_checkpoints=1, best="accuracy") as out:
    for step, scores in ((5, {"accuracy": 0.95}), (6, {})):
      out.save(TrainState(np.int32(step), np.int32(0),
                          {"step": np.float32(step)}, {"m": np.zeros(1)}),
               manifest, scores)
  assert checkpoints.read_checkpoint(tmp_path).step == 4
  with (CheckpointManager(tmp_path, best="acuracy") as out,
        pytest.raises(UserError, match="did you mean 'accuracy'")):
    out.save(TrainState(np.int32(5), np.int32(0), {}, {}), manifest,
             {"accuracy": 0.5})


@pytest.mark.parametrize("metric, better", [
    ("accuracy", 0.6), ("mlm_loss", 0.4), ("perplexity", 0.4),
    ("bits_per_byte", 0.4)])
def test_rank_depends_on_the_metric(metric, better):
  better_rank, old, none = (selection.rank(metric, {metric: x})
                      for x in (better, 0.5, np.nan))
  assert better_rank > old > none


@pytest.mark.parametrize("options", [{"epochs": 0.0},
                                     {"evaluation_batches": 0}])
def test_experiment_without_steps_or_scores_is_refused(options):
  with pytest.raises(UserError, match="epochs=0.0: more|_batches=0: at least"):
    Experiment(**options)
