#!/usr/bin/env python3
"""How fast the project is, each kind of work beside something to compare with.

  python tools/bench.py --training --torch       a training step, in turns
  python tools/bench.py --training --against main~5      and an older commit's
  python tools/bench.py --inference --embed TEXTS --model DIRECTORY --torch
  python tools/bench.py --finetuning FOLDER --model DIRECTORY --torch
  python tools/bench.py --predict base --topology v5e:2x2 --against main~5
  python tools/bench.py --rows                   corpus build and loader
  python tools/bench.py --document               the tables of docs/results.md

Contenders are processes on the same cores that take turns in one run; times
are medians, and ratios medians of the rounds' ratios to this project: above 1
it is the faster. On one core the time that the cores worked is the better
figure, as other programs disturb it less. Every table is a line of
benchmarks/results.jsonl.

Training and inference: BERT-mini (4 layers of 256), 16 rows of 128 tokens,
float32, masked words and next sentence, dropout .1, clipping and AdamW.
"""

import argparse
import contextlib
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile

from beside import environment, print_table
from speed import predicted, record
from speed.serving import Worker

ROOT = pathlib.Path(__file__).resolve().parents[1]


def main():
  args = parser().parse_args()
  with contextlib.ExitStack() as stack:
    folder = pathlib.Path(stack.enter_context(tempfile.TemporaryDirectory()))
    checkouts = {"this project": ROOT}
    if args.against:
      checkouts[f"at {args.against}"] = stack.enter_context(
          checkout(args.against, folder))
    for work, title in (("training", "Training step"),
                        ("inference", "Inference"),
                        ("embed", "Vectors of texts")):
      if getattr(args, work):
        in_turns(args, work, title, workers(args, work, checkouts))
    if args.finetuning:
      in_turns(args, "finetuning", "Fine-tuning, whole command",
               commands(args, checkouts, folder))
    if args.predict:
      predict(args, checkouts)
    if args.corpus or args.rows:
      measure_data(args, folder)
  if args.document:
    record.write_document()


def parser():
  parsing = argparse.ArgumentParser(
      description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
  add = parsing.add_argument
  add("--training", action="store_true", help="the training step")
  add("--inference", action="store_true", help="the loss without dropout")
  add("--embed", metavar="TEXTS", type=pathlib.Path,
      help="vectors of the lines of a file, by --model")
  add("--finetuning", metavar="FOLDER", type=pathlib.Path,
      help="a pass over its train.tsv and dev.tsv (sentence, label)")
  add("--model", type=pathlib.Path, help="a Hugging Face directory")
  add("--predict", metavar="PAGE",
      help="the step on --topology, which takes libtpu")
  add("--topology", default="v5e:2x2")
  add("--override", action="append", default=[], metavar="K=V",
      help="of the training step or the page; repeatable")
  add("--against", metavar="COMMIT", help="beside this commit of the project")
  add("--torch", action="store_true", help=(
      "beside PyTorch, in an environment of its own that the first call\n"
      "makes in the cache folder, or by --torch-python"))
  add("--torch-python", help="an interpreter with torch, transformers and,\n"
      "for --embed, sentence-transformers")
  add("--torch-requirement", default="torch==2.13.0")
  add("--torch-index", default="", metavar="URL",
      help="where pip finds a CPU build, if not in its usual index")
  add("--cores", type=int, default=1, help="that all run on; default 1")
  add("--rounds", type=int, default=9)
  add("--repetitions", type=int, default=2, help="in a round")
  add("--corpus", action="store_true", help="the corpus build")
  add("--rows", action="store_true", help="the corpus build and the loader")
  add("--text", default="embedded", help="of these two, as in data.text")
  add("--document", action="store_true",
      help="writes the tables of docs/results.md")
  return parsing


@contextlib.contextmanager
def checkout(commit, folder):
  """A work tree of a commit."""
  git = ["git", "-C", ROOT, "worktree"]
  subprocess.run([*git, "add", "--quiet", "--detach", folder / "against",
                  commit], check=True)
  try:
    yield folder / "against"
  finally:
    subprocess.run([*git, "remove", "--force", folder / "against"], check=True)


def torch_python(args):
  index = ["--index-url", args.torch_index] if args.torch_index else []
  return args.torch_python or environment(
      "torch", [args.torch_requirement, *index],
      ["transformers", "sentence-transformers", "accelerate"])


def core_numbers(args):
  """The last ones: the system prefers the first."""
  return sorted(os.sched_getaffinity(0))[-args.cores:]


def workers(args, work, checkouts):
  """Contenders that live through all rounds, by label."""
  options = {"overrides": args.override}
  if work == "embed":
    options = {"texts": str(args.embed.resolve()),
               "model": str(args.model.resolve())}
  cores = core_numbers(args)
  made = {label: Worker(sys.executable, "jax_work.py", work, options, path,
                        cores) for label, path in checkouts.items()}
  if args.torch:
    kinds = ({"sentence-transformers": {}} if work == "embed" else {
        "PyTorch, transformers as shipped": {"gathered": False},
        "PyTorch, logits only where masked": {"gathered": True}})
    for label, more in kinds.items():
      made[label] = Worker(torch_python(args), "torch_work.py", work,
                           options | more, ROOT, cores)
  return made


class Command:
  """A contender that is started in every round."""

  versions, first = "", 0.0

  def __init__(self, function):
    self._function, self._number = function, 0

  def run(self, times):
    self._number += 1
    return self._function(self._number)

  def stop(self):
    pass


def commands(args, checkouts, folder):
  from speed import finetuning

  cores, made = core_numbers(args), {}
  given, model = args.finetuning.resolve(), args.model.resolve()
  for i, (label, path) in enumerate(checkouts.items()):
    (folder / str(i)).mkdir()
    made[label] = Command(lambda n, path=path, i=i: finetuning.project(
        sys.executable, path, model, folder / str(i), given, cores, n))
  if args.torch:
    python = torch_python(args)
    made["transformers' Trainer"] = Command(lambda n: finetuning.trainer(
        python, model, folder, given, cores))
  for command in made.values():
    command.first = command.run(1)[0] / 1000  # Compiles, fills the caches.
  return made


def in_turns(args, work, title, contenders):
  """Rounds of all contenders; prints their table and keeps it."""
  times = {label: [] for label in contenders}
  for _ in range(args.rounds):
    for label, contender in contenders.items():
      times[label].append(contender.run(args.repetitions))
  ours = times[next(iter(times))]
  median = lambda values: statistics.median(list(values))
  lines = [{
      "label": label, "first": contenders[label].first,
      "clock": median(t for t, _ in its), "cores": median(t for _, t in its),
      "clock_ratio": median(a / b for (a, _), (b, _) in zip(its, ours)),
      "cores_ratio": median(a / b for (_, a), (_, b) in zip(its, ours))}
      for label, its in times.items()]
  versions = dict.fromkeys(c.versions for c in contenders.values())
  print(record.table(record.append({
      "work": work, "title": title, "cores": args.cores,
      "rounds": args.rounds, "versions": [v for v in versions if v],
      "overrides": args.override, "against": args.against or "",
      "contenders": lines})), flush=True)
  for contender in contenders.values():
    contender.stop()


def predict(args, checkouts):
  """The step on TPUs that are not here, and how it differs by part."""
  after, *before = (predicted.predict(sys.executable, path, args.predict,
                                      args.topology, args.override)
                    for path in checkouts.values())
  print_table([f"{args.predict} on {args.topology}, ms",
               f"at {args.against}" if before else "predicted",
               "this project", "difference"],
              predicted.rows(before[0] if before else after, after))


def measure_data(args, folder):
  from speed import data

  data.corpus(args.text, folder / "corpus")
  if args.rows:
    data.loading(args.text, folder / "corpus", args.rounds)


if __name__ == "__main__":
  sys.path.insert(0, str(ROOT))
  main()
