"""Full disks and signals during a command, and resuming on other devices."""

import os
import pathlib
import signal
import subprocess
import sys
import textwrap
import time

import jax
import numpy as np
import pytest

from bert_jax import config
from bert_jax.analysis import predict
from bert_jax.checkpoints.reading import read_checkpoint
from bert_jax.parallel.layouts import MeshLayout, PmapLayout
from bert_jax.runs import train
from bert_jax.training.optimizers import Sgd
from tests import small_disk
from tests.small_run import (
    FirstDevices, curve, equal, other_settings, pretraining, pull_the_plug)

ROOT = pathlib.Path(__file__).parents[1]


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


def test_full_disk_keeps_earlier_checkpoints(folder, page, tmp_path):
  """Earlier checkpoints stay, and the run resumes on a disk with room."""
  disk, copy = tmp_path / "disk", tmp_path / "copy"
  # After the first checkpoint there is room for lines, not for another one.
  fill = (f"until [ -d {disk}/run/checkpoints/20 ]; do sleep .02; done; "
          f"cat /dev/zero > {disk}/rest; truncate -s -100K {disk}/rest")
  ended = subprocess.run(
      [*small_disk.prefix(disk, megabytes=4), "sh", "-c",
       f'({fill}) 2> /dev/null & "$@"; code=$?; rm {disk}/rest; '
       f'cp -r {disk} {copy}; exit $code', "sh",
       *command(page, disk / "run", "keep_checkpoints=1")],
      cwd=ROOT, capture_output=True, text=True)
  assert ended.returncode == 1, ended.stderr
  assert "No space left on device" in ended.stderr
  assert "Traceback" not in ended.stderr
  assert read_checkpoint(copy / "run").step == 20
  full = config.override(
      config.load_page(str(page)).experiment, ["keep_checkpoints=1"])
  train.train(full, copy / "run", page.read_text())
  assert read_checkpoint(copy / "run").step == 80


def test_read_only_workdir_is_explained(page, tmp_path):
  disk = tmp_path / "disk"
  ended = subprocess.run(
      [*small_disk.prefix(disk, megabytes=1, read_only=True),
       *command(page, disk / "run")], cwd=ROOT, capture_output=True, text=True)
  assert ended.returncode == 1
  assert f"{disk}/run cannot be written to: Read-only file" in ended.stderr
  assert "Traceback" not in ended.stderr


def test_sigterm_saves_and_the_run_resumes(page, tmp_path, capsys):
  """And not a bit depends on the environment that it was begun in."""
  process = subprocess.Popen(
      command(page, tmp_path / "run"), cwd=ROOT, stderr=subprocess.PIPE,
      text=True, env=os.environ | {
          "JAX_ENABLE_X64": "1", "JAX_DEFAULT_PRNG_IMPL": "rbg",
          "JAX_THREEFRY_PARTITIONABLE": "0", "JAX_RANDOM_SEED_OFFSET": "7",
          "PYTHONHASHSEED": "5", "LC_ALL": "C", "TZ": "Asia/Tokyo"})
  lines = tmp_path / "run" / "metrics.jsonl"
  while not lines.exists() or lines.read_text().count("\n") < 2:
    assert process.poll() is None, process.stderr.read()
    time.sleep(0.01)
  process.send_signal(signal.SIGTERM)
  _, printed = process.communicate(timeout=60)
  assert process.returncode == 128 + signal.SIGTERM, printed
  step = read_checkpoint(tmp_path / "run").step
  assert 12 <= step < 80 and f"saved at step {step} of 80" in printed
  source = page.read_text()
  run = config.load_page(str(page)).experiment
  resumed = train.train(run, tmp_path / "run", source)
  equal(resumed.params, train.train(run, tmp_path / "full", source).params)
  assert curve(tmp_path / "run") == curve(tmp_path / "full")
  assert "jax_random_seed_offset 0 (was 7)." in capsys.readouterr().err
  with other_settings():
    scores = predict.of_workdir(str(tmp_path / "run"))
  # On all devices, unlike the run: only sums are rounded otherwise.
  assert scores == pytest.approx(resumed.scores, rel=1e-6)


def test_run_resumes_on_other_devices(folder, tmp_path):
  """8 -> 4 -> 8 by pmap."""
  first, *runs, last = [
      pretraining(folder, steps=6, layout=layout, optimizer=Sgd())
      for layout in (MeshLayout(), FirstDevices(1, 4, 1, count=4),
                     PmapLayout())]
  for step, run in zip((3, 5), (first, *runs)):
    pull_the_plug(run, tmp_path / "moved", step)
  moved = train.train(last, tmp_path / "moved").params
  full = train.train(first, tmp_path / "full").params
  # Relative to the largest update, which is about 1 after clipping.
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6),
               *map(jax.device_get, (moved, full)))
  for a, b in zip(curve(tmp_path / "moved"), curve(tmp_path / "full"),
                  strict=True):
    assert a == pytest.approx(b, rel=1e-5)
