"""Replays: the run's own batches and losses, and their complete text."""

import dataclasses
import functools
import json
import pathlib
import re
import shutil

import jax
import numpy as np
import pytest

from bert_jax.cli.main import main
from bert_jax.analysis import replay, replay_text
from bert_jax.config import UserError
from bert_jax.data.records.columns import Columns
from bert_jax.data.sources import TableData, TextData
from bert_jax.data.tokenizers.choices import WordPieceTokenizer
from bert_jax.experiment import Experiment, compose
from bert_jax.model.bert import BertConfig
from bert_jax.objectives.classification import Classification, Tagging
from bert_jax.data.pretraining.formats import OrderedPairsFormat
from bert_jax.objectives.causal import Causal
from bert_jax.objectives.denoising import Denoising
from bert_jax.objectives.mlm import Mlm, MlmNsp
from bert_jax.objectives.permutation import Permutation
from bert_jax.objectives.prefix import Prefix
from bert_jax.objectives.replaced_tokens import ReplacedTokens
from bert_jax.objectives.sentence_order import MlmSop
from bert_jax.objectives.regression import Regression
from bert_jax.reporting import jsonl
from bert_jax.runs import train
from bert_jax.runs.initialize import first_state
from bert_jax.training.optimizers import BertAdam
from bert_jax.training.schedules import ConstantSchedule
from bert_jax.training.step import row_losses, train_step
from tests import tiny
from tests.small_run import FirstDevices

WORDS = "red green blue tall short old new warm cold dark light soft".split()
MODEL = BertConfig(hidden_size=16, num_hidden_layers=1, num_attention_heads=2,
             intermediate_size=32, max_position_embeddings=32)


def pretraining(folder: pathlib.Path) -> Experiment:
  return Experiment(
      model=MODEL, objective=MlmNsp(),
      data=TextData(length=32, examples_per_row=2,
                    text=str(folder / "text.txt"),
                    tokenizer=WordPieceTokenizer(vocab_size=60),
                    held_out_percent=20.0),
      optimizer=BertAdam(), schedule=ConstantSchedule(1e-2, 0.0), steps=4,
      batch_size=8, layout=FirstDevices(), save_every=2, evaluate_every=4,
      evaluation_batches=1, log_every=1)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> pathlib.Path:
  """Text, labeled tables, and a run of four steps, saved after 2 and 4."""
  folder = tmp_path_factory.mktemp("replay")
  rng = np.random.default_rng(0)
  sentence = lambda: " ".join(rng.choice(WORDS, rng.integers(3, 8)))
  (folder / "text.txt").write_text("\n\n".join(
      "\n".join(f"{sentence()}." for _ in range(8)) for _ in range(60)) + "\n")
  lines = [f"{sentence()}\t{sentence()}\t{i % 2}" for i in range(60)]
  (folder / "table.tsv").write_text("a\tb\tlabel\n" + "\n".join(lines) + "\n")
  (folder / "tags.conll").write_text("\n\n".join("\n".join(
      f"{word} {'B-X' if word == 'red' else 'O'}"
      for word in sentence().split()) for _ in range(60)) + "\n")
  with pytest.MonkeyPatch.context() as patch:
    patch.setenv("BERT_JAX_CACHE", str(folder / "cache"))
    train.train(pretraining(folder), folder / "run")
  return folder


@pytest.fixture(autouse=True)
def cache(folder, monkeypatch):
  monkeypatch.setenv("BERT_JAX_CACHE", str(folder / "cache"))


@functools.cache
def replayed(folder: pathlib.Path, step: int) -> replay.Replay:
  return replay.replay(folder / "run", step)


def test_row_losses_sum_to_the_step():
  """The same masks and the same dropout, so the same losses."""
  recipe = tiny.recipe()
  batch = tiny.batch()
  state = jax.jit(recipe.init)(np.int32(3), batch).replace(step=np.int32(7))
  _, expected = jax.jit(functools.partial(train_step, recipe))(state, batch)
  _, pairs, each = jax.jit(functools.partial(row_losses, recipe))(state, batch)
  for name, (total_B, weight_B) in pairs.items():
    total, weight = expected[f"{name}_loss"]
    assert weight_B.sum() == weight
    np.testing.assert_allclose(total_B.sum(), total, rtol=1e-5)
  np.testing.assert_allclose(each["nsp"]["example_mask"].sum(-1),
                             pairs["nsp"][0], rtol=1e-5)


@pytest.mark.parametrize("step, origin", [
    (2, "the first ones, run on to step 1"), (3, "the checkpoint of step 2"),
    (4, "the checkpoint of step 2, run on to step 3")])
def test_replay_has_the_logged_loss(folder, step, origin):
  step_replay = replayed(folder, step)
  logged = [line for line in jsonl.read_jsonl(folder / "run/metrics.jsonl")
            if "train/loss" in line][step - 1]
  for name, mean in step_replay.means().items():
    assert mean == pytest.approx(logged[f"train/{name}"], rel=1e-5)
  assert step_replay.origin == origin
  assert f"metrics.jsonl: {logged['train/loss']:.6g}" in str(
      replay_text.text(step_replay, 1))


def test_nearest_params_give_another_loss_of_the_same_batch(folder):
  exact = replayed(folder, 4)
  nearest = replay.replay(folder / "run", 4, nearest=True)
  assert "where the run had those of step 3" in nearest.origin
  np.testing.assert_array_equal(exact.corrupted["input_ids"],
                                nearest.corrupted["input_ids"])
  assert abs(exact.means()["loss"] - nearest.means()["loss"]) > 1e-3


def test_skipped_step_only_advances_the_counter(folder, tmp_path):
  run = shutil.copytree(folder / "run", tmp_path / "run")
  (run / "skipped.json").write_text(json.dumps([1, 2]))
  step_replay = replay.replay(run, 2)
  replayed_run = step_replay.run
  state = jax.jit(replayed_run.recipe.init)(np.int32(0), replayed_run.row())
  _, pairs, _ = jax.jit(functools.partial(row_losses, step_replay.run.recipe))(
      state.replace(step=np.int32(1)), step_replay.batch)
  np.testing.assert_allclose(step_replay.pairs["mlm"][0], pairs["mlm"][0],
                             rtol=1e-5)
  assert "skipped its batch" in str(replay_text.text(step_replay, 1))


def test_text_shows_the_complete_batch(folder, capsys):
  """Outside the brackets is the batch; inside are the predicted tokens."""
  assert main(["replay", str(folder / "run"), "--step", "3", "--rows",
               "99"]) == 0
  header, *rows = capsys.readouterr().out.strip().split("\n\n")
  step_replay = replayed(folder, 3)
  assert header.startswith("Step 3 of 4: learning rate 0.01, loss ")
  losses = [float(re.search(r"loss ([\d.]+)", row)[1]) for row in rows]
  assert losses == sorted(losses, reverse=True) and len(rows) == 8
  tokenizer = step_replay.run.prepared.tokenizer
  seen = set()
  for row in rows:
    b = int(re.match(r"Row (\d+) of the batch \(epoch 0, row \d+\)", row)[1])
    first, *examples = row.split("\n")
    ids_L, example_ids_L = (step_replay.batch[key][b] for key in (
        "input_ids", "example_ids"))
    for e, line in enumerate(examples):
      label = step_replay.batch["next_sentence_labels"][b, e]
      head = re.match(r"  (next|random) \(nsp [\d.]+\): ", line)
      assert head[1] == ("next", "random")[label]
      line = line[head.end():]
      here_L = example_ids_L == e + 1
      brackets = re.findall(r"\[(\S+) (kept|-> \S+)\]\(([\d.]+)\)", line)
      seen |= {shown for _, shown, _ in brackets}
      positions_P = step_replay.corrupted["masked_positions"][b]
      weights_P = step_replay.corrupted["masked_weights"][b]
      assert len(brackets) == weights_P[here_L[positions_P]].sum()
      plain = re.sub(r"\[(\S+) (kept|-> \S+)\]\([\d.]+\)", r"\1", line)
      assert plain.replace(" | ", " ").split() == [
          piece for piece in tokenizer.tokens(ids_L[here_L])
          if piece not in ("[CLS]", "[SEP]")]
    total = sum(float(loss) for loss in re.findall(r"\]\(([\d.]+)\)", row))
    assert total == pytest.approx(step_replay.pairs["mlm"][0][b], abs=0.2)
  assert "-> MASK" in seen and len(seen) > 2


def task(folder: pathlib.Path, objective, **columns) -> Experiment:
  source = "tags.conll" if isinstance(objective, Tagging) else "table.tsv"
  return Experiment(
      model=MODEL, objective=objective, steps=1, batch_size=8,
      data=TableData(length=32, examples_per_row=2,
                     train=str(folder / source),
                     tokenizer=WordPieceTokenizer(vocab_size=60),
                     columns=Columns(label="label", **columns)))


@pytest.mark.parametrize("objective, columns, pattern", [
    (Classification(), {"text": "a", "pair": "b"},
     r"\n  [01] \(classifier [\d.]+\): \w+.* \| \w+"),
    (Regression(), {"text": "a"}, r"\n  [01] \(classifier [\d.]+\): \w+"),
    (Tagging(), {"text": "0"}, r" \S+/B-X( |\n)"),
    (Mlm(), {}, r"\n  (next|random): .*\[\S+ -> MASK\]\([\d.]+\)"),
    (ReplacedTokens(), {},
     r"\n  (next|random): .*\[\S+ -> (?!MASK)\S+\]\([\d.]+\)"),
    (Causal(), {}, r"\n  (next|random): \[\S+\]\([\d.]+\) (?!.*=>)"),
    (Prefix(), {}, r"\n  (next|random): \w+ [^(]*\| => \[\w+\]\([\d.]+\) "),
    (Permutation(), {}, r"\[\S+ turn 2\]\([\d.]+\)"),
    (Denoising(), {}, r" => .*\[MASK\] .*\[\w+\]\([\d.]+\)"),
    (MlmSop(), {}, r"\n  (in order|swapped) \(sop [\d.]+\): ")],
    ids=lambda x: getattr(x, "choice_name", ""))
def test_objective_has_a_text(folder, objective, columns, pattern):
  run = task(folder, objective, **columns) if columns else (
      dataclasses.replace(pretraining(folder), objective=Mlm()))
  if objective.pair_labels:
    run = dataclasses.replace(run, data=dataclasses.replace(
        run.data, format=OrderedPairsFormat()))
  # What the denoised text takes behind its row.
  run = compose(dataclasses.replace(run, objective=objective, model=(
      dataclasses.replace(MODEL, max_position_embeddings=64))))
  runner = FirstDevices().build(run.recipe, run.shape(), 8, run.row())
  text = str(replay_text.text(replay.look(
      run, runner, first_state(run, runner.shardings, None), 1), 8))
  assert re.search(pattern, text), text


def test_replay_of_other_steps_or_data_is_refused(folder, tmp_path):
  for step in (0, 5):
    with pytest.raises(UserError, match=f"--step {step}.* steps 1 to 4"):
      replay.replay(folder / "run", step)
  with pytest.raises(UserError, match="nothing of the run but its layout"):
    replay.replay(folder / "run", 1, overrides=["seed=3"])
  text = (folder / "text.txt").read_text()
  try:
    (folder / "text.txt").write_text(text + "\n\nred green.\nblue tall.\n" * 9)
    with pytest.raises(UserError, match="fingerprints differ"):
      replay.replay(folder / "run", 1)
  finally:
    (folder / "text.txt").write_text(text)
