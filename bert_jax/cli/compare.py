"""Comparing runs that are done: compare."""

import argparse

from bert_jax.cli import flags
from bert_jax.studies.comparing import compare


def add(commands: argparse._SubParsersAction) -> None:
  comparing = flags.command(
      commands, "compare", _compare,
      "The differences of runs from the first one, or of a study's arms from "
      "its base, with intervals.", """\
bert-jax compare runs/base_* runs/rms_* --protocol mlm@1
bert-jax compare runs/abl --output report""")
  comparing.add_argument("runs", nargs="+", metavar="RUN|STUDY",
                         help="work directories; runs whose options are equal "
                         "but for the seed are one arm, the first one's arm is "
                         "the base. Or the folder of one study")
  comparing.add_argument("--protocol", action="append", metavar="PROTOCOL",
                         help="what to score by, as mlm@1 (`bert-jax score` "
                         "lists all); may be given several times, the first "
                         "one decides; runs without its score are scored. "
                         "Default: all that every run was scored by, or mlm@1")
  comparing.add_argument("--output", help="a folder for study.md, study.html "
                         "and their pictures")


def _compare(options: argparse.Namespace) -> None:
  report = compare(*options.runs, protocols=options.protocol or ())
  if options.output:
    report.write(options.output)
  flags.say_markdown(repr(report))
