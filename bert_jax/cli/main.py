"""The commands: `bert-jax COMMAND --help`."""

import _thread
import argparse
import importlib.metadata
import logging
import os
import pathlib
import signal
import sys
import threading
import traceback
import warnings
from collections.abc import Iterable, Sequence
from typing import Any

import jax

from bert_jax import config, distributed, files
from bert_jax.checkpoints import reading
from bert_jax.cli import (
    compare, doctor, flags, options as option_commands, prepare, runs, score,
    study, train, use, weights, write)
from bert_jax.config import UserError
from bert_jax.runs import loop, record


def program() -> None:
  """`main` as a process of its own."""
  if sys.getfilesystemencoding() != "utf-8":
    # Some locales take bytes of an argument for something else.
    os.execv(sys.executable, [sys.executable, "-X", "utf8",
                              *sys.orig_argv[1:]])
  # When a save fails, asyncio reports each of Orbax's other writes, as late as
  # at the exit, with a traceback; the error itself is raised and explained.
  logging.getLogger("asyncio").setLevel(logging.CRITICAL)
  # In place of absl's, which begins sentences with "WARNING:bert_jax.data.".
  handler = logging.StreamHandler()
  handler.setFormatter(_Wrapped("%(message)s"))
  logging.basicConfig(handlers=[handler], force=True)
  warnings.formatwarning = _sentence
  # Names of files need not be UTF-8, and are printed all the same.
  sys.stdout.reconfigure(errors="backslashreplace")
  sys.unraisablehook = interrupt_again
  sys.exit(main())


class _Wrapped(logging.Formatter):

  def format(self, record: logging.LogRecord) -> str:
    return config.wrapped(super().format(record), sys.stderr)


_FORMAT = warnings.formatwarning


def _sentence(message: Warning | str, category: type[Warning], filename: str,
              *more: Any) -> str:
  """Of our own warnings, without the line of the code that they are from."""
  package = pathlib.Path(__file__).parents[1]
  ours = pathlib.Path(filename).is_relative_to(package)
  return (f"{config.wrapped(str(message), sys.stderr)}\n" if ours else
          _FORMAT(message, category, filename, *more))


def interrupt_again(unraisable: Any) -> None:
  """An interrupt that was raised in a callback, as jax has one for garbage
  collection, and would end nothing."""
  if isinstance(unraisable.exc_value, KeyboardInterrupt):
    # When the callback has ended.
    threading.Timer(0.1, _thread.interrupt_main).start()
  else:
    sys.__unraisablehook__(unraisable)


def main(arguments: Sequence[str] | None = None) -> int:
  """Runs a command; returns its exit code.

  Args:
    arguments: those of the shell by default. Others come from Python, where
      jax may have been used already: several processes are then started only
      where --distributed says so.
  """
  options = _parse(arguments)
  use_compilation_cache()
  try:
    _check_local(options)
    if "distributed" in options:
      distributed.start(
          options.distributed or ("auto" if arguments is None else "none"),
          options.coordinator, options.processes, options.process)
    options.run(options)
    sys.stdout.flush()
  except BrokenPipeError:
    # Who reads our output has enough, as `| head`. What is left in the buffer
    # has no reader at the exit either.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 128 + signal.SIGPIPE
  except (UserError, OSError) as error:
    # The line of a page, if it was one that gave this.
    line = config.users_line(error)
    message = distributed.exit_together(
        f"{line}\n{error}" if line else str(error))
    _complain(options, message)
    return 1
  except loop.Stopped as stopped:
    _complain(options, str(stopped))
    return 128 + stopped.number
  except KeyboardInterrupt:
    _complain(options, distributed.exit_together(_interrupted(options)))
    return 128 + signal.SIGINT
  except Exception as error:
    if reason := distributed.no_devices():
      _complain(options, reason)
      return 1
    line = config.users_line(error)
    if options.traceback or not line:
      distributed.exit_together(traceback.format_exc())
      raise
    first = str(error).strip().partition("\n")[0]
    _complain(options, distributed.exit_together(
        f"{line}\n{type(error).__name__}: {first}\nWith --traceback, all "
        "lines that lead there."))
    return 1
  return 0


def _complain(options: argparse.Namespace, message: str) -> None:
  print(config.wrapped(f"bert-jax {options.command}: {message}", sys.stderr),
        file=sys.stderr)


def _interrupted(options: argparse.Namespace) -> str:
  """What is left of a command that was interrupted."""
  if options.command in ("sweep", "glue", "quickstart", "ablate"):
    return (f"Interrupted. What was finished in {options.workdir} is not done "
            "again by the same command.")
  if options.command not in ("pretrain", "finetune"):
    return "Interrupted."
  steps = reading.saved_steps(options.workdir)
  return "Interrupted. " + (
      f"The same command resumes from step {steps[-1]}." if steps else
      "No checkpoint was saved: the same command starts again.")


# Arguments that name files and folders; others, as texts, may be addresses.
_PATHS = ("page", "workdir", "input", "output", "source", "directory",
          "tokenizer", "file")


def _check_local(options: argparse.Namespace) -> None:
  given = [(name, getattr(options, name, None)) for name in _PATHS] + [
      override.partition("=")[::2]
      for override in getattr(options, "overrides", ())]
  for name, value in given:
    for path in (value or "").split(","):
      files.check_local(path)


_FIRST_STEPS = """\
first steps:
  bert-jax quickstart                            all of it, in some 4 minutes
  bert-jax pretrain quickstart --workdir runs/a schedule.learning_rate=3e-4
                                                 the same again: it resumes
  bert-jax options objective.masking             what can be chosen there
  bert-jax predict runs/task new.tsv --output labeled.tsv
  bert-jax COMMAND --help                        each in detail"""


def make_parser() -> argparse.ArgumentParser:
  """Of all commands."""
  parser = argparse.ArgumentParser(
      prog="bert-jax", description="BERT in JAX, from raw text to a solved "
      "task.\nExperiments are config pages; key=value overrides any option.",
      epilog=_FIRST_STEPS,
      formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument("--version", action="version",
                      version=f"%(prog)s {_version()}")
  parser.set_defaults(run=lambda _: parser.print_help())
  commands = parser.add_subparsers(dest="command", metavar="COMMAND",
                                   parser_class=flags.CommandParser)
  for group in (option_commands, doctor, prepare, train, study, compare, runs,
                score, use, write, weights):
    group.add(commands)
  helping = flags.command(commands, "help", _help, "The same as --help, and "
                          "`help COMMAND` as COMMAND --help.")
  helping.add_argument("about", nargs="*", metavar="COMMAND", default=[])
  return parser


def _help(options: argparse.Namespace) -> None:
  make_parser().parse_args([*options.about, "--help"])


def _version() -> str:
  try:
    return importlib.metadata.version("bert_jax")
  except importlib.metadata.PackageNotFoundError:
    return "of a checkout that is not installed"


# What may be looked for under a name that no command has.
_MEANT = {
    "train": "`bert-jax pretrain` trains on text, `bert-jax finetune` on a "
             "labeled task.",
    **dict.fromkeys(("resume", "continue", "restart"), "A run resumes by the "
                    "command that began it; its run.json has that.")}


def _no_command(name: str, rest: Sequence[str],
                commands: Iterable[str]) -> str:
  """What to do instead."""
  if name not in _MEANT:
    return f"no command {name!r}{config.nearest(name, commands)}"
  runs = [record.read_tolerantly(pathlib.Path(word)) for word in rest]
  return "\n  ".join([f"no command {name!r}.\n{_MEANT[name]}",
                      *(run.command for run in runs if run)])


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
  parser = make_parser()
  commands, = (action.choices for action in parser._actions
               if isinstance(action, argparse._SubParsersAction))
  first, *words = [*(sys.argv[1:] if arguments is None else arguments), "-"]
  if first not in commands and not first.startswith("-"):
    parser.error(_no_command(first, words, commands))
  options, rest = parser.parse_known_args(arguments)
  # Overrides may also follow flags.
  if rest:
    if "overrides" not in options or not all(
        "=" in word and word[0] != "-" for word in rest):
      parser.error(f"unrecognized arguments: {' '.join(rest)}")
    options.overrides = [*options.overrides, *rest]
  return options


def use_compilation_cache() -> None:
  """Has jax keep compiled functions on disk for later processes: where the user
  says, as by JAX_COMPILATION_CACHE_DIR, or else beside the corpora."""
  if jax.config.jax_compilation_cache_dir is None:
    jax.config.update("jax_compilation_cache_dir",
                      str(files.cache_directory() / "compiled"))
