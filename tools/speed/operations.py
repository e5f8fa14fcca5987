"""What the project's own work spends its time on, by part of the network and
kind of operation, on this machine.

  python tools/speed/operations.py inference
  python tools/speed/operations.py embed '{"texts": "sts.txt", "model": "..."}'
"""

import collections
import json
import pathlib
import re
import sys
import tempfile

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2]))

import jax_work  # Before jax, as there.
import jax

from bert_jax.analysis.topology.parts import part_of_name
from bert_jax.reporting import markdown
from bert_jax.runs import trace

CALLS = 5


def main():
  work, options = sys.argv[1], json.loads((sys.argv[2:] or ["{}"])[0])
  run, versions = getattr(jax_work, work)({"overrides": [], **options})
  run()
  with tempfile.TemporaryDirectory() as folder:
    settings = jax.profiler.ProfileOptions()
    settings.python_tracer_level = 0
    with jax.profiler.trace(folder, profiler_options=settings):
      for _ in range(CALLS):
        run()
    trace.name_parts(pathlib.Path(folder), part_of_name)
    events = json.loads((pathlib.Path(folder) / "trace.json").read_text())
  times = collections.Counter()
  for event in events["traceEvents"]:
    if "part" in event.get("args", {}):
      part, _, name = event["name"].partition(": ")
      times[part, re.sub(r"[.\d]+$", "", name)] += event["dur"]
  total = sum(times.values())
  print(versions)
  print(markdown.table(["part", "operation", "ms a call", "share"], [
      [*key, f"{time / 1000 / CALLS:.2f}", f"{time / total:.1%}"]
      for key, time in times.most_common(20)]))


if __name__ == "__main__":
  main()
