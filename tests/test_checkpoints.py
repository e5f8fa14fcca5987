"""Checkpoints that are damaged or belong to another run."""

import dataclasses
import errno
import logging
import os
import pathlib
import shutil
import sys

import jax
import orbax.checkpoint as ocp
import pytest

from bert_jax import config
from bert_jax.checkpoints import damage
from bert_jax.checkpoints import files as files_lib
from bert_jax.checkpoints import reading
from bert_jax.checkpoints.checksums import checksums
from bert_jax.checkpoints.manager import CheckpointManager
from bert_jax.checkpoints.manifest import Manifest
from bert_jax.config import UserError
from bert_jax.experiment import compose
from bert_jax.runs import train
from tests import small_run
from tests.small_run import equal, pretraining, pull_the_plug


@pytest.fixture(scope="module")
def cut_off(folder, tmp_path_factory):
  """A run that died at step 5 with checkpoints of steps 2 and 4, and the
  parameters of the same run uninterrupted."""
  folder_of_runs = tmp_path_factory.mktemp("cut_off")
  run = pretraining(folder, steps=6)
  pull_the_plug(run, folder_of_runs / "run", 5)
  return run, folder_of_runs / "run", train.train(
      run, folder_of_runs / "full").params


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
  monkeypatch.setattr(damage, "_PAUSES", (0.0,))


def flip(item: pathlib.Path) -> None:
  """Flips a bit in the middle of every data file."""
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


@pytest.fixture(scope="module")
def restore(cut_off):
  """Resumes as `train` does; the step, and what it says."""
  run = compose(cut_off[0])
  shape, here = run.shape(), jax.sharding.SingleDeviceSharding(jax.devices()[0])

  def resume(workdir: pathlib.Path) -> tuple[int, list[str]]:
    said = []
    with CheckpointManager(workdir) as checkpoints:
      state, _ = checkpoints.restore(
          shape, jax.tree.map(lambda _: here, shape), Manifest.of_run(run),
          said.append)
    return int(state.step), said

  return resume


@pytest.mark.parametrize("damaging", DAMAGES.values(), ids=DAMAGES)
def test_damaged_checkpoint_is_put_aside(cut_off, restore, tmp_path, damaging):
  shutil.copytree(cut_off[1], tmp_path / "run")
  damaging(tmp_path / "run" / "checkpoints" / "4")
  step, said = restore(tmp_path / "run")
  assert step == 2 and said == [
      f"Damaged, and put aside: {tmp_path / 'run' / 'damaged' / '4'}."]
  assert (tmp_path / "run" / "damaged" / "4").is_dir()


def test_state_with_wrong_checksum_is_put_aside(cut_off, tmp_path, capsys):
  """Even if every file is readable."""
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
  err = capsys.readouterr().err
  assert "damaged/4." in err and err.count("resumes from step 2 of 6") == 1
  for step in (4, 6):
    state = small_run.stored(tmp_path / "run", compose(run), step)
    assert int(state.step) == step


def test_reading_skips_damaged_checkpoints(cut_off, tmp_path):
  run, begun, _ = cut_off
  shutil.copytree(begun, tmp_path / "run")
  flip(tmp_path / "run" / "checkpoints" / "4" / "params")
  report = lambda: (sys.unraisablehook, logging.getLogger("absl").level)
  before = report()
  with pytest.warns(UserWarning, match="step 4 is damaged"):
    assert reading.read_checkpoint(tmp_path / "run").step == 2
  assert report() == before


def failing(monkeypatch, error: Exception, times: int = 1000) -> None:
  """The first `times` attempts to read parameters of step 4 fail."""
  read, left = ocp.Checkpointer.restore, [times]

  def fail(self, path, *arguments, **options):
    if path.parts[-2:] == ("4", "params") and left[0]:
      left[0] -= 1
      raise Exception("Encountered error while reading") from error
    return read(self, path, *arguments, **options)

  monkeypatch.setattr(ocp.Checkpointer, "restore", fail)
  monkeypatch.setattr(damage, "_PAUSES", (0.0, 0.0))
  monkeypatch.setattr(files_lib, "_REPORTING", 0.0)


REFUSALS = {
    "permission": (PermissionError(errno.EACCES, "Permission denied"),
                   "Permission denied"),
    "network": (OSError(errno.EIO, "Input/output error"), "Input/output"),
    "stale": (ValueError("NOT_FOUND: Error reading [OS error 116: ESTALE "
                         "Stale file handle]"), "Stale file handle"),
    "tensorstore": (ValueError("PERMISSION_DENIED: Error [OS error 13]"),
                    "PERMISSION_DENIED"),
    "files": (ValueError("RESOURCE_EXHAUSTED: [OS error 24: EMFILE "
                         "Too many open files]"), "Too many open files"),
    "device": (jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory"),
               "Out of memory"),
    "memory": (MemoryError("no memory"), "no memory"),
    "ours": (AttributeError("has no attribute 'tree'"), "no attribute")}


@pytest.mark.parametrize("error, words", REFUSALS.values(), ids=REFUSALS)
def test_unreadable_checkpoint_is_not_called_damaged(
    cut_off, restore, monkeypatch, error, words):
  """Nothing is moved, and no older checkpoint answers instead."""
  _, begun, _ = cut_off
  before = files(begun)
  with monkeypatch.context() as patch:
    failing(patch, error)
    for read in (reading.read_checkpoint, restore):
      with pytest.raises(UserError, match=f"(?s){words}.*Nothing was moved"):
        read(begun)
  with monkeypatch.context() as patch:
    failing(patch, error, times=2)
    assert restore(begun) == (4, [])
  assert files(begun) == before


def test_folder_that_may_not_be_searched_is_not_called_damaged(
    cut_off, restore, monkeypatch):
  """To Orbax, what is in it is not there."""
  _, begun, _ = cut_off
  folder, listed = begun / "checkpoints" / "4" / "params", os.scandir

  def scandir(path):
    if pathlib.Path(path) == folder:
      raise PermissionError(errno.EACCES, "Permission denied", str(path))
    return listed(path)

  failing(monkeypatch, FileNotFoundError(f"File {folder}/_METADATA not found"))
  monkeypatch.setattr(os, "scandir", scandir)
  for read in (reading.read_checkpoint, restore):
    with pytest.raises(UserError, match="params cannot be read: Permission"):
      read(begun)
  assert not (begun / "damaged").exists()


def test_removed_checkpoint_is_passed_over(cut_off, tmp_path, monkeypatch):
  """As when the run that it belongs to has just removed it."""
  shutil.copytree(cut_off[1], tmp_path / "run")
  read = files_lib.read_params

  def remove(folder, manifest):
    shutil.rmtree(tmp_path / "run" / "checkpoints" / "4", ignore_errors=True)
    return read(folder, manifest)

  monkeypatch.setattr(files_lib, "read_params", remove)
  assert reading.read_checkpoint(tmp_path / "run").step == 2


def test_resuming_from_only_damaged_checkpoints_is_refused(cut_off, tmp_path):
  run, begun, _ = cut_off
  shutil.copytree(begun, tmp_path / "run")
  folder = tmp_path / "run" / "checkpoints"
  for step in ("2", "4"):
    flip(folder / step / "params")
  before = files(folder)
  message = r"(?s)left as they are.*step 4: .*step 2"
  with pytest.raises(UserError, match=message):
    train.train(run, tmp_path / "run")
  assert files(folder) == before


def files(folder: pathlib.Path) -> dict[str, bytes]:
  return {str(p.relative_to(folder)): p.read_bytes()
          for p in folder.rglob("*") if p.is_file()}


@pytest.mark.parametrize("changed, message", [
    (lambda r: dataclasses.replace(r, seed=1), r"seed=1 \(was 0\)"),
    (lambda r: config.override(r, ["model.hidden_size=32"]),
     r"model.hidden_size=32 \(was 16\)"),
    (lambda r: config.override(r, ["objective=mlm"]),
     r"objective=mlm \(was mlm_nsp\)"),
    (lambda r: config.override(r, ["data.held_out_percent=50"]),
     r"data.held_out_percent=50.0 \(was 24.0\)")],
    ids=["seed", "size", "objective", "data"])
def test_checkpoint_of_another_run_is_refused(cut_off, changed, message):
  run, begun, _ = cut_off
  before = files(begun / "checkpoints")
  with pytest.raises(UserError, match=message):
    train.train(changed(run), begun)
  assert files(begun / "checkpoints") == before


def test_checkpoint_of_another_architecture_is_refused(cut_off):
  run, begun, _ = cut_off
  wider = compose(config.override(run, ["model.hidden_size=32"]))
  message = (r"encoder/layers/attention/key/kernel: "
          r"\(1, 16, 2, 8\) there, \(1, 32, 2, 16\) here")
  with pytest.MonkeyPatch.context() as patch, pytest.raises(
      UserError, match=message):
    patch.setattr(files_lib, "check_same_run", lambda *_: None)
    small_run.stored(begun, wider)


PAGE = """
import dataclasses
from bert_jax.objectives.mlm import Mlm

FACTOR = 2.0

# A word.
@dataclasses.dataclass(frozen=True)
class Scaled(Mlm):
  def losses(self, logits, batch):
    return {k: FACTOR * v for k, v in super().losses(logits, batch).items()}

experiment = None
"""


def test_changed_page_is_refused_unless_only_comments_changed(folder, tmp_path):

  def of_page(text: str):
    page = config.run_page(text, "page")
    return config.override(
        pretraining(folder), ["objective=scaled"], [page]), page

  run, page = of_page(PAGE)
  pull_the_plug(run, tmp_path, 3, page)
  with pytest.raises(UserError, match=r"(?s)-FACTOR = 2.0.*\+FACTOR = 3.0"):
    run, page = of_page(PAGE.replace("2.0", "3.0"))
    train.train(run, tmp_path, page)
  # Words, and what no class of the page needs, as the arms of a study.
  run, page = of_page(PAGE.replace("# A word.", "# Another.") + "arms = 3\n")
  train.train(run, tmp_path, page)
