"""Flags that several commands have, and what they mean."""

import argparse
import math
from collections.abc import Callable

from bert_jax import config, distributed
from bert_jax.checkpoints.reading import resolve_experiment
from bert_jax.experiment import Experiment


def command(commands: argparse._SubParsersAction, name: str,
            run: Callable[[argparse.Namespace], None] | None,
            summary: str) -> argparse.ArgumentParser:
  """Adds a command to the others."""
  found = commands.add_parser(name, help=summary, description=summary)
  found.set_defaults(run=run)
  return found


def overrides(parser: argparse.ArgumentParser, example: str) -> None:
  parser.add_argument("overrides", nargs="*", metavar="key=value",
                      help=example)


def page(parser: argparse.ArgumentParser) -> None:
  parser.add_argument("page", help="a config page: a file, or a name in "
                      "configs/")
  overrides(parser, "as in model.num_hidden_layers=6")


def of_page(options: argparse.Namespace) -> tuple[Experiment, config.Page]:
  """The overridden experiment, and the page that it is from."""
  found = config.load_page(options.page)
  return resolve_experiment(found.experiment, options.overrides), found


def workdir(parser: argparse.ArgumentParser) -> None:
  parser.add_argument("workdir", help="of a run that has saved a checkpoint")


def several_hosts(parser: argparse.ArgumentParser) -> None:
  group = parser.add_argument_group(
      "several hosts", "Each runs the same command. On a TPU slice, on TPUs of "
      "GKE and under srun they find each other; elsewhere, give all three.")
  group.add_argument("--coordinator", default="", metavar="HOST:PORT",
                     help="of process 0: a free port there")
  group.add_argument("--processes", type=int, metavar="N",
                     help="how many there are; 1: this one is alone")
  group.add_argument("--process", type=int, metavar="I",
                     help="which one this is, from 0")


def members(parser: argparse.ArgumentParser) -> None:
  parser.add_argument("--workdir", required=True,
                      help="for results, tables and pictures")
  parser.add_argument("--seeds", type=positive, default=5, metavar="N",
                      help="so many of each rate; default 5")
  parser.add_argument("--rates", type=numbers, default=(), metavar="X,Y",
                      help="peak learning rates, as 1e-4,3e-4; default: the "
                      "page's")
  parser.add_argument("--at-once", type=positive, metavar="N", help="so many "
                      "run together; default: as devices have memory for")


def positive(word: str) -> int:
  """The type of a flag that counts."""
  if not word.isdecimal() or int(word) < 1:
    raise argparse.ArgumentTypeError(f"{word}: a whole number, at least 1.")
  return int(word)


def words(word: str) -> tuple[str, ...]:
  """The type of a flag that lists names."""
  return tuple(word.split(","))


def numbers(word: str) -> tuple[float, ...]:
  """The type of a flag that lists positive numbers."""
  try:
    found = tuple(map(float, word.split(",")))
  except ValueError:
    found = (math.nan,)
  if not all(0 < number < math.inf for number in found):
    raise argparse.ArgumentTypeError(f"{word}: numbers above 0, as 1e-4,3e-4.")
  return found


def say(text: str) -> None:
  """Prints, on one of several hosts."""
  if distributed.first():
    print(text)
