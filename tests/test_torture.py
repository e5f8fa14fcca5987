"""A run that is killed at any moment loses nothing."""

import shutil

import pytest

from tools import torture

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def one_device(monkeypatch):
  monkeypatch.setenv("JAX_NUM_CPU_DEVICES", "1")


def test_killed_run_equals_the_undisturbed_one(tmp_path):
  (kills, differences), = torture.tortured(tmp_path, kills=2, seed=0, steps=20)
  assert differences == []
  assert {kill.sign for kill in kills} == {"corpus", "save"}
  # The differences that it would have reported:
  undisturbed, killed = (torture.Run(tmp_path / name, tmp_path / "page.py")
                          for name in ("whole", "killed"))
  (killed.workdir / "tensorboard" / "events.out.tfevents.1.old").touch()
  (killed.workdir / "metrics.jsonl").write_text('{"step": 1}\n')
  shutil.rmtree(killed.workdir / "checkpoints" / "20")
  differences = torture.differences(killed, undisturbed)
  assert "other metrics" in differences
  assert "left behind: run/tensorboard/events.out.tfevents.*" in differences
  assert "missing: run/checkpoints/20/params/d/*" in differences
  assert any(line.startswith("other values in encoder/")
             for line in differences)
