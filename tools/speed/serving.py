"""The two ends of a contender's process: it waits for numbers of repetitions
and answers with times."""

import json
import os
import pathlib
import subprocess
import sys
import time

HERE = pathlib.Path(__file__).resolve().parent


def serve(makers):
  """In the process: answers each line `n` with the time of a repetition, the
  mean of n, in ms: on the clock, and of the cores.

  Args:
    makers: functions by name; each takes the options of the command line and
      gives a function of no arguments and a note of versions.
  """
  answers = os.fdopen(os.dup(1), "w")
  os.dup2(2, 1)  # What libraries print is no answer.
  run, versions = makers[sys.argv[1]](json.loads(sys.argv[2]))
  print(versions, file=answers, flush=True)
  for line in sys.stdin:
    clocks = time.perf_counter, time.process_time
    start = [clock() for clock in clocks]
    for _ in range(int(line)):
      run()
    print(*((clock() - t) * 1000 / int(line)
            for clock, t in zip(clocks, start)), file=answers, flush=True)


class Worker:
  """Such a process, on some cores.

  Attributes:
    versions: of what it runs.
    first: seconds until it had done its work once, compiling included.
  """

  def __init__(self, python, file, name, options, checkout, cores):
    variables = {**os.environ, "JAX_PLATFORMS": "cpu", "HF_HUB_OFFLINE": "1",
                 "OMP_NUM_THREADS": str(len(cores)),
                 "PYTHONPATH": str(checkout)}
    start = time.perf_counter()
    self.process = subprocess.Popen(
        [python, HERE / file, name, json.dumps(options)], text=True,
        env=variables, cwd=checkout, stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        preexec_fn=lambda: os.sched_setaffinity(0, cores))
    self.versions = self._answer()
    self.run(1)
    self.first = time.perf_counter() - start

  def run(self, times):
    """Milliseconds of one: on the clock, and of the cores."""
    print(times, file=self.process.stdin, flush=True)
    return tuple(map(float, self._answer().split()))

  def _answer(self):
    line = self.process.stdout.readline()
    if not line:
      sys.exit(f"{' '.join(map(str, self.process.args))}: it ended, see above.")
    return line.strip()

  def stop(self):
    self.process.stdin.close()
    self.process.wait()
