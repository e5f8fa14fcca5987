"""Several processes equal one process, or stop together."""

import contextlib
import json
import os
import pathlib
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time

import jax
import numpy as np
import pytest

from bert_jax import distributed
from bert_jax.checkpoints import environment
from bert_jax.config import UserError
from bert_jax.runs import loop, train
from bert_jax.runs.observers import Observers
from tests import host, small_run
from tests.small_run import FirstDevices, curve

ROOT = pathlib.Path(__file__).parents[1]
PATIENCE = 400  # seconds, on a busy machine
pytestmark = pytest.mark.slow


def free_port() -> str:
  with socket.socket() as probe:
    probe.bind(("localhost", 0))
    return str(probe.getsockname()[1])


def together(commands: list[list[str]],
             own: list[dict[str, str]] | None = None, **variables: str
             ) -> list[tuple[int, str]]:
  """Exit codes and outputs of processes that run at the same time.

  Args:
    commands: of each.
    own: environment variables of each.
    variables: of all.
  """
  with contextlib.ExitStack() as stack:
    outputs = [stack.enter_context(tempfile.TemporaryFile("w+"))
               for _ in commands]
    running = [stack.enter_context(subprocess.Popen(
        [sys.executable, "-m", *command], cwd=ROOT, stdout=output,
        stderr=subprocess.STDOUT, env=os.environ | variables | more))
               for command, output, more in zip(
                   commands, outputs, own or [{}] * len(commands))]
    with contextlib.suppress(subprocess.TimeoutExpired):
      end = time.monotonic() + PATIENCE
      for process in running:
        process.wait(max(0, end - time.monotonic()))
    for process in running:
      process.kill()
      process.wait()
    for output in outputs:
      output.seek(0)
    return [(process.returncode, output.read())
            for process, output in zip(running, outputs)]


def group(folder: pathlib.Path, processes: int, *scenarios: str) -> list[dict]:
  """The results of each process of a group."""
  port = free_port()
  ended = together(
      [["tests.host", str(folder), port, str(processes), str(i), *scenarios]
       for i in range(processes)],
      JAX_NUM_CPU_DEVICES=str(host.DEVICES // processes))
  assert [code for code, _ in ended] == [0] * processes, "\n".join(
      out[-3000:] for _, out in ended)
  return [json.loads((folder / f"{processes}_{i}.json").read_text())
          for i in range(processes)]


@pytest.fixture(scope="module")
def one(folder) -> dict:
  """The runs of a single process."""
  pretrained = train.train(host.plain(folder), folder / "one")
  return {"pretrain": host.outputs(pretrained), "finetune": host.outputs(
      train.train(host.task(folder, layout=FirstDevices()),
                  folder / "one_task"))}


@pytest.fixture(scope="module")
def two(folder, one) -> list[dict]:
  ask = lambda step: step == 1 and os.kill(os.getpid(), signal.SIGTERM)
  with pytest.raises(loop.Stopped):
    train.train(host.plain(folder, save_every=100), folder / "legs",
                observers=Observers(ask))
  return group(folder, 2, "finetune", "resume", "rows", "steps", "flags",
               "disagree", "doctor")


def assert_same(outputs: dict, expected: dict) -> None:
  assert outputs["scores"] == pytest.approx(expected["scores"], rel=1e-5)
  assert outputs["params"].keys() == expected["params"].keys()
  for path, value in expected["params"].items():
    np.testing.assert_allclose(outputs["params"][path], value, rtol=0,
                               atol=1e-6, err_msg=path)


def test_finetuning_on_two_processes_equals_one(folder, one, two):
  for answers in two:
    assert_same(answers["finetune"], one["finetune"])
    assert answers["finetune"]["count"] == 37
  assert len((folder / "two_task.tsv").read_text().splitlines()) == 38


def test_run_resumes_on_other_numbers_of_processes(folder, one, two):
  """One until SIGTERM, two until SIGTERM to the second, then one again."""
  for answers in two:
    assert "saved at step 4 of 6" in answers["resume"]
  last = train.train(host.plain(folder, save_every=100), folder / "legs")
  assert_same(host.outputs(last), one["pretrain"])
  lines, expected = curve(folder / "legs"), curve(folder / "one")
  assert len(lines) == len(expected)  # written once
  for line, other in zip(lines, expected):
    assert line == pytest.approx(other, rel=1e-5)


def test_processes_read_the_rows_of_their_devices(two):
  first, second = (answers["rows"] for answers in two)
  assert first == {"in turn": [0, 1, 4, 5], "shared": list(range(8)),
                   "across": list(range(8))}
  assert second == first | {"in turn": [2, 3, 6, 7]}


def test_pmap_steps_as_one_process(folder, two):
  expected = host.steps(folder)
  for answers in two:
    assert_same(answers["steps"], expected)


def test_flag_of_any_process_reaches_all(two):
  for answers in two:
    assert answers["flags"] == [[True, False, True], [True, False, True],
                              [True, False, False]]


def test_differing_processes_stop_together(folder, two):
  for answers in two:
    table, message = answers["disagree"]
    assert "seed" in table and "steps" not in table
    assert ":0" in table.splitlines()[1] and ":1" in table.splitlines()[1]
    assert ":1: " in message and "missing.txt" in message
  assert not (folder / "never" / "metrics.jsonl").exists()


def test_doctor_reports_faults_of_other_processes(two):
  (code, out), (other_code, other_out) = (answers["doctor"] for answers in two)
  assert code == other_code == 1
  fault, = (line for line in out.splitlines() if line.startswith("!!"))
  assert ":1: workdir: /proc" in fault
  assert "clocks: 0.0 s apart" in out and "1 of these need" in out
  assert "ok" not in other_out and "1 of these need" in other_out


def test_four_processes_share_rows_and_name_differences(folder):
  four = group(folder, 4, "rows", "agree")
  assert [answers["rows"]["across"] for answers in four] == [
      [0, 1, 2, 3], [4, 5, 6, 7], [0, 1, 2, 3], [4, 5, 6, 7]]
  for answers in four:
    _, fact = answers["agree"].splitlines()
    assert re.search(r"seed: 0 \(.*:0 and 2 more\), 1 \(.*:2\)", fact)


def test_differing_commands_end_on_every_host(tmp_path, folder, one):
  """Also where no computation over their devices would, as with other types."""
  port = free_port()
  ended = together([
      ["bert_jax", "evaluate", str(folder / "one"), f"batch_size={8 + 8 * i}",
       "--distributed", "coordinator", "--coordinator", f"localhost:{port}",
       "--processes", "2", "--process", str(i)]
      for i in range(2)], [{}, {"JAX_ENABLE_X64": "1",
                                "JAX_DEFAULT_PRNG_IMPL": "rbg"}],
      JAX_NUM_CPU_DEVICES="1")
  for code, out in ended:
    assert code == 1 and "Traceback" not in out, out
    assert "batch_size: 8 (" in out and "16 (" in out
    assert "jax_enable_x64: False (" in out and "rbg (" in out


def test_hosts_are_compared_in_all_that_changes_the_program():
  usual = environment.process()
  with small_run.other_settings(), jax.default_matmul_precision("highest"):
    other = environment.process()
  hosts = [{"host": f"node:{i}", "error": "", "values": values}
           for i, values in enumerate([usual, usual, other, usual])]
  distributed.check_equal(hosts[:2])
  with pytest.raises(UserError) as raised:
    distributed.check_equal(hosts)
  names = [line.split(":")[0].strip() for line in str(raised.value).split("\n")]
  assert set(names[1:]) == {
      "jax_default_matmul_precision", "jax_enable_x64", "jax_default_prng_impl",
      "jax_threefry_partitionable"}
  assert ("rbg (node:2)" in str(raised.value)
          and "threefry2x32 (node:0 and 2 more)" in str(raised.value))


@pytest.mark.parametrize("failed, name", [
    ([0, 2], "node:1"), ([], "node:0"), (None, "node:0")])
def test_last_words_name_the_process_that_died(monkeypatch, failed, name):
  """`failed` together with this one; None: process 0 is gone."""

  class Client:

    def key_value_dir_get(self, key):
      return [(f"{key}/{process}", "") for process in failed]

  monkeypatch.setattr(distributed, "_hosts", ["node:0", "node:1", "node:2"])
  words = distributed._unanswering(Client(), "bert_jax/exit/0")
  assert f"No answer from {name}" in words and "same command" in words


@pytest.mark.parametrize("arguments", [
    ("coordinator", "10.0.0.2:1"), ("coordinator", None, 2, 1),
    ("coordinator",), ("auto", "10.0.0.2:1", 2, 1), ("none", None, 2)])
def test_start_explains_incomplete_flags(arguments):
  with pytest.raises(UserError, match="--coordinator HOST:PORT, --processes N"):
    distributed.start(*arguments)


@pytest.mark.parametrize("error, joined, variables", [
    (ValueError("coordinator_address should be defined."), 0, {}),
    (RuntimeError("The metadata server does not answer"), None, {}),
    (None, 1, {}),
    (None, 0, {"TPU_PROCESS_ADDRESSES": "local"})])  # Kaggle
def test_start_auto_asks_jax(monkeypatch, error, joined, variables):
  calls = []

  def initialize():
    calls.append(1)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # as a service of jax does
    if error:
      raise error

  for name, value in variables.items():
    monkeypatch.setenv(name, value)
  monkeypatch.setattr(jax.distributed, "initialize", initialize)
  before = signal.getsignal(signal.SIGTERM)
  if joined is None:
    with pytest.raises(UserError, match="server does not answer"):
      distributed.start()
  else:
    distributed.start()
    assert len(calls) == joined + bool(error)
  assert signal.getsignal(signal.SIGTERM) == before


def test_start_refuses_one_of_several_unconnected_processes(monkeypatch):
  monkeypatch.setattr(jax.distributed, "initialize", lambda: None)
  monkeypatch.setattr(jax, "process_count", lambda: 4)
  with pytest.raises(UserError, match="one of 4 processes"):
    distributed.start()


def test_single_process_needs_no_coordination():
  distributed.start("none")
  assert distributed.first()
  assert distributed.any_host([True, False])() == [True, False]
  assert distributed.broadcast({"a": 1}) == {"a": 1}
  distributed.assert_equal({"seed": "1"})
  with pytest.raises(UserError, match="no such file"):
    distributed.assert_equal({}, "no such file")
  assert distributed.exit_together("it failed") == "it failed"
