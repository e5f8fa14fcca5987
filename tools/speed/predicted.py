"""The step on TPUs that are not here, as two commits have it."""

import json
import os
import subprocess
import sys


def predict(python, checkout, page, topology, overrides):
  """What `show --topology --json` says in a checkout."""
  words = ["show", page, *overrides, "--topology", topology, "--json"]
  run = subprocess.run([python, "-m", "bert_jax", *words], cwd=checkout,
                       env={**os.environ, "PYTHONPATH": str(checkout),
                            "JAX_PLATFORMS": "cpu"},
                       text=True, stdout=subprocess.PIPE)
  if run.returncode:
    sys.exit(f"{checkout}: `bert-jax {' '.join(words)}` failed, see above.")
  return json.loads(run.stdout.splitlines()[-1])


def rows(before, after):
  """Lines of a table: milliseconds of the step, of the wait for other chips and
  of each part of the network in two predictions, the largest difference first.
  """
  names = dict.fromkeys([*before["parts"], *after["parts"]])
  parts = [(name, *(1000 * side["parts"].get(name, {"seconds": 0})["seconds"]
                    for side in (before, after))) for name in names]
  parts.append(("waiting for other chips", *(
      1000 * side["exposed_seconds"] for side in (before, after))))
  parts.sort(key=lambda row: -abs(row[2] - row[1]))
  whole = ("step", *(1000 * side["step_seconds"] for side in (before, after)))
  return [[name, f"{a:.2f}", f"{b:.2f}", f"{b - a:+.2f}"]
          for name, a, b in (whole, *parts)]
