"""What `doctor` says of a machine."""

import pathlib

import pytest

from bert_jax.cli import doctor
from bert_jax.cli.main import main


def test_machine_that_can_train_has_no_faults(capsys, tmp_path, monkeypatch):
  assert main(["doctor", "--workdir", str(tmp_path)]) == 0
  out = capsys.readouterr().out
  assert "!!" not in out and "a small training step took" in out
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
    (lambda: doctor.disk("cache", pathlib.Path("/proc/none")),
     "BERT_JAX_CACHE")])
def test_fault_has_its_remedy(finding, remedy):
  text = finding().remedy
  assert (remedy in text) if remedy else not text


def test_full_disk_is_a_fault(monkeypatch, tmp_path):
  monkeypatch.setattr(doctor, "_LEAST_DISK", 10**18)
  assert "make room" in doctor.disk("workdir", tmp_path).remedy
  assert not alone("TPU_PROCESS_ADDRESSES", "local")
