"""Flags that several commands share."""

import argparse
import difflib
import itertools
import math
import os
import re
import sys
import textwrap
from collections.abc import Callable, Sequence
from typing import get_args

import rich.console
import rich.markdown

from bert_jax import config, distributed
from bert_jax.checkpoints.reading import resolve_experiment
from bert_jax.config import UserError, catalog
from bert_jax.experiment import Experiment


_EXAMPLES = "examples:\n"


class _Help(argparse.HelpFormatter):
  """Wraps a summary and leaves examples in their lines."""

  def _fill_text(self, text: str, width: int, indent: str) -> str:
    if text.startswith(_EXAMPLES):
      return text
    return super()._fill_text(text, width, indent)


class CommandParser(argparse.ArgumentParser):
  """Of a command; argparse by itself names what is missing rather than the
  flag that was mistyped."""

  def parse_known_args(self, args: Sequence[str] | None = None,
                       namespace: argparse.Namespace | None = None
                       ) -> tuple[argparse.Namespace, list[str]]:
    typed = [] if args is None or self._subparsers else list(args)
    for word in itertools.takewhile("--".__ne__, typed):
      flag = word.partition("=")[0]
      if flag.startswith("--") and not any(
          known.startswith(flag) for known in self._option_string_actions):
        self.error(self._no_flag(flag[2:]))
    return super().parse_known_args(args, namespace)

  def _no_flag(self, name: str) -> str:
    """The nearest, and the option of a run that may be meant."""
    flags = [known.lstrip("-") for known in self._option_string_actions]
    close = difflib.get_close_matches(name, flags, n=1)
    text = f"no flag --{name}" + (
        f"; did you mean --{close[0]}?" if close else ".")
    if any(action.dest == "overrides" for action in self._actions):
      keys = [option.key for option in catalog.catalog(Experiment())]
      for key in config.nearest_keys(name.replace("-", "_"), keys, 1):
        text += f"\nAn option of a run has no dashes: {key}=..."
    return text


def command(commands: argparse._SubParsersAction, name: str,
            run: Callable[[argparse.Namespace], None] | None, summary: str,
            examples: str = "") -> argparse.ArgumentParser:
  """Adds a command to the others.

  Args:
    examples: complete command lines, one a line.
  """
  parser = commands.add_parser(
      name, help=summary, description=summary, formatter_class=_Help,
      epilog=examples and f"{_EXAMPLES}{textwrap.indent(examples, '  ')}")
  parser.set_defaults(run=run)
  parser.add_argument("--traceback", action="store_true",
                      help="show all lines of an error in your own code")
  return parser


def overrides(parser: argparse.ArgumentParser, example: str) -> None:
  def assignment(word: str) -> str:
    if "=" not in word and os.path.isfile(word):
      raise argparse.ArgumentTypeError(
          f"{word} is a file; name the option that it is for, {example}")
    return word

  # Without a default argparse calls it required when something else lacks.
  parser.add_argument("overrides", nargs="*", metavar="key=value", default=[],
                      type=assignment, help=example)


def page(parser: argparse.ArgumentParser) -> None:
  parser.add_argument("page", help="a config page: a name that `bert-jax "
                      "pages` lists, or a file of your own, as mine.py")
  overrides(parser, "as in model.num_hidden_layers=6")


def of_page(options: argparse.Namespace) -> tuple[Experiment, config.Page]:
  """The overridden experiment, and the page that it is from."""
  page = config.load_page(options.page)
  return resolve_experiment(page.experiment, options.overrides, page), page


def workdir(parser: argparse.ArgumentParser) -> None:
  parser.add_argument("workdir", help="work directory of a run that "
                      "has saved a checkpoint")


def several_hosts(parser: argparse.ArgumentParser) -> None:
  group = parser.add_argument_group(
      "several hosts", "Each runs the same command.")
  group.add_argument("--distributed", choices=get_args(distributed.Method),
                     help="auto (default): as jax detects Cloud TPU, GKE, "
                     "SLURM, Open MPI or Kubernetes; none: this process alone; "
                     "coordinator: as the next three say")
  group.add_argument("--coordinator", metavar="HOST:PORT",
                     help="process 0, and a free port there")
  group.add_argument("--processes", type=int, metavar="N",
                     help="the number of processes")
  group.add_argument("--process", type=int, metavar="I",
                     help="which one this is, from 0")


def members(parser: argparse.ArgumentParser) -> None:
  parser.add_argument("--workdir", required=True,
                      help="for results, tables and pictures; what is "
                      "finished there is not done again")
  parser.add_argument("--seeds", type=positive, default=5, metavar="N",
                      help="runs of each rate; default 5")
  parser.add_argument("--rates", type=numbers, default=(), metavar="X,Y",
                      help="peak learning rates, as 1e-4,3e-4; default: the "
                      "page's")
  parser.add_argument("--at-once", type=positive, metavar="N",
                      help="members that run together; default: as many as fit "
                      "in memory")


def positive(word: str) -> int:
  """The type of a flag that counts."""
  if not word.isdecimal() or int(word) < 1:
    raise argparse.ArgumentTypeError(f"{word}: not a positive integer.")
  return int(word)


def lines(data: bytes, source: str = "standard input") -> list[str]:
  """Lines that end in LF or CRLF; all else that may look like an end is text.
  """
  try:
    text = data.decode("utf-8-sig")
  except UnicodeDecodeError as error:
    line = data.count(b"\n", 0, error.start) + 1
    raise UserError(f"Line {line} of {source} is not UTF-8: byte "
                    f"{data[error.start]:#x}.") from None
  return [line.removesuffix("\r") for line in
          text.removesuffix("\n").split("\n")] if text else []


def text(word: str) -> str:
  """The type of an argument that is a text, which is never a file's name."""
  if os.path.isfile(word):
    raise argparse.ArgumentTypeError(
        f"{word} is a file, and a text is expected here. Give what is in it: "
        f"\"$(cat {word})\"; or `embed` one text a line: - < {word}")
  if not word.isascii() and re.search("[\ud800-\udfff]", word):
    raise argparse.ArgumentTypeError(f"{word!r} is not UTF-8.")
  return word


def words(word: str) -> tuple[str, ...]:
  """The type of a flag that lists names."""
  return tuple(word.split(","))


def numbers(word: str) -> tuple[float, ...]:
  """The type of a flag that lists positive numbers."""
  try:
    values = tuple(map(float, word.split(",")))
  except ValueError:
    values = (math.nan,)
  if not all(0 < number < math.inf for number in values):
    raise argparse.ArgumentTypeError(f"{word}: expected numbers as 1e-4,3e-4.")
  return values


def say_differences(base: Experiment, experiment: Experiment,
                    name: str) -> None:
  """Prints them, on process 0 only.

  Args:
    name: of `base`.
  """
  if different := config.described_changes(base, experiment):
    say("\n  ".join([f"differs from {name}:", *different]))


def say(text: str) -> None:
  """Prints on process 0 only."""
  if distributed.first():
    print(text)


def say_markdown(text: str) -> None:
  """As `say`; on a terminal its tables are laid out in the width there."""
  if not sys.stdout.isatty():
    say(text)
  elif distributed.first():
    rich.console.Console().print(rich.markdown.Markdown(text))
