"""Kills a study again and again, and sees that nothing is lost or done twice.

  python tools/torture_study.py --kills 10 --seed 0

Runs `bert-jax ablate` of two arms with three seeds: once undisturbed, then by
two processes that share the work (--share) in another folder, of which a random
one gets SIGKILL at a random moment and is started again. At the end study.md
has to be the same but for times, and every run's parameters bit for bit.
Exits with 1 where they are not.
"""

import argparse
import pathlib
import random
import re
import signal
import subprocess
import sys
import tempfile
import time

import numpy as np

ROOT = pathlib.Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from bert_jax.checkpoints.reading import read_checkpoint
from bert_jax.training.param_paths import leaves

WORDS = ("ablate", "quickstart", "--seeds", "3", "--protocols",
         "mlm percent=5", "pre=model.norm_placement=pre",
         "steps=60", "evaluate_every=20", "save_every=10", "log_every=5",
         "batch_size=16", "evaluation_batches=2", "model.hidden_size=32",
         "model.intermediate_size=64")
# A process is killed within this many seconds.
LONGEST = 12.0


def start(folder: pathlib.Path, share: str = "1/1") -> subprocess.Popen:
  with open(f"{folder}.log", "a") as log:
    return subprocess.Popen(
        [sys.executable, "-m", "bert_jax", *WORDS, "--workdir", str(folder),
         "--share", share], cwd=ROOT, start_new_session=True, stdout=log,
        stderr=log)


def kill_at_random(folder: pathlib.Path, kills: int,
                   rng: random.Random) -> None:
  """Two processes until both end by themselves, after `kills` kills."""
  shares = ["1/2", "2/2"]
  processes = [start(folder, share) for share in shares]
  while kills:
    time.sleep(rng.uniform(1, LONGEST))
    i = rng.randrange(2)
    if processes[i].poll() is None:
      processes[i].send_signal(signal.SIGKILL)
      processes[i].wait()
      kills -= 1
      print(f"killed {shares[i]}; {kills} kills left", flush=True)
    processes[i] = start(folder, shares[i])
  for process in processes:
    if process.wait():
      raise SystemExit(f"A process failed; see {folder}.log.")


def without_times(report: str) -> str:
  """Without columns of seconds, and without the names of the folders."""
  lines, dropped = [], []
  for line in report.splitlines():
    if line.endswith("times the base's seconds."):
      continue
    if not line.startswith("|"):
      dropped = []
    else:
      cells = line.split("|")
      if not dropped:
        dropped = [i for i, cell in enumerate(cells) if re.search(
            r"second|time|ended", cell)] or [-1]
      line = "|".join(cell.strip() for i, cell in enumerate(cells)
                      if i not in dropped)
    lines.append(re.sub(r"--workdir \S+|/\S+/(once|killed)\b", "", line))
  return "\n".join(lines)


def faults(once: pathlib.Path, killed: pathlib.Path) -> list[str]:
  """How two folders of one study differ."""
  reports = [without_times((folder / "study.md").read_text())
             for folder in (once, killed)]
  differing = [] if reports[0] == reports[1] else ["study.md differs"]
  runs = sorted(path.parent.relative_to(once)
                for path in once.glob("*/seed*/run.json"))
  for run in runs:
    params = [leaves(read_checkpoint(folder / run).params)
              for folder in (once, killed)]
    if any(not np.array_equal(params[0][path], params[1][path])
           for path in params[0]):
      differing.append(f"the parameters of {run} differ")
  return differing if len(runs) == 6 else [*differing, f"{len(runs)} runs"]


def main() -> int:
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument("--kills", type=int, default=10)
  parser.add_argument("--seed", type=int, default=0)
  parser.add_argument("--folder", help="default: a temporary one")
  options = parser.parse_args()
  folder = pathlib.Path(options.folder or tempfile.mkdtemp())
  folder.mkdir(parents=True, exist_ok=True)
  once, killed = folder / "once", folder / "killed"
  begun = time.monotonic()
  if start(once).wait():
    raise SystemExit(f"The undisturbed study failed; see {once}.log.")
  print(f"undisturbed: {time.monotonic() - begun:.0f} s", flush=True)
  kill_at_random(killed, options.kills, random.Random(options.seed))
  differing = faults(once, killed)
  print(f"{options.kills} kills in {(time.monotonic() - begun) / 60:.1f} "
        "minutes. " + ("; ".join(differing) + f"; see {folder}."
                       if differing else
                       "Everything is as in the undisturbed study."))
  return bool(differing)


if __name__ == "__main__":
  sys.exit(main())
