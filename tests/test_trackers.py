"""Where numbers go beside the terminal: each client offline, and a page's own.
"""

import json
import pathlib
import struct
import subprocess
import sys
import time

import pytest

from bert_jax import config
from bert_jax.checkpoints.manifest import Manifest, page_changes
from bert_jax.config import UserError
from bert_jax.experiment import Experiment
from bert_jax.objectives.mlm import Mlm
from bert_jax.reporting import trackers
from bert_jax.reporting.jsonl import read_jsonl
from bert_jax.reporting.writers import Writers
from bert_jax.runs import record, train
from bert_jax.studies.arms import make_arms
from bert_jax.studies.members import sweep
from bert_jax.studies.study import Study
from tests import small_run

PAGE = '''
import contextlib
import dataclasses

import bert_jax as bj


@bj.choice
class CsvTracker(bj.Tracker):
  """numbers.csv, while nothing is broken."""

  @contextlib.contextmanager
  def open(self, run):

    def write(step, scalars):
      if (run.workdir / "broken").exists():
        raise ConnectionError("no network\\nat all")
      for name, value in scalars.items():
        print(step, name, value, sep=",", file=file, flush=True)

    with (run.workdir / "numbers.csv").open("a") as file:
      write(f"# {run.id}", {"": ""})
      yield write


experiment = bj.Experiment()
'''
OPTIONS = {"model.norm": "rms", "steps": "9", "tracker": "csv"}


def write(workdir, tracker, start, steps):
  """A start of a run that ends with an error before its last step."""
  out = Writers(workdir, 9, start, tracker=tracker, options=OPTIONS)
  for step in steps:
    out.write(step, {"train/loss": step + start / 10})
    if step % 2 == 0:
      out.write(step, {"held_out/mlm@1 percent=20": 2.5})
  out.close(None if steps[-1] == 9 else ConnectionError("killed"))


# What is tracked of steps 1 to 5, and then, from the checkpoint of 3, 4 to 9.
LOSSES = [(1, 1.0), (2, 2.0), (3, 3.0), (4, 4.0), (5, 5.0), (6, 6.3), (7, 7.3),
          (8, 8.3), (9, 9.3)]


def interrupted(workdir, tracker):
  """Two starts of a run; those of steps that came back have other numbers."""
  workdir.mkdir()
  write(workdir, tracker, 0, range(1, 6))
  yield
  write(workdir, tracker, 3, range(4, 10))
  yield


def wandb_records(path):
  """Of a file of wandb's, a log in blocks of 32 KiB like LevelDB's."""
  from wandb.proto.wandb_internal_pb2 import Record
  data, at, parts = path.read_bytes(), 7, b""
  while at + 7 <= len(data):
    if 0 < (rest := -at % 32768) < 7:
      at += rest
      continue
    _, size, kind = struct.unpack_from("<IHB", data, at)
    parts = (b"" if kind in (1, 2) else parts) + data[at + 7:at + 7 + size]
    at += 7 + size
    if kind in (1, 4) and at <= len(data):
      yield Record.FromString(parts)


def finished(path):
  """All records, which another process still writes when a run was closed."""
  until = time.monotonic() + 30
  while not any(saved.HasField("exit") for saved in wandb_records(path)):
    assert time.monotonic() < until
    time.sleep(0.01)
  return list(wandb_records(path))


def test_wandb_writes_a_run_offline(tmp_path):
  pytest.importorskip("wandb")
  tracker, ids, losses = trackers.WandbTracker(mode="offline"), set(), []
  for i, _ in enumerate(interrupted(tmp_path / "seed3", tracker)):
    path = sorted(tmp_path.glob("seed3/wandb/offline-run-*/run-*.wandb"))[-1]
    for saved in finished(path):
      if saved.HasField("run"):
        ids.add((saved.run.run_id, saved.run.project, saved.run.display_name))
        options = {item.key: json.loads(item.value_json)
                   for item in saved.run.config.update}
        assert options.items() >= {"model.norm": "rms", "steps": 9}.items()
        assert "tracker" not in options
      values = {item.nested_key[0]: json.loads(item.value_json)
                for item in saved.history.item}
      if values:
        losses.append((values["_step"], values["train/loss"]))
        assert ("held_out/mlm@1 percent=20" in values) == (
            values["_step"] % 2 == 0)
      if saved.HasField("exit"):
        assert saved.exit.exit_code == 1 - i
  (run_id, *names), = ids
  kept = json.loads((tmp_path / "seed3" / "tracked.json").read_text())
  assert run_id == kept["id"]
  assert names == ["bert_jax", f"{tmp_path.name}/seed3"]
  assert losses == LOSSES


def test_mlflow_writes_a_run_to_a_folder(tmp_path, monkeypatch):
  mlflow = pytest.importorskip("mlflow")
  # Its database takes seconds to make.
  monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
  uri = (tmp_path / "mlruns").as_uri()
  client = mlflow.MlflowClient(uri)
  tracker = trackers.MlflowTracker(uri=uri, name="mine")
  for status, _ in zip(("FAILED", "FINISHED"),
                       interrupted(tmp_path / "run", tracker)):
    place = client.get_experiment_by_name("bert_jax").experiment_id
    run, = client.search_runs([place])
    assert run.info.status == status and run.info.run_name == "mine"
    assert run.data.params == {"model.norm": "rms", "steps": "9"}
  history = client.get_metric_history(run.info.run_id, "train/loss")
  assert [(m.step, m.value) for m in history] == LOSSES
  assert len(client.get_metric_history(
      run.info.run_id, "held_out/mlm_1 percent_20")) == 4


def test_trackio_writes_a_run_to_this_machine(tmp_path, monkeypatch):
  # Read when it is imported.
  monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "trackio"))
  trackio = pytest.importorskip("trackio")
  from trackio.sqlite_storage import SQLiteStorage
  for _ in interrupted(tmp_path / "run", trackers.TrackioTracker()):
    run, = trackio.Api().runs("bert_jax")
  assert run.name.startswith("run-") and run.config["model.norm"] == "rms"
  history = SQLiteStorage.get_metric_values(
      "bert_jax", run.name, "train/loss", run_id=run.id)
  assert [(line["step"], line["value"]) for line in history] == LOSSES


def test_client_that_is_missing_is_named_before_anything_is_done(
    folder, tmp_path, monkeypatch):
  for name in ("wandb", "mlflow", "trackio"):
    monkeypatch.setitem(sys.modules, name, None)
    tracked = config.override(Experiment(), [f"tracker={name}",
                                             "data.text=nowhere.txt"])
    with pytest.raises(UserError, match=rf"pip install 'bert_jax\[{name}\]'"):
      train.train(tracked, tmp_path / name)
  with pytest.raises(UserError, match="Nothing was started:(?s:.*)trackio"):
    Study(tracked, {"small": "batch_size=8"}, workdir=str(tmp_path)).run()
  with pytest.raises(UserError, match=r"bert_jax\[trackio\]"):
    sweep.check(tracked, [])


def test_clients_are_imported_only_when_they_are_chosen():
  code = ("import sys, bert_jax.reporting.writers\n"
          "print({'wandb', 'mlflow', 'trackio', 'tensorboardX'} "
          "& set(sys.modules))")
  run = subprocess.run([sys.executable, "-c", code], capture_output=True,
                       cwd=pathlib.Path(__file__).parents[1], text=True)
  assert (run.stdout, run.stderr) == ("set()\n", "")


@pytest.fixture(scope="module")
def csv():
  """The page's experiment."""
  page = config.run_page(PAGE, "csv.py")
  return config.override(page.experiment, ["tracker=csv"], [page])


def numbers(workdir, name="train/loss"):
  """(step, number) of the page's tracker, and the ids of its starts."""
  lines = (workdir / "numbers.csv").read_text().splitlines()
  return ([(int(line.split(",")[0]), float(line.split(",")[2]))
           for line in lines if f",{name}," in line],
          {line for line in lines if line.startswith("#")})


def test_tracker_of_a_page_gets_each_line_once(tmp_path, csv):
  list(interrupted(tmp_path / "run", csv.tracker))
  losses, ids = numbers(tmp_path / "run")
  assert losses == LOSSES and len(ids) == 1
  assert len(numbers(tmp_path / "run", "held_out/mlm@1 percent=20")[0]) == 4


def test_tracker_that_is_chosen_later_gets_the_earlier_lines(tmp_path, csv):
  write(tmp_path, trackers.JsonlTracker(), 0, range(1, 6))
  assert [path.name for path in tmp_path.iterdir()] == ["metrics.jsonl"]
  write(tmp_path, csv.tracker, 3, range(4, 10))
  assert numbers(tmp_path)[0] == [
      (line["step"], line["train/loss"])
      for line in read_jsonl(tmp_path / "metrics.jsonl")
      if "train/loss" in line]


def said(capsys):
  """The lines on the terminal about a tracker."""
  return [line for line in capsys.readouterr().err.splitlines()
          if "tracker=" in line]


def test_failing_tracker_is_said_once_and_catches_up(tmp_path, csv, capsys):
  broken = tmp_path / "broken"
  write(tmp_path, csv.tracker, 0, range(1, 3))
  broken.touch()
  for start in (2, 3):  # When it is opened.
    write(tmp_path, csv.tracker, start, range(start + 1, 6))
    line, = said(capsys)
    assert line.startswith("tracker=csv failed: ConnectionError: no network. "
                           "The run continues without it;")
  broken.unlink()
  out = Writers(tmp_path, 9, 4, tracker=csv.tracker)
  out.write(5, {"train/loss": 5.4})
  broken.touch()  # When it is written.
  for step in (6, 7):
    out.write(step, {"train/loss": step + .4})
  out.close()
  assert len(said(capsys)) == 1
  broken.unlink()
  write(tmp_path, csv.tracker, 6, range(7, 10))
  assert not said(capsys)
  assert numbers(tmp_path)[0] == [
      (1, 1.0), (2, 2.0), (3, 3.2), (4, 4.3), (5, 5.4), (6, 6.4), (7, 7.6),
      (8, 8.6), (9, 9.6)]
  broken.touch()
  with pytest.raises(UserError, match="csv cannot be opened: ConnectionError"):
    write(tmp_path, csv.tracker, 0, range(1, 6))


def test_runs_are_the_same_with_any_tracker(folder, tmp_path, csv):
  """Compared, in a checkpoint, and resumed; a page's tracker may change."""
  tracked = small_run.pretraining(folder, objective=Mlm(), steps=2,
                                  tracker=csv.tracker)
  with pytest.raises(UserError, match="it is the base; nothing differs"):
    make_arms(tracked, [], {"other": "tracker=wandb tracker.project=mine"})
  assert sweep.provenance(tracked, []) == sweep.provenance(
      tracked.untracked(), [])
  changed = PAGE.replace("a", "b", 1).replace("# {run.id}", "# id {run.id}")
  assert not list(page_changes(PAGE, changed))
  assert list(page_changes(PAGE, PAGE.replace("bj.Tracker", "bj.Norm")))
  result = train.train(tracked, tmp_path / "run")
  assert [step for step, _ in numbers(tmp_path / "run")[0]] == [1, 2]
  assert not (tmp_path / "run" / "tensorboard").exists()
  assert not any("tracker" in option
                 for option in record.read(tmp_path / "run").options)
  saved = Manifest.of_run(result.run)
  assert saved.pages == []
  assert saved.experiment == result.run.experiment.untracked()
  again = train.train(tracked.untracked(), tmp_path / "run")
  assert again.scores == result.scores
