"""What `doctor` says of a machine."""

import pathlib
import time

import pytest

from bert_jax import distributed
from bert_jax.cli import doctor
from bert_jax.cli.main import main


def test_machine_that_can_train_has_no_faults(capsys, tmp_path, monkeypatch):
  assert main(["doctor", "--workdir", str(tmp_path)]) == 0
  out = capsys.readouterr().out
  assert "!!" not in out and "a small training step was" in out
  monkeypatch.setattr(doctor, "compiler",
                      lambda: doctor.Finding("compiler", ""))
  assert main(["doctor", "--workdir", "/proc/none"]) == 1
  out, err = capsys.readouterr()
  assert "!!  workdir: /proc" in out and "1 of these need" in err


def alone(name: str, value: str) -> list[doctor.Finding]:
  return list(doctor.addresses({name: value}, 1))


@pytest.mark.parametrize("finding, remedy", [
    (lambda: doctor.python((3, 10)), "uv python install"),
    (lambda: doctor.python((3, 13)), None),
    (lambda: doctor.versions({"jax": "0.10.2", "jaxlib": "0.7.2"}),
     "different versions"),
    (lambda: doctor.accelerator("cpu", ["tpu"]), "another process holds"),
    (lambda: doctor.accelerator("cpu", ["gpu"]), "JAX_PLATFORMS"),
    (lambda: doctor.accelerator("tpu", ["tpu"]), None),
    (lambda: alone("TPU_PROCESS_ADDRESSES", "10.0.0.2,10.0.0.3")[0],
     "on every host"),
    (lambda: next(doctor.disk("cache", pathlib.Path("/proc/none"))),
     "BERT_JAX_CACHE"),
    (lambda: doctor.disk_clock("workdir", -60.0), "set both by NTP"),
    (lambda: doctor.disk_clock("workdir", 3.0), None),
    (lambda: doctor.compared_clocks([5.0, 3.0, 4.0]), None),
    (lambda: doctor.compared_clocks([5.0, 99.0, 4.0]), "true`): node:1")])
def test_fault_has_its_remedy(finding, remedy, monkeypatch):
  monkeypatch.setattr(distributed, "_hosts", ["node:0", "node:1", "node:2"])
  text = finding().remedy
  assert (remedy in text) if remedy else not text


def test_full_disk_is_a_fault(monkeypatch, tmp_path):
  monkeypatch.setattr(doctor, "_LEAST_DISK", 10**18)
  assert "make room" in next(doctor.disk("workdir", tmp_path)).remedy
  assert not alone("TPU_PROCESS_ADDRESSES", "local")


@pytest.mark.parametrize("ahead, about", [
    (0.0, ["workdir"]), (60.0, ["workdir", "clock of workdir"])])
def test_clock_of_the_disk_is_compared(monkeypatch, tmp_path, ahead, about):
  monkeypatch.setattr(doctor.time, "time", lambda now=time.time: now() - ahead)
  seen = list(doctor.disk("workdir", tmp_path))
  assert [finding.about for finding in seen] == about
  assert not list(tmp_path.iterdir())
