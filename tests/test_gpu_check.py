"""The check of a GPU runs through where there is none, and loses nothing."""

import json
import pathlib
import subprocess
import sys

import pytest

TOOLS = pathlib.Path(__file__).parents[1] / "tools"


@pytest.fixture
def gpu_check(monkeypatch):
  monkeypatch.syspath_prepend(str(TOOLS))
  import gpu_check
  return gpu_check


@pytest.mark.slow
def test_short_check_runs_through_on_a_cpu(tmp_path, monkeypatch):
  monkeypatch.setenv("JAX_NUM_CPU_DEVICES", "1")
  run = subprocess.run(
      [sys.executable, TOOLS / "gpu_check.py", "--short", "--output",
       tmp_path], text=True, capture_output=True)
  assert run.returncode == 0, run.stderr
  parts = json.loads((tmp_path / "gpu_check.json").read_text())
  assert list(parts) == ["device", "speed", "equivalences", "embed",
                         "pretraining"]
  notes = [note for part in parts.values() for note in part["notes"]]
  assert not [n for n in notes if n.startswith(("Cut", "Failed"))]
  step, = parts["speed"]["tables"]["step"].values()
  assert step["ms"] > 0 and 4 < step["loss"] < 7  # Of 100 tokens, and of 2.
  steps = parts["equivalences"]["tables"]["one step"]
  assert steps["MLM + NSP, float32: again"]["gradients"] == 0
  bfloat16 = steps["MLM + NSP, bfloat16: plain, a mesh of one"]
  assert 1e-3 < bfloat16["from float32"] < .1
  resumed = parts["equivalences"]["tables"][
      "a run of 4 steps, cut at 3 and resumed from 2"]
  assert resumed["float32"]["the same bits"] == "yes"
  pretraining, = parts["pretraining"]["tables"]["pretraining"].values()
  assert pretraining["held-out loss, the best"] < 8
  assert run.stdout == (tmp_path / "gpu_check.md").read_text()


def test_part_that_is_cut_leaves_its_results(gpu_check, tmp_path, monkeypatch):
  part = tmp_path / "part.py"
  part.write_text(f"""
import sys, time
sys.path.insert(0, {str(TOOLS)!r})
from gpu import report
print("a library says hello", flush=True)
report.row("step", "base", ms=5.0)
report.row("step", "base", ms=3.0, rows=8)
time.sleep(60)
""")
  monkeypatch.setattr(gpu_check, "__file__", str(part))
  results = gpu_check.report.Report(tmp_path)
  assert not gpu_check.run_part("speed", 2, [], results)
  saved = json.loads((tmp_path / "gpu_check.json").read_text())
  assert saved == {"speed": {"tables": {"step": {
      "base": {"ms": 3.0, "rows": 8}}}, "notes": ["Cut after 2 s."]}}
  assert "| base | 3 | 8 |" in (tmp_path / "gpu_check.md").read_text()


def test_part_that_fails_says_why(gpu_check, tmp_path, monkeypatch):
  part = tmp_path / "part.py"
  part.write_text("raise ValueError('no such chip')")
  monkeypatch.setattr(gpu_check, "__file__", str(part))
  results = gpu_check.report.Report(tmp_path)
  assert not gpu_check.run_part("device", 60, [], results)
  assert results.parts["device"]["notes"] == [
      "Failed: ValueError: no such chip"]


@pytest.mark.parametrize("kind, tera", [
    ("NVIDIA H100 80GB HBM3", 989.5), ("NVIDIA H100 PCIe", 756.5),
    ("NVIDIA H100 NVL", 835.5), ("NVIDIA H200", 989.5),
    ("NVIDIA A100-SXM4-80GB", 312), ("NVIDIA L4", 121), ("NVIDIA L40S", None)])
def test_peak_is_that_of_the_form_of_the_chip(gpu_check, kind, tera):
  from gpu import device
  assert device.peak(kind) == (tera and tera * 1e12)


def test_without_pytorch_the_project_is_measured_alone(
    gpu_check, monkeypatch, capsys):
  from gpu import torch_python
  monkeypatch.setattr(torch_python, "_works", lambda python: False)
  monkeypatch.setattr(torch_python, "_make", lambda folder, python: False)
  assert torch_python.find() is None
  assert "--torch-python names another" in capsys.readouterr().err
