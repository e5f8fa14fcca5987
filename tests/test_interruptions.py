"""Full disks and signals during a command, and resuming on other devices."""

import concurrent.futures
import contextlib
import gc
import os
import pathlib
import re
import signal
import subprocess
import sys
import textwrap
import threading
import time
import types

import jax
import numpy as np
import pytest

from bert_jax import config
from bert_jax.analysis import predict
from bert_jax.checkpoints import owner as owner_lib
from bert_jax.checkpoints.owner import Owner
from bert_jax.checkpoints.reading import read_checkpoint
from bert_jax.cli import main as cli
from bert_jax.config import UserError
from bert_jax.interop import importer
from bert_jax.parallel.layouts import PmapLayout
from bert_jax.runs import loop, train
from bert_jax.runs.signals import stop_requests
from bert_jax.studies.members.sweep import Sweep
from bert_jax.training.optimizers import Sgd
from tests import small_disk
from tests.small_run import (
    FirstDevices, curve, equal, other_settings, pretraining, pull_the_plug)

ROOT = pathlib.Path(__file__).parents[1]


@pytest.fixture(autouse=True)
def interrupts():
  """Heard: a suite in the background of a shell ignores them."""
  before = signal.signal(signal.SIGINT, signal.default_int_handler)
  yield
  signal.signal(signal.SIGINT, before)


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


@pytest.mark.slow
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
  train.train(full, copy / "run", config.load_page(str(page)))
  assert read_checkpoint(copy / "run").step == 80


def test_read_only_workdir_is_explained(page, tmp_path):
  disk = tmp_path / "disk"
  ended = subprocess.run(
      [*small_disk.prefix(disk, megabytes=1, read_only=True),
       *command(page, disk / "run")], cwd=ROOT, capture_output=True, text=True)
  assert ended.returncode == 1
  assert f"{disk}/run cannot be written to: Read-only file" in ended.stderr
  assert "Traceback" not in ended.stderr


OWNER = """
import pathlib, sys, time
from bert_jax.checkpoints import owner
with owner.Owner(pathlib.Path(sys.argv[1])) as one:
  one.take()
  print("taken", flush=True)
  time.sleep(1000)
"""


@pytest.fixture
def owner(tmp_path):
  """Another process that owns a work directory."""
  workdir = tmp_path / "run"
  with subprocess.Popen([sys.executable, "-c", OWNER, str(workdir)], cwd=ROOT,
                        stdout=subprocess.PIPE, text=True) as process:
    assert process.stdout.readline() == "taken\n"
    yield workdir, process
    process.kill()


def test_work_directory_has_one_owner(owner, folder):
  """Whoever writes there is refused, until the owner is dead."""
  workdir, process = owner
  refusal = f"{workdir} is in use by process {process.pid} on .* since 20"
  for write in (
      lambda: train.train(pretraining(folder), workdir),
      lambda: Sweep.train(None, workdir, len),
      lambda: importer.save(None, workdir)):
    with pytest.raises(UserError, match=refusal):
      write()
  assert os.listdir(workdir) == ["owner"]
  process.kill()
  process.wait()
  begun = time.monotonic()
  with Owner(workdir) as taken:
    taken.take()
    with pytest.raises(UserError, match=f"process {os.getpid()} "):
      Owner(workdir).take()
  assert time.monotonic() - begun < 5 and not os.listdir(workdir)


@pytest.mark.parametrize("alive", [True, False])
def test_owner_on_another_host_is_judged_by_its_record(
    owner, monkeypatch, alive):
  """Its process number says nothing here."""
  workdir, process = owner
  monkeypatch.setattr(owner_lib, "_LEASE", 1.0)
  record = workdir / "owner"
  record.write_text(re.sub("host=.*", "host=other", re.sub(
      "duration=.*", "duration=1.0", record.read_text())))
  stop = threading.Event()

  def touch():
    while alive and not stop.wait(0.1):
      record.touch()

  with concurrent.futures.ThreadPoolExecutor() as threads:
    threads.submit(touch)
    try:
      with Owner(workdir) as taken, (pytest.raises(
          UserError, match="in use by process .* on other") if alive
                                     else contextlib.nullcontext()):
        taken.take()
        # One that was taken for dead, and awakes:
        taken.check()
        record.unlink()
        record.write_text("filelock/2\n")
        with pytest.raises(UserError, match="was taken for dead"):
          for _ in range(200):
            taken.check()
            time.sleep(0.05)
    finally:
      stop.set()


@pytest.mark.slow
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
  source = config.load_page(str(page))
  run = config.load_page(str(page)).experiment
  resumed = train.train(run, tmp_path / "run", source)
  equal(resumed.params, train.train(run, tmp_path / "full", source).params)
  assert curve(tmp_path / "run") == curve(tmp_path / "full")
  assert "jax_random_seed_offset 0 (was 7)." in capsys.readouterr().err
  with other_settings():
    scores = predict.of_workdir(str(tmp_path / "run"))
  # On all devices, unlike the run: only sums are rounded otherwise.
  assert scores == pytest.approx(resumed.scores, rel=1e-6)


@pytest.mark.parametrize("requests, code, words", [
    ("t", 143, "no step has answered for 0.3 seconds"),
    ("tt", 143, "Asked to end again: ended at once"),
    ("nt", 0, "SIGTERM: ends after this step")])
def test_request_that_nothing_answers_ends_the_process(requests, code, words):
  """`t`: SIGTERM, while the main thread is busy outside of Python, as in a
  computation; `n`: in no step, as while it saves."""
  program = textwrap.dedent(f"""
      import contextlib, ctypes, os, signal
      from bert_jax.runs import signals
      with signals.stop_requests(seconds=0.3) as requests:
        # So that another thread gets it, and nothing wakes the main thread.
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
        with requests.no_step() if 'n' in {requests!r} else (
            contextlib.nullcontext()):
          for _ in range({requests.count("t")}):
            os.kill(os.getpid(), signal.SIGTERM)
            requests.came.wait()
          ctypes.CDLL(None).usleep(900_000)
      """)
  ended = subprocess.run([sys.executable, "-c", program], cwd=ROOT, text=True,
                         capture_output=True)
  assert (ended.returncode, bool(ended.stderr)) == (code, bool(words)), (
      ended.stderr)
  assert words in ended.stderr


def test_interrupt_is_a_request_to_stop(monkeypatch):
  """The first ends nothing; the second does, in a notebook as an exception."""
  before = signal.getsignal(signal.SIGINT)
  monkeypatch.setitem(sys.modules, "IPython", types.SimpleNamespace(
      get_ipython=lambda: types.SimpleNamespace(kernel=None)))
  with stop_requests() as requests, pytest.raises(KeyboardInterrupt):
    os.kill(os.getpid(), signal.SIGINT)
    assert requests.came.is_set() and requests.number == signal.SIGINT
    os.kill(os.getpid(), signal.SIGINT)
  assert signal.getsignal(signal.SIGINT) == before
  with monkeypatch.context() as patch:
    patch.setattr(signal, "getsignal", lambda number: signal.SIG_IGN)
    with stop_requests():
      with pytest.raises(KeyboardInterrupt):
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(1)


def test_interrupt_in_a_callback_is_not_lost(monkeypatch):
  monkeypatch.setattr(sys, "unraisablehook", cli.interrupt_again)

  def callback(*_):
    gc.callbacks.remove(callback)
    signal.raise_signal(signal.SIGINT)

  gc.callbacks.append(callback)
  with pytest.raises(KeyboardInterrupt):
    gc.collect()
    time.sleep(1)


@pytest.mark.parametrize("command, raised, code, words", [
    (["pretrain", "tiny"], loop.Stopped("saved at step 3", signal.SIGINT), 130,
     "saved at step 3"),
    (["pretrain", "tiny"], KeyboardInterrupt(), 130,
     "No checkpoint was saved: the same command starts again"),
    (["pretrain", "tiny", "+"], KeyboardInterrupt(), 130, "from step 20."),
    (["sweep", "task"], KeyboardInterrupt(), 130, "is not done again"),
    (["evaluate"], KeyboardInterrupt(), 130, "Interrupted.\n")])
def test_interrupted_command_says_what_is_left(
    command, raised, code, words, tmp_path, monkeypatch, capsys):
  def stop(*_):
    raise raised

  for target in ("runs.train.train", "studies.members.sweep.run",
                 "analysis.predict.of_workdir"):
    monkeypatch.setattr(f"bert_jax.{target}", stop)
  if "+" in command:
    for step in (0, 20):
      (tmp_path / "checkpoints" / str(step)).mkdir(parents=True)
  place = ["--workdir"] if command != ["evaluate"] else []
  arguments = [*filter("+".__ne__, command), *place, str(tmp_path)]
  assert cli.main(arguments) == code
  assert words in capsys.readouterr().err


@pytest.mark.slow
def test_run_resumes_on_other_devices(folder, tmp_path):
  """1 -> 4 -> 8 by pmap."""
  first, *runs, last = [
      pretraining(folder, steps=6, layout=layout, optimizer=Sgd())
      for layout in (FirstDevices(), FirstDevices(1, 4, 1, count=4),
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
