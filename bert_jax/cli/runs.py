"""What runs there are: runs."""

import argparse
import collections
import datetime
import os
import pathlib
import sys

import rich.console
import rich.table

from bert_jax import files
from bert_jax.cli import flags
from bert_jax.config import UserError
from bert_jax.studies.reports import run_table
from bert_jax.studies.reports.run_table import ListedRun


def add(commands: argparse._SubParsersAction) -> None:
  listing = flags.command(
      commands, "runs", _runs, "The runs below a folder: date, state, steps, "
      "tokens, scores, and what differs between them.",
      "bert-jax runs runs --since 7d --csv runs.csv")
  listing.add_argument("folder", help="folder that has the runs, at any "
                       "depth")
  listing.add_argument("--since", metavar="TIME", help="leaves out those that "
                       "ended before, as 7d, 12h or 2026-01-31")
  for name in ("csv", "json"):
    listing.add_argument(f"--{name}", nargs="?", const="-", metavar="FILE",
                         help=f"all that is known as {name.upper()}, to a file "
                         "or, without one, to standard output")


def _runs(options: argparse.Namespace) -> None:
  since = run_table.since_time(options.since) if options.since else ""
  if not os.path.isdir(options.folder):
    raise UserError(f"There is no folder {options.folder}.")
  runs, faults = run_table.read(pathlib.Path(options.folder), since)
  for fault in faults:
    print(fault, file=sys.stderr)
  written = [(path, write(runs)) for path, write in (
      (options.csv, run_table.as_csv), (options.json, run_table.as_json))
             if path]
  for path, text in written:
    if path == "-":
      print(text, end="")
    else:
      files.write_text(path, text)
  if not written and not runs:
    raise UserError(f"No run is below {options.folder}"
                    + (f" since {options.since}." if since else "."))
  if not written:
    console = rich.console.Console(highlight=False)
    console.print(_table(runs))
    for line in _remarks(runs):
      console.print(line, markup=False)


def _table(runs: list[ListedRun]) -> rich.table.Table:
  table = rich.table.Table(box=None, pad_edge=False)
  titles = list(dict.fromkeys(title for run in runs for title in run.scores))
  table.add_column("run", overflow="fold")
  for name in ("started", "state"):
    table.add_column(name, no_wrap=True)
  for name in ("step", "tokens", "time", *titles):
    # A figure stands below the protocol that gave it.
    table.add_column(name.replace(" ", "\n"), justify="right", overflow="fold")
  for run in runs:
    about = run.record
    steps = (str(about.step) if about.step == about.steps
             else f"{about.step}/{about.steps}")
    table.add_row(
        run.name, about.started[:16].replace("T", " "), run.state, steps,
        _short(about.tokens),
        str(datetime.timedelta(seconds=round(about.seconds))),
        *(f"{run.scores[title]:.4g}" if title in run.scores else ""
          for title in titles))
  return table


def _remarks(runs: list[ListedRun]) -> list[str]:
  """What differs, of runs in which the same does, and why runs ended."""
  differing = collections.defaultdict(list)
  for run in runs:
    differing[", ".join(run.differs)].append(run.name)
  differing.pop("", None)
  lines = [f"{', '.join(names)}: {differs}"
           for differs, names in differing.items()]
  messages = [f"{run.name} {run.state}: {run.record.message}"
              for run in runs if run.record.message]
  return [*(["", "Not as most of these runs:", *lines] if lines else []),
          *(["", *messages] if messages else [])]


def _short(count: float) -> str:
  for size, letter in ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "k")):
    if count >= size:
      return f"{count / size:.3g}{letter}"
  return f"{count:.0f}"
