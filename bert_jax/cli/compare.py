"""Comparing runs that are done: compare."""

import argparse
import pathlib
from collections.abc import Sequence

from bert_jax.cli import flags
from bert_jax.config import UserError
from bert_jax.studies import definition
from bert_jax.studies.reports import comparison, missing_scores, report
from bert_jax.studies.reports.comparison import Comparison


def add(commands: argparse._SubParsersAction) -> None:
  comparing = flags.command(
      commands, "compare", _compare,
      "The differences of runs from the first one, or of a study's arms from "
      "its base, with intervals.")
  comparing.add_argument("runs", nargs="+", metavar="RUN|STUDY",
                         help="work directories; runs whose options are equal "
                         "but for the seed are one arm, the first one's arm is "
                         "the base. Or the folder of one study")
  comparing.add_argument("--protocol", action="append", metavar="TITLE",
                         help="as mlm@1, may be given several times, the first "
                         "one decides; runs without its score are scored. "
                         "Default: all that every run was scored by, or mlm")
  comparing.add_argument("--output", help="a folder for study.md, study.html "
                         "and their pictures")


def _compare(options: argparse.Namespace) -> None:
  result = _read([pathlib.Path(run) for run in options.runs],
                 options.protocol or ())
  if options.output:
    folder = pathlib.Path(options.output)
    folder.mkdir(parents=True, exist_ok=True)
    report.write(folder, result)
  flags.say(report.markdown_of(result))


def _read(folders: list[pathlib.Path], protocols: Sequence[str]) -> Comparison:
  studies = [folder for folder in folders if definition.read(folder)]
  if not studies:
    return comparison.read_runs(
        folders, missing_scores.score_missing(folders, protocols))
  if len(folders) > 1:
    raise UserError(f"{studies[0]} is a study: give it alone, or runs only.")
  if protocols:
    raise UserError(f"{studies[0]} is a study, whose protocols are its own; "
                    "compare the folders of its runs by others.")
  return comparison.read_study(studies[0])
