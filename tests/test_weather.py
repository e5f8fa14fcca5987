"""Bad weather: what a run does when something around it goes wrong."""

import dataclasses
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import textwrap
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bert_jax import config
from bert_jax.checkpoints import files as files_lib
from bert_jax.checkpoints import reading as checkpoints
from bert_jax.checkpoints.checksums import checksums
from bert_jax.checkpoints.manager import CheckpointManager
from bert_jax.checkpoints.reading import read_manifests
from bert_jax.config import UserError
from bert_jax.data.batches import loader
from bert_jax.data.sources import TableData
from bert_jax.data.tokenizers.choices import WordPieceTokenizer
from bert_jax.experiment import compose, workload
from bert_jax.objectives.classification import Classification
from bert_jax.objectives.mlm import Mlm
from bert_jax.parallel.layouts import MeshLayout, PmapLayout
from bert_jax.runs import anomalies, train
from bert_jax.runs.clock import Clock
from bert_jax.training.optimizers import BertAdam, Sgd
from tests import small_disk, small_run, tiny
from tests.small_run import curve, pretraining, pull_the_plug

ROOT = pathlib.Path(__file__).parents[1]


@dataclasses.dataclass(frozen=True)
class Ill(Mlm):
  """The loss of a batch grows by so many times for each row whose tokens' sum
  can be divided by `divisor`."""

  divisor: int = 31
  times: float = float("nan")

  def corrupt(self, batch, keys_B, vocabulary):
    ill_B = batch["input_ids"].sum(axis=1) % self.divisor == 0
    return super().corrupt(batch, keys_B, vocabulary) | {"ill": ill_B}

  def losses(self, logits, batch):
    more = jnp.sum(jnp.where(batch["ill"], self.times, 0.0))
    return {name: total + more * total
            for name, total in super().losses(logits, batch).items()}


def sums(experiment) -> np.ndarray:
  """Of the tokens of each step's rows."""
  rows = compose(experiment).prepared.train
  return np.stack([
      loader.batch(rows, experiment.batch_size, step)["input_ids"].sum(axis=1)
      for step in range(experiment.steps)])


def ill_steps(sums_XB: np.ndarray, divisor: int) -> list[int]:
  return [int(i) + 1 for i in np.flatnonzero(
      (sums_XB % divisor == 0).any(axis=1))]


def equal(a, b) -> None:
  jax.tree.map(np.testing.assert_array_equal, *map(jax.device_get, (a, b)))


# Steps that are not finite, and spikes.


@pytest.mark.parametrize("layout, microbatches", [
    (MeshLayout(8, 1, 1), 2), (MeshLayout(2, 2, 2), 1), (PmapLayout(), 2)],
    ids=["accumulation", "2 x 2 x 2", "pmap, accumulation"])
def test_a_step_that_is_not_finite_changes_nothing(layout, microbatches):
  """Where one row of the batch, of one device and microbatch, is ill."""
  batch = tiny.batch()
  sum_B = batch["input_ids"].sum(axis=1)
  alone = next(i for i, s in enumerate(sum_B) if (sum_B % s == 0).sum() == 1)
  recipe = tiny.recipe(Ill(divisor=int(sum_B[alone])), BertAdam(), microbatches)
  shape = jax.eval_shape(recipe.init, np.int32(0), batch)
  runner = layout.build(recipe, shape, tiny.BATCH, batch)
  first = jax.jit(recipe.init, out_shardings=runner.shardings)(
      np.int32(0), batch)
  before = jax.device_get(first)
  state, pairs = runner.step(first, runner.put(batch))
  after, pairs = jax.device_get(state), jax.device_get(pairs)
  equal((after.params, after.opt_state), (before.params, before.opt_state))
  assert int(after.step) == 1 and float(pairs["skipped"][0]) == 1
  assert not any(np.any(x) for name, pair in pairs.items()
                 if name != "skipped" for x in pair)
  well = {**batch, "input_ids": batch["input_ids"].copy()}
  well["input_ids"][alone, 1] += 1
  state, pairs = runner.step(state, runner.put(well))
  assert float(jax.device_get(pairs)["skipped"][0]) == 0
  moved = jax.tree.map(lambda a, b: bool(np.any(a != b)), before.params,
                       jax.device_get(state.params))
  assert all(jax.tree.leaves(moved)), moved


def test_steps_that_are_not_finite_are_left_out(folder, tmp_path):
  """As if their batches had been left out from the beginning."""
  run = pretraining(folder, objective=Ill(), steps=12, evaluate_every=12)
  ill = ill_steps(sums(run), 31)
  assert 1 <= len(ill) <= 6
  skipping = train.train(run, tmp_path / "skipping")
  (tmp_path / "other").mkdir()
  for step in ill:
    anomalies.skip_step(tmp_path / "other", step)
  equal(skipping.params, train.train(run, tmp_path / "other").params)
  lines = {line["step"]: line for line in curve(tmp_path / "skipping")
           if "train/learning_rate" in line}
  assert [s for s, line in lines.items() if "train/skipped" in line] == ill
  assert not any("train/skipped" in line for line in curve(tmp_path / "other"))


def test_too_many_of_them_stop_the_run(folder, tmp_path):
  run = pretraining(folder, objective=Ill(), steps=12, evaluate_every=12,
                    save_every=1, keep_checkpoints=12, max_nonfinite_steps=1)
  ill = ill_steps(sums(run), 31)
  for step in ill:
    with pytest.raises(anomalies.NonFiniteError, match=(
        f"steps {step} to {step} .*--step {step}`")) as told:
      train.train(run, tmp_path)
    saved = max(read_manifests(tmp_path))
    assert saved >= step and f"saved as step {saved}," in str(told.value)
    good = small_run.stored(tmp_path, compose(run), step - 1)
    equal(small_run.stored(tmp_path, compose(run), step).params, good.params)
  train.train(run, tmp_path)


def test_a_spike_rolls_back_and_leaves_the_batch_out(folder, tmp_path, capsys):
  run = pretraining(folder, steps=75, save_every=20, evaluate_every=75)
  tokens = sums(run)
  divisor, ill = next(
      (divisor, ill) for divisor in range(211, 999, 2)
      if (ill := ill_steps(tokens, divisor)) and 62 < ill[0] < 70)
  run = dataclasses.replace(run, objective=Ill(divisor=divisor, times=1e3),
                            spike_deviations=20.0)
  # What was seen before a stop counts.
  pull_the_plug(run, tmp_path / "rolled", 61)
  rolled = train.train(run, tmp_path / "rolled")
  assert anomalies.skipped_steps(tmp_path / "rolled") == set(ill)
  assert f"at step {ill[0]}" in capsys.readouterr().err
  (tmp_path / "other").mkdir()
  for step in ill:
    anomalies.skip_step(tmp_path / "other", step)
  equal(rolled.params, train.train(run, tmp_path / "other").params)
  assert curve(tmp_path / "rolled") == curve(tmp_path / "other")


def test_spikes_without_end_stop_the_run(tmp_path):
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


# Damaged checkpoints.


@pytest.fixture(scope="module")
def cut_off(folder, tmp_path_factory):
  """A run whose plug was pulled at step 5, with checkpoints of 2 and 4, and
  what it comes to when nothing happens."""
  folder_of_runs = tmp_path_factory.mktemp("cut_off")
  run = pretraining(folder, steps=6)
  pull_the_plug(run, folder_of_runs / "run", 5)
  return run, folder_of_runs / "run", train.train(
      run, folder_of_runs / "whole").params


def flip(item: pathlib.Path) -> None:
  """A bit in the middle of every file of data."""
  for path in [*item.rglob("d/*"), *item.glob("metadata")]:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 4
    path.write_bytes(data)


def truncate(item: pathlib.Path) -> None:
  for path in item.rglob("d/*"):
    os.truncate(path, path.stat().st_size // 2)


DAMAGES = {
    "bits of the parameters": lambda step: flip(step / "params"),
    "bits of the manifest": lambda step: flip(step / "manifest"),
    "truncated": lambda step: truncate(step / "optimizer"),
    "half written": lambda step: shutil.rmtree(step / "optimizer")}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_a_damaged_checkpoint_is_put_aside(cut_off, tmp_path, capsys, damage):
  run, begun, params = cut_off
  shutil.copytree(begun, tmp_path / "run")
  damage(tmp_path / "run" / "checkpoints" / "4")
  equal(train.train(run, tmp_path / "run").params, params)
  told = capsys.readouterr().err
  assert "damaged/4; resuming from step 2" in told
  assert (tmp_path / "run" / "damaged" / "4").is_dir()
  for step in (4, 6):
    found = small_run.stored(tmp_path / "run", compose(run), step)
    assert int(found.step) == step


def test_what_reads_other_than_it_was_written_is_damaged(cut_off, tmp_path,
                                                         capsys):
  """Though every file can be read."""
  run, begun, params = cut_off
  shutil.copytree(begun, tmp_path / "run")
  read = []

  def sums_of_other_bits(tree):
    read.append(tree)
    return {path: value ^ (len(read) == 1 and path.endswith("pooler/kernel"))
            for path, value in checksums(tree).items()}

  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(files_lib, "checksums", sums_of_other_bits)
    equal(train.train(run, tmp_path / "run").params, params)
  assert "damaged/4; resuming from step 2" in capsys.readouterr().err


def test_what_reads_a_run_passes_a_damaged_checkpoint_over(cut_off, tmp_path):
  run, begun, _ = cut_off
  shutil.copytree(begun, tmp_path / "run")
  flip(tmp_path / "run" / "checkpoints" / "4" / "params")
  with pytest.warns(UserWarning, match="step 4 is damaged"):
    assert checkpoints.read_checkpoint(tmp_path / "run").step == 2


def test_nothing_is_begun_anew_over_damaged_checkpoints(cut_off, tmp_path):
  run, begun, _ = cut_off
  shutil.copytree(begun, tmp_path / "run")
  folder = tmp_path / "run" / "checkpoints"
  for step in ("2", "4"):
    flip(folder / step / "params")
  before = files(folder)
  told = r"(?s)left as they are.*step 4: .*step 2"
  with pytest.raises(UserError, match=told):
    train.train(run, tmp_path / "run")
  assert files(folder) == before


# Another run, another page, another network.


def files(folder: pathlib.Path) -> dict[str, bytes]:
  return {str(p.relative_to(folder)): p.read_bytes()
          for p in folder.rglob("*") if p.is_file()}


@pytest.mark.parametrize("changed, told", [
    (lambda r: dataclasses.replace(r, seed=1), r"seed=1 \(was 0\)"),
    (lambda r: config.override(r, ["model.hidden_size=32"]),
     r"model.hidden_size=32 \(was 16\)"),
    (lambda r: config.override(r, ["objective=mlm"]),
     r"objective=mlm \(was mlm_nsp\)"),
    (lambda r: config.override(r, ["data.held_out_percent=50"]),
     r"data.held_out_percent=50.0 \(was 20.0\)")],
    ids=["seed", "size", "objective", "data"])
def test_another_run_in_the_same_place_is_refused(cut_off, changed, told):
  run, begun, _ = cut_off
  before = files(begun / "checkpoints")
  with pytest.raises(UserError, match=told):
    train.train(changed(run), begun)
  assert files(begun / "checkpoints") == before


def test_another_architecture_under_the_same_options(cut_off):
  run, begun, _ = cut_off
  wider = compose(config.override(run, ["model.hidden_size=32"]))
  told = (r"encoder/layers/attention/key/kernel: "
          r"\(1, 16, 2, 8\) there, \(1, 32, 2, 16\) here")
  with pytest.MonkeyPatch.context() as patch, pytest.raises(
      UserError, match=told):
    patch.setattr(files_lib, "check_same_run", lambda *_: None)
    small_run.stored(begun, wider)


PAGE = """
import dataclasses
from bert_jax.objectives.mlm import Mlm

# A word.
@dataclasses.dataclass(frozen=True)
class Scaled(Mlm):
  def losses(self, logits, batch):
    return {k: 2.0 * v for k, v in super().losses(logits, batch).items()}

experiment = None
"""


def test_a_changed_page_is_refused_but_for_its_words(folder, tmp_path):

  def of_page(page: str):
    config.run_page(page, "page")
    return config.override(pretraining(folder), ["objective=scaled"])

  pull_the_plug(of_page(PAGE), tmp_path, 3, PAGE)
  with pytest.raises(UserError, match=r"(?s)-.* 2.0 \* v.*\+.* 3.0 \* v"):
    other = PAGE.replace("2.0", "3.0")
    train.train(of_page(other), tmp_path, other)
  other = PAGE.replace("# A word.", "# Another.")
  train.train(of_page(other), tmp_path, other)


# Disks and signals, met by the command.


@pytest.fixture(scope="module")
def page(folder) -> pathlib.Path:
  path = folder / "page.py"
  path.write_text(textwrap.dedent(f"""
      import pathlib
      from tests.small_run import pretraining

      experiment = pretraining(pathlib.Path({str(folder)!r}), steps=80,
                               evaluate_every=40, save_every=20,
                               log_every=7)
      """))
  return path


def command(page: pathlib.Path, workdir: pathlib.Path, *more: str) -> list[str]:
  return [sys.executable, "-m", "bert_jax", "pretrain", str(page),
          "--workdir", str(workdir), *more]


def test_a_full_disk(folder, page, tmp_path):
  """What was saved before stays, and the run goes on where there is room."""
  disk, copy = tmp_path / "disk", tmp_path / "copy"
  # After the first checkpoint there is room for lines, not for another one.
  fill = (f"until [ -d {disk}/run/checkpoints/20 ]; do sleep .02; done; "
          f"cat /dev/zero > {disk}/rest; truncate -s -100K {disk}/rest")
  told = subprocess.run(
      [*small_disk.prefix(disk, megabytes=4), "sh", "-c",
       f'({fill}) 2> /dev/null & "$@"; code=$?; rm {disk}/rest; '
       f'cp -r {disk} {copy}; exit $code', "sh",
       *command(page, disk / "run", "keep_checkpoints=1")],
      cwd=ROOT, capture_output=True, text=True)
  assert told.returncode == 1, told.stderr
  assert "No space left on device" in told.stderr
  assert "Traceback" not in told.stderr
  assert checkpoints.read_checkpoint(copy / "run").step == 20
  whole = config.override(
      config.load_page(str(page)).experiment, ["keep_checkpoints=1"])
  train.train(whole, copy / "run", page.read_text())
  assert checkpoints.read_checkpoint(copy / "run").step == 80


def test_a_work_directory_that_cannot_be_written(page, tmp_path):
  disk = tmp_path / "disk"
  told = subprocess.run(
      [*small_disk.prefix(disk, megabytes=1, read_only=True),
       *command(page, disk / "run")], cwd=ROOT, capture_output=True, text=True)
  assert told.returncode == 1
  assert f"{disk}/run cannot be written to: Read-only file" in told.stderr
  assert "Traceback" not in told.stderr


def test_sigterm_saves_and_the_run_goes_on(page, tmp_path):
  process = subprocess.Popen(command(page, tmp_path / "run"), cwd=ROOT,
                             stderr=subprocess.PIPE, text=True)
  lines = tmp_path / "run" / "metrics.jsonl"
  while not lines.exists() or lines.read_text().count("\n") < 2:
    assert process.poll() is None, process.stderr.read()
    time.sleep(0.01)
  process.send_signal(signal.SIGTERM)
  _, told = process.communicate(timeout=60)
  assert process.returncode == 128 + signal.SIGTERM, told
  step = checkpoints.read_checkpoint(tmp_path / "run").step
  assert 12 <= step < 80 and f"saved at step {step} of 80" in told
  source = page.read_text()
  run = config.load_page(str(page)).experiment
  equal(train.train(run, tmp_path / "run", source).params,
        train.train(run, tmp_path / "whole", source).params)
  assert curve(tmp_path / "run") == curve(tmp_path / "whole")


# Other devices, and budgets.


@dataclasses.dataclass(frozen=True)
class FirstLayout(MeshLayout):
  """Over the first devices only."""

  count: int = 1

  def devices(self):
    return jax.devices()[:self.count]


def test_a_run_goes_on_on_other_devices(folder, tmp_path):
  """8 -> 4 -> 8 by pmap."""
  first, *runs, last = [
      pretraining(folder, steps=6, layout=layout, optimizer=Sgd())
      for layout in (MeshLayout(), FirstLayout(1, 4, 1, count=4),
                     PmapLayout())]
  for step, run in zip((3, 5), (first, *runs)):
    pull_the_plug(run, tmp_path / "moved", step)
  moved = train.train(last, tmp_path / "moved").params
  whole = train.train(first, tmp_path / "whole").params
  # As parts of the largest update, which clipping makes of the order of 1.
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6),
               *map(jax.device_get, (moved, whole)))
  for a, b in zip(curve(tmp_path / "moved"), curve(tmp_path / "whole"),
                  strict=True):
    assert a == pytest.approx(b, rel=1e-5)


def test_budgets_of_tokens_and_flops(folder):
  # Of short examples, so that much of a row is padding.
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


@pytest.mark.parametrize("options, told", [
    (dict(budget="20 parsecs"), "budget=20 parsecs: a number and one of s, "),
    (dict(budget="1h", epochs=2.0), "one of them"),
    (dict(budget="10tokens"), "not enough: a step takes")])
def test_budgets_that_are_none(folder, options, told):
  with pytest.raises(UserError, match=told):
    compose(pretraining(folder, **options))


def test_a_clock_counts_what_was_used_before():
  now = [100.0]
  clock = Clock(save_minutes=1.0, now=lambda: now[0])
  clock.load_state(50.0)
  clock.load_state(70.0)  # A roll back, to a checkpoint of this process.
  clock.limit(150.0)
  now[0] += 59.0
  assert clock.used() == 109.0
  assert not clock.save_due() and not clock.should_stop()
  now[0] += 41.0
  assert clock.should_stop() and clock.save_due()
  clock.saved()
  assert not clock.save_due()


def test_a_budget_of_time_is_measured_once_and_kept(folder, tmp_path):
  run = pretraining(folder, budget="1h", save_every=5, evaluate_every=1000)
  pull_the_plug(run, tmp_path, 7)
  plan = json.loads((tmp_path / "budget.json").read_text())
  used = read_manifests(tmp_path)[5].progress.seconds
  assert used > 0
  with pytest.MonkeyPatch.context() as patch:
    # Whether there is time left is the clock's matter, see above.
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


def test_saves_by_the_minute(folder, tmp_path):
  train.train(
      pretraining(folder, save_minutes=1e-9, save_every=100,
                  keep_checkpoints=9), tmp_path)
  assert list(read_manifests(tmp_path)) == [1, 2, 3, 4]
