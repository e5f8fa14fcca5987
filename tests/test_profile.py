"""A profile of some steps: the network's parts, and who waited for whom."""

import json

import pytest

from bert_jax.analysis.topology.parts import part_of_name
from bert_jax.runs import trace, train
from bert_jax.runs.observers import Observers
from bert_jax.runs.profiling import Profiler
from tests import small_run


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
  folder = tmp_path_factory.mktemp("profile")
  small_run.write(folder)
  return folder


def profile(folder, workdir, steps):
  said = []
  with Profiler(workdir / "profile", steps, part_of_name,
                said.append) as profiler:
    train.train(small_run.pretraining(folder, steps=6), workdir,
                observers=Observers(profiler.on_step))
  return said


@pytest.mark.slow
def test_profile_names_the_parts_of_the_network(folder, tmp_path):
  said, = profile(folder, tmp_path, 2)
  assert "\n2 steps of " in said
  assert (tmp_path / "profile" / "parts.md").read_text() in f"{said}\n"
  rows = [line.split(" | ") for line in said.splitlines() if "%" in line]
  parts = {row[0].strip("| ") for row in rows[:-1]}
  assert parts >= {"attention", "feed-forward", "norms", "embeddings",
                   "vocabulary and loss", "corruption", "optimizer"}
  shares = [float(row[2].strip("%| ")) for row in rows[:-1]]
  assert sum(shares) == pytest.approx(100, abs=1)
  events = json.loads((tmp_path / "profile" / "trace.json").read_text())[
      "traceEvents"]
  named, = {e["name"].partition(": ")[0] for e in events
            if "/feed_forward/" in e.get("args", {}).get("op_name", "")}
  assert named == "feed-forward"


def test_profile_ends_with_the_run(folder, tmp_path):
  said, = profile(folder, tmp_path, 100)
  assert "\n3 steps of " in said  # Of 6; the first three are left out.


def test_run_that_is_too_short_to_profile_says_so(folder, tmp_path):
  said = []
  with Profiler(tmp_path / "profile", 5, part_of_name,
                said.append) as profiler:
    profiler.on_step(1)
    profiler.on_step(2)
  assert said == ["Nothing was traced: this process took 2 steps, and the "
                  "first 3 are left out, as they compile."]


def event(ts, dur, **args):
  return dict(ts=ts, dur=dur, pid=1, tid=1, name="", args=args)


def test_device_waits_from_its_last_step_to_the_next_dispatch():
  dispatches = [event(0, 10), event(20, 10), event(200, 30)]
  step = dict(hlo_module="step")
  operations = [event(10, 80, run_id="a", **step),
                event(120, 30, run_id="b", **step),
                event(160, 20, run_id="d", hlo_module="evaluation"),
                event(240, 50, run_id="c", **step)]
  # The second was dispatched before the first ended; the third was too late.
  assert trace.waited(operations, dispatches) == 230 - 180
  for operation in operations:
    del operation["args"]["run_id"]
  assert trace.waited(operations, dispatches) == 60  # 30 us are no gap.
