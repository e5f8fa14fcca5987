"""Kills a pretraining run again and again, and sees that nothing is lost.

  python tools/torture.py --kills 30 --seed 0

Runs `python -m bert_jax pretrain` as users do: once undisturbed, then with
another work directory and cache and SIGKILL to its process group while it
starts, builds the corpus, takes steps, saves or evaluates (judged by the files
in the folders), and at last to its end; and again from the beginning, until the
number of kills is reached. The parameters have to equal those of the
undisturbed run bit for bit, its metrics too, and its folders may hold no file
more or less.
Exits with 1 where they do not.
"""

import argparse
import collections
import dataclasses
import json
import os
import pathlib
import random
import re
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

ROOT = pathlib.Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from bert_jax.checkpoints.reading import read_checkpoint
from bert_jax.reporting import jsonl, markdown
from bert_jax.training.param_paths import leaves

KINDS = ("save", "evaluation", "start", "steps", "save")
KILLS_OF_A_RUN = 6
STEPS, EVERY = 200, 10
# Seconds in which a kill for "steps" comes once there are steps.
OF_STEPS = 3.0
PAGE = '''
"""A small run that is often evaluated and saved."""

from bert_jax.data.sources import TextData
from bert_jax.data.tokenizers.choices import SentencePieceTokenizer
from bert_jax.experiment import Experiment
from bert_jax.model.bert import BertConfig
from bert_jax.training.schedules import LinearSchedule

experiment = Experiment(
    model=BertConfig(hidden_size=32, num_hidden_layers=2, num_attention_heads=2,
               intermediate_size=64, max_position_embeddings=32),
    data=TextData(length=32, text={text!r}, held_out_percent=10.0,
                  tokenizer=SentencePieceTokenizer(vocab_size=1000)),
    schedule=LinearSchedule(1e-3), batch_size=16, steps={steps},
    evaluate_every={every}, evaluation_batches=10, save_every={every},
    log_every=5)
'''
# What differs from run to run in the names of files: the time and the host in
# that of an event file, and what Orbax draws at random.
DRAWN = ((r"events\.out\.tfevents\..*", "events.out.tfevents.*"),
         (r"/d/[0-9a-f]{32}$", "/d/*"))
# As many of these as Orbax's threads found work for.
ANY_NUMBER = "/d/*"


@dataclasses.dataclass(frozen=True)
class Run:
  """A run in folders of its own; `since` is when it was last started."""

  folder: pathlib.Path
  page: pathlib.Path
  since: float = 0.0

  @property
  def workdir(self) -> pathlib.Path:
    return self.folder / "run"

  def started(self) -> tuple["Run", subprocess.Popen]:
    (self.folder / "tmp").mkdir(parents=True, exist_ok=True)
    now = time.time()
    with open(self.folder.with_suffix(".log"), "a") as log:
      process = subprocess.Popen(
          [sys.executable, "-m", "bert_jax", "pretrain", str(self.page),
           "--workdir", str(self.workdir)],
          cwd=ROOT, start_new_session=True, stdout=log, stderr=log,
          env={"XLA_FLAGS": "--xla_backend_optimization_level=0",
               **os.environ, "BERT_JAX_CACHE": str(self.folder / "cache"),
               "TMPDIR": str(self.folder / "tmp")})
    return dataclasses.replace(self, since=now), process

  def builds(self) -> bool:
    return self._is_new("cache/corpora/.*.building-*")

  def saves(self) -> bool:
    return self._is_new("run/checkpoints/*.orbax-checkpoint-tmp*")

  def evaluates(self) -> bool:
    return self.steps() and any(
        line["step"] % EVERY == 0 and "train/loss" in line
        for line in self.lines()[-1:])

  def steps(self) -> bool:
    return self._is_new("run/metrics.jsonl")

  def _is_new(self, pattern: str) -> bool:
    """Whether something was made since the start, and is still there."""
    return any(_changed(path) >= self.since - .01
               for path in self.folder.glob(pattern))

  def lines(self) -> list[dict[str, float]]:
    path = self.workdir / "metrics.jsonl"
    return jsonl.read_jsonl(path) if path.exists() else []

  def saved(self) -> int:
    """The step that the next start resumes from."""
    return max((int(path.name) for path in
                (self.workdir / "checkpoints").glob("*")
                if path.name.isdecimal()), default=0)

  def under_way(self) -> str:
    return next((name for name, sign in SIGNS.items() if sign(self)), "start")


SIGNS = {"corpus": Run.builds, "save": Run.saves, "evaluation": Run.evaluates,
         "steps": Run.steps}


def _changed(path: pathlib.Path) -> float:
  try:
    return path.stat().st_mtime
  except FileNotFoundError:
    return 0.0


@dataclasses.dataclass(frozen=True)
class Kill:
  """When a run was killed and what it lost."""

  sign: str
  seconds: float  # since the start
  under_way: str
  reached: int  # the last step in the metrics
  saved: int

  def cells(self) -> list[str]:
    return [self.sign, f"{self.seconds:.2f}", self.under_way,
            str(self.reached), str(self.saved)]


def undisturbed(run: Run) -> dict[str, float]:
  """Runs to the end.

  Returns:
    In how many seconds after its sign (or the start) a kill is to come.
  """
  run, process = run.started()
  seen, began, start = {name: [0.0] for name in SIGNS}, {}, 0.0
  while process.poll() is None:
    now = time.time()
    for name, sign in SIGNS.items():
      if sign(run):
        began.setdefault(name, now)
      elif name in began:
        seen[name].append(now - began.pop(name))
    # The next ones need not compile: half of it is enough.
    start = start or bool(run.lines()) * (now - run.since)
    time.sleep(.004)
  _check_ended(run, process)
  return {name: statistics.median_high(spans) for name, spans in seen.items()
          } | {"start": start / 2, "steps": OF_STEPS}


def _check_ended(run: Run, process: subprocess.Popen) -> None:
  if process.wait():
    log = run.folder.with_suffix(".log").read_text()
    raise SystemExit(f"The run ended by itself with {process.returncode}:\n"
                     + log[-4000:])


def killed(run: Run, sign: str, spans: Mapping[str, float],
           draw: random.Random) -> Kill | None:
  """Starts a run and kills it; None: it came to its end before."""
  run, process = run.started()
  wait = draw.uniform(0, spans[sign])
  while sign in SIGNS and process.poll() is None and not SIGNS[sign](run):
    if sign == "corpus" and any(run.folder.glob("cache/corpora/*/*.json")):
      break  # It is built already.
    time.sleep(.001)
  time.sleep(wait)
  seconds = time.time() - run.since
  if process.poll() is None:
    os.killpg(process.pid, signal.SIGKILL)
  if process.wait() != -signal.SIGKILL:
    _check_ended(run, process)
    return None
  return Kill(sign, seconds, run.under_way(),
              max((int(line["step"]) for line in run.lines()), default=0),
              run.saved())


def differences(run: Run, reference: Run) -> list[str]:
  """What a run has otherwise than the undisturbed one."""
  faults = []
  ours, theirs = (leaves(read_checkpoint(r.workdir).params)
                  for r in (run, reference))
  if ours.keys() != theirs.keys():
    faults.append("other parameters")
  faults += [f"other values in {path}" for path in sorted(ours)
            if path in theirs and
            np.asarray(ours[path]).tobytes() != np.asarray(theirs[path]
                                                           ).tobytes()]
  if _numbers(run) != _numbers(reference):
    faults.append("other metrics")
  ours, theirs = _files(run), _files(reference)
  faults += [f"left behind: {name}" for name in (ours - theirs).elements()]
  faults += [f"missing: {name}" for name in (theirs - ours).elements()]
  log = run.folder.with_suffix(".log").read_text()
  return faults + [line for line in log.splitlines()
                  if "persistent compilation cache" in line]


def _numbers(run: Run) -> list[str]:
  return [json.dumps({name: value for name, value in line.items()
                      if "second" not in name}) for line in run.lines()]


def _files(run: Run) -> collections.Counter[str]:
  """Names of all files and empty folders, what is drawn replaced by *.

  Not those of compiled functions: whether one is kept depends on the time it
  took to compile.
  """
  names = collections.Counter()
  for path in run.folder.rglob("*"):
    name = str(path.relative_to(run.folder))
    if not name.startswith("cache/compiled/") and (
        path.is_file() or not any(path.iterdir())):
      for pattern, instead in DRAWN:
        name = re.sub(pattern, instead, name)
      names[name] += not name.endswith(ANY_NUMBER) or not names[name]
  return names


def tortured(folder: pathlib.Path, kills: int, seed: int, steps: int = STEPS,
             of_a_run: int = KILLS_OF_A_RUN
             ) -> Iterator[tuple[list[Kill], list[str]]]:
  """The kills of one run after another, and how it differs in the end."""
  draw = random.Random(seed)
  page = write_page(folder, steps, seed)
  reference, run = Run(folder / "whole", page), Run(folder / "killed", page)
  spans = undisturbed(reference)
  while kills > 0:
    # What was compiled stays: it was there to be damaged.
    for folder in (run.workdir, run.folder / "cache" / "corpora"):
      shutil.rmtree(folder, ignore_errors=True)
    done = []
    for sign in _signs(min(kills, of_a_run), draw):
      kill = killed(run, sign, spans, draw)
      if kill is None:
        break
      done.append(kill)
    kills -= len(done)
    _check_ended(*run.started())
    yield done, differences(run, reference)


def _signs(count: int, draw: random.Random) -> list[str]:
  """The corpus first, as it is built but once; then each as often."""
  rest = [KINDS[i % len(KINDS)] for i in range(count - 1)]
  draw.shuffle(rest)
  return ["corpus", *rest]


def write_page(folder: pathlib.Path, steps: int, seed: int) -> pathlib.Path:
  """A page over a text of three million random letters."""
  rng = np.random.default_rng(seed)
  letters = np.array(list("abdefgiklmnorstu"))
  words = np.array(["".join(rng.choice(letters, length))
                    for length in rng.integers(2, 9, 4000)])
  sentences = [" ".join(line) + "." for line in rng.choice(words, (40_000, 12))]
  (folder / "text.txt").write_text("\n\n".join(
      "\n".join(sentences[i:i + 8]) for i in range(0, len(sentences), 8)))
  page = folder / "page.py"
  page.write_text(PAGE.lstrip().format(text=str(folder / "text.txt"),
                                       steps=steps, every=EVERY))
  return page


def main(arguments: Sequence[str] | None = None) -> int:
  parser = argparse.ArgumentParser(
      description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument("--kills", type=int, default=30)
  parser.add_argument("--seed", type=int, default=0)
  parser.add_argument("--keep", action="store_true",
                      help="keep the folder of the last runs")
  options = parser.parse_args(arguments)
  folder = pathlib.Path(tempfile.mkdtemp(prefix="torture-"))
  table, wrong, start = [], [], time.monotonic()
  try:
    for number, (kills, faults) in enumerate(
        tortured(folder, options.kills, options.seed), 1):
      table += [[str(number), *kill.cells()] for kill in kills]
      wrong += [f"run {number}: {line}" for line in faults]
      print(f"run {number}: {len(kills)} kills, {len(faults)} differences",
            file=sys.stderr)
  finally:
    if options.keep:
      print(folder)
    else:
      shutil.rmtree(folder)
  print(markdown.table(["run", "sign", "seconds", "under way", "step reached",
                        "step saved"], table))
  print(f"\n{len(table)} kills in {(time.monotonic() - start) / 60:.1f} "
        "minutes. " + ("Not the same:\n  " + "\n  ".join(wrong) if wrong else
                       "Everything is as in the undisturbed run."))
  return 1 if wrong else 0


if __name__ == "__main__":
  sys.exit(main())
