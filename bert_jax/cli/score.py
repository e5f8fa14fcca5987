"""Scoring runs by protocols, so that they can be compared."""

import argparse
import collections
import shutil
import textwrap

from bert_jax.checkpoints.reading import latest_manifest
from bert_jax.cli import flags
from bert_jax.config import catalog
from bert_jax.reporting import markdown
from bert_jax.studies.protocols.base import Protocol
from bert_jax.studies.protocols.scored_runs import score_run
from bert_jax.studies.protocols.scores import Score

_TITLES = (
    "A protocol is a way to score a run, given as NAME@VERSION with options, "
    "as \"mlm@1 length=64 percent=20\". Scores of two versions are not "
    "compared; a NAME alone is the version below.",
    "Options that are not given have the values below.")
# By run and protocol.
Scores = dict[str, dict[str, Score]]


def add(commands: argparse._SubParsersAction) -> None:
  scoring = flags.command(
      commands, "score", _score, "Scores of runs by named protocols, alike "
      "whatever the runs were trained with; kept in RUN/scores.", """\
bert-jax score                       # lists the protocols
bert-jax score runs/a runs/b --protocol mlm@1
bert-jax score runs/a --protocol "mlm@1 length=64 percent=20\"""")
  scoring.add_argument("workdirs", nargs="*", default=[], metavar="RUN",
                       help="work directories of runs; none: lists the "
                       "protocols")
  scoring.add_argument("--protocol", action="append", metavar="PROTOCOL",
                       help="what to score by, with its options, as mlm@1 or "
                       "\"mlm@1 length=64 percent=20\"; may be given several "
                       "times; default mlm@1. @1 is the version")
  flags.several_hosts(scoring)


def _score(options: argparse.Namespace) -> None:
  protocols = [Protocol.parse(title) for title in options.protocol or ["mlm@1"]]
  if not options.workdirs:
    flags.say(listing())
    return
  experiments = [latest_manifest(workdir).experiment
                 for workdir in options.workdirs]
  protocols = [protocol.fit(experiments) for protocol in protocols]
  for protocol in protocols:
    protocol.check()
  scores = {workdir: score_run(workdir, protocols)
            for workdir in options.workdirs}
  flags.say_markdown("\n\n".join([table(scores), *remarks(scores)]))


def listing() -> str:
  """The protocols there are, and the options that they have."""
  lines, users = [*_TITLES, ""], collections.defaultdict(list)
  for name, member in Protocol.members().items():
    options = list(catalog.catalog(member()))
    values = [f"{o.key}={o.value or chr(34) * 2}" for o in options]
    lines += [" ".join([f"{name}@{member.version}", *values]),
              f"    {catalog.summary(member)}"]
    for option in options:
      users[option.key, option.meaning].append(name)
  lines += ["", *(f"{key} of {', '.join(names)}: {meaning}"
                  for (key, meaning), names in users.items())]
  columns = shutil.get_terminal_size().columns
  return "\n".join(textwrap.fill(
      line, columns, subsequent_indent="    ", break_on_hyphens=False)
                   for line in lines)


def table(scores: Scores) -> str:
  """Beside every figure its protocol and what was scored."""
  rows = []
  for workdir, by_protocol in scores.items():
    for title, score in by_protocol.items():
      figure = "-" if score.unscorable else f"{score.value:.4f}"
      rows.append([workdir, score.checkpoint.partition(",")[0], title,
                   score.data[:8] or "-", figure, score.measure or "-",
                   ", ".join(f"{name} {value:.4g}"
                             for name, value in score.further.items()) or "-"])
  return markdown.table(["run", "checkpoint", "protocol", "data", "score",
                         "measure", "further"], rows)


def remarks(scores: Scores) -> list[str]:
  """What could not be scored, and what cannot be compared."""
  lines = [f"{workdir} cannot be scored by {title}: {score.unscorable}."
           for workdir, by_protocol in scores.items()
           for title, score in by_protocol.items() if score.unscorable]
  for title in next(iter(scores.values())):
    data = {by_protocol[title].data for by_protocol in scores.values()
            if not by_protocol[title].unscorable}
    if len(data) > 1:
      lines.append(f"Not all runs were scored by {title} on the same documents "
                   "and tokens (see `data`): only those with equal data can be "
                   "compared.")
  return lines
