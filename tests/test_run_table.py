"""The list of runs."""

import csv
import dataclasses
import io
import json

import numpy as np
import pytest

from bert_jax.cli.main import main
from bert_jax.config import UserError
from bert_jax.runs import record
from bert_jax.runs.record import Record
from bert_jax.studies.protocols import scores
from bert_jax.studies.reports import run_table
from bert_jax.studies.protocols.scores import Score

DONE = Record(state="finished", started="2026-01-02T10:00:00",
              ended="2026-01-02T11:00:00", steps=300, step=300, tokens=6e5,
              seconds=61.0, options=["objective=mlm", "steps=300"])


@pytest.fixture
def folder(tmp_path):
  """A finished run, one that failed since, a dead one, a damaged record."""
  for name, saved in {
      "a/seed0": DONE,
      "b": dataclasses.replace(
          DONE, state="failed", message="No memory.", seed=3, step=100,
          ended="2026-01-20T00:00:00",
          options=["objective=mlm", "steps=300", "seed=3",
                   "model.norm_placement=pre"]),
      "c": dataclasses.replace(DONE, state="running", ended="",
                               started="2026-01-03T00:00:00")}.items():
    (tmp_path / name).mkdir(parents=True)
    record.write(tmp_path / name, saved)
  scores.write(tmp_path / "a/seed0", Score("mlm@1 length=16",
                                           values_R=np.array([4.5])))
  (tmp_path / "d").mkdir()
  (tmp_path / "d" / "run.json").write_text("{")
  return tmp_path


def test_runs_are_listed_with_state_scores_and_what_differs(folder):
  runs, faults = run_table.read(folder)
  assert [run.name for run in runs] == ["a/seed0", "b", "c"]
  assert [run.state for run in runs] == ["finished", "failed", "interrupted"]
  assert runs[0].scores == {"mlm@1 length=16": 4.5}
  assert [list(run.differs) for run in runs] == [
      [], ["model.norm_placement=pre"], []]
  assert len(faults) == 1 and "run.json cannot be read" in faults[0]
  late, _ = run_table.read(folder, run_table.since_time("2026-01-10"))
  assert [run.name for run in late] == ["b", "c"]


def test_since_takes_times_ago_and_dates():
  assert run_table.since_time("2026-01-31") == "2026-01-31T00:00:00"
  assert run_table.since_time("7d") < run_table.since_time("12h") < (
      run_table.since_time("1min")) < record.now()
  with pytest.raises(UserError, match="as 7d, 12h or 30min ago"):
    run_table.since_time("lately")


def test_list_is_a_table_csv_or_json(folder, capsys):
  assert main(["runs", str(folder)]) == 0
  out = capsys.readouterr()
  assert "b: model.norm_placement=pre\n" in out.out
  assert "mlm@1" in out.out and "b failed: No memory.\n" in out.out
  assert max(map(len, out.out.splitlines())) <= 80 and "run.json" in out.err
  assert main(["runs", str(folder), "--csv"]) == 0
  rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
  assert rows[0]["mlm@1 length=16"] == "4.5" and rows[1]["seed"] == "3"
  assert main(["runs", str(folder), "--json", str(folder / "all.json")]) == 0
  assert json.loads((folder / "all.json").read_text())[0]["tokens"] == 6e5
  assert main(["runs", str(folder / "a"), "--since", "2026-01-05"]) == 1
  assert "No run is below" in capsys.readouterr().err
