"""The project on one GPU: is it right there, and how fast beside PyTorch?

  python tools/gpu_check.py --output gpu    ten minutes on an H100 or H200
  python tools/gpu_check.py --short         whether it runs through, on a CPU

Parts come in the order of their worth, each in a process of its own with its
share of the time; what one leaves the next may use. After every result
gpu_check.json and gpu_check.md are complete in the folder, so that a cut at any
moment leaves what was obtained; PART.log has what a part said beside.

  device          versions, the datasheet's peak, the speed of one product
  speed           steps of BERT-base and large in bfloat16 beside PyTorch's,
                  compiled, on the same rows, in turns
  equivalences    gradients of layouts, microbatches, remat, unrolled layers and
                  members of model.attention against one another; a resumed run
  embed           sentences a second
  pretraining     BERT-small on embedded text in bfloat16

PyTorch and transformers are taken from this Python, or from --torch-python, or
from an environment that is made before the time begins; without them the
project is measured alone. Nothing else needs the network.
"""

import argparse
import contextlib
import os
import pathlib
import selectors
import signal
import subprocess
import sys
import time

from gpu import report

ROOT = pathlib.Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
# Seconds of ten minutes.
SHARES = {"device": 20, "speed": 215, "equivalences": 75, "embed": 25,
          "pretraining": 265}


def run_part(name, seconds, arguments, results):
  """Runs a part and takes its lines, for `seconds` at most.

  Returns:
    Whether it came to its end.
  """
  report.progress(f"{name}: {seconds:.0f} s at most")
  end = time.monotonic() + seconds
  command = [sys.executable, __file__, "--part", name, "--seconds",
             f"{seconds:.0f}", *arguments]
  with open(results.folder / f"{name}.log", "w") as log, subprocess.Popen(
      command, stdout=subprocess.PIPE, stderr=log, start_new_session=True,
      env=_environment("--short" in arguments)) as process:
    try:
      for line in _lines(process.stdout, end):
        results.add(name, line)
      if time.monotonic() >= end:
        results.note(name, f"Cut after {seconds:.0f} s.")
        return False
      if process.wait():
        results.note(name, f"Failed: {_last_line(log.name)}")
    finally:
      # Its own processes too, by their group.
      with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
  report.progress(f"{name}: {time.monotonic() - end + seconds:.0f} s")
  return process.returncode == 0


def _environment(short):
  """Of a part: with the project's cache of compiled programs."""
  from bert_jax import files
  variables = {"JAX_COMPILATION_CACHE_DIR": str(
      files.cache_directory() / "compiled")} | os.environ
  variables["PYTHONPATH"] = os.pathsep.join(
      filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
  if short:  # Compiling is most of it, and parts compile the same.
    variables["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
    variables["XLA_FLAGS"] = (variables.get("XLA_FLAGS", "")
                              + " --xla_backend_optimization_level=0")
  return variables


def _lines(stream, end):
  """Complete lines as they come, until the stream's or the time's end."""
  rest = b""
  with selectors.DefaultSelector() as selector:
    selector.register(stream, selectors.EVENT_READ)
    while (left := end - time.monotonic()) > 0 and selector.select(left):
      new = os.read(stream.fileno(), 1 << 16)
      if not new:
        return
      *complete, rest = (rest + new).split(b"\n")
      yield from complete


def _last_line(path):
  lines = pathlib.Path(path).read_text(errors="replace").strip().splitlines()
  return lines[-1] if lines else "it said nothing."


def work(options):
  """One part, in this process."""
  if options.part == "device":
    from gpu import device as part
  elif options.part == "speed":
    from gpu import speed as part
  elif options.part == "equivalences":
    from gpu import equivalences as part
  elif options.part == "embed":
    from gpu import embedding as part
  else:
    from gpu import pretraining as part
  part.check(options)


def main():
  parser = argparse.ArgumentParser(
      description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
  parser.add_argument("--output", default="gpu_check", metavar="FOLDER",
                      help="for the report; default: gpu_check")
  parser.add_argument("--minutes", type=float, default=10)
  parser.add_argument("--parts", default=",".join(SHARES), metavar="A,B",
                      help="some of the parts")
  parser.add_argument("--short", action="store_true",
                      help="tiny shapes, without PyTorch")
  parser.add_argument("--no-torch", action="store_true",
                      help="measure the project alone")
  parser.add_argument("--torch-python", metavar="FILE", help=(
      "a Python that has torch and transformers"))
  parser.add_argument("--variant", action="append", default=[], metavar="'K=V'",
                      help="speed also with these overrides; repeatable")
  parser.add_argument("--part", choices=SHARES, help=argparse.SUPPRESS)
  parser.add_argument("--seconds", type=float, help=argparse.SUPPRESS)
  options = parser.parse_args()
  if options.part:
    return work(options)
  parts = options.parts.split(",")
  if unknown := set(parts) - SHARES.keys():
    parser.error(f"no part {', '.join(sorted(unknown))}; there are "
                 f"{', '.join(SHARES)}")
  # With its own output: a part is this program again.
  arguments = [word for word in sys.argv[1:]]
  if not (options.short or options.no_torch or "speed" not in parts):
    from gpu import torch_python
    python = torch_python.find(options.torch_python)
    arguments += ["--torch-python", python] if python else ["--no-torch"]
  results = report.Report(options.output)
  start, left = time.monotonic(), sum(SHARES[part] for part in parts)
  good = True
  for part in parts:
    # What is left of the time, by the shares of the parts that are left.
    remaining = options.minutes * 60 - (time.monotonic() - start)
    good &= run_part(part, remaining * SHARES[part] / left, arguments, results)
    left -= SHARES[part]
  print(results.markdown())
  sys.exit(0 if good else 1)


if __name__ == "__main__":
  main()
