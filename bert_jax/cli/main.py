"""The commands: `bert-jax COMMAND --help`."""

import _thread
import argparse
import logging
import os
import signal
import sys
import threading
import traceback
from collections.abc import Sequence
from typing import Any

import jax

from bert_jax import config, distributed, files
from bert_jax.checkpoints import reading
from bert_jax.cli import (
    compare, doctor, options as option_commands, prepare, runs, score, study,
    train, use, weights)
from bert_jax.config import UserError
from bert_jax.runs import loop


def program() -> None:
  """`main` as a process of its own."""
  if sys.getfilesystemencoding() != "utf-8":
    # Some locales take bytes of an argument for something else.
    os.execv(sys.executable, [sys.executable, "-X", "utf8",
                              *sys.orig_argv[1:]])
  # When a save fails, asyncio reports each of Orbax's other writes, as late as
  # at the exit, with a traceback; the error itself is raised and explained.
  logging.getLogger("asyncio").setLevel(logging.CRITICAL)
  # Before absl, which would begin our sentences with "WARNING:bert_jax.data.".
  logging.basicConfig(format="%(message)s")
  # Names of files need not be UTF-8, and are printed all the same.
  sys.stdout.reconfigure(errors="backslashreplace")
  sys.unraisablehook = interrupt_again
  sys.exit(main())


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
    print(f"bert-jax {options.command}: {message}", file=sys.stderr)
    return 1
  except loop.Stopped as stopped:
    print(f"bert-jax {options.command}: {stopped}", file=sys.stderr)
    return 128 + stopped.number
  except KeyboardInterrupt:
    print(f"bert-jax {options.command}: "
          f"{distributed.exit_together(_interrupted(options))}",
          file=sys.stderr)
    return 128 + signal.SIGINT
  except Exception as error:
    if reason := distributed.no_devices():
      print(f"bert-jax {options.command}: {reason}", file=sys.stderr)
      return 1
    line = config.users_line(error)
    if options.traceback or not line:
      distributed.exit_together(traceback.format_exc())
      raise
    first = str(error).strip().partition("\n")[0]
    print(f"bert-jax {options.command}: " + distributed.exit_together(
        f"{line}\n{type(error).__name__}: {first}\nWith --traceback, all "
        "lines that lead there."), file=sys.stderr)
    return 1
  return 0


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
          "tokenizer")


def _check_local(options: argparse.Namespace) -> None:
  given = [(name, getattr(options, name, None)) for name in _PATHS] + [
      override.partition("=")[::2]
      for override in getattr(options, "overrides", ())]
  for name, value in given:
    for path in (value or "").split(","):
      files.check_local(path)


_FIRST_STEPS = """\
first steps:
  bert-jax quickstart                            all of it, in minutes
  bert-jax pretrain quickstart --workdir runs/a schedule.learning_rate=3e-4
                                                 again, it resumes
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
  commands = parser.add_subparsers(dest="command", required=True,
                                   metavar="COMMAND")
  for group in (option_commands, doctor, prepare, train, study, compare, runs,
                score, use, weights):
    group.add(commands)
  return parser


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
  parser = make_parser()
  options, rest = parser.parse_known_args(arguments)
  # Overrides may also follow flags.
  if rest:
    if "overrides" not in options or not all(
        "=" in word and word[0] != "-" for word in rest):
      parser.error(f"unrecognized arguments: {' '.join(rest)}")
    options.overrides += rest
  return options


def use_compilation_cache() -> None:
  """Has jax keep compiled functions on disk for later processes: where the user
  says, as by JAX_COMPILATION_CACHE_DIR, or else beside the corpora."""
  if jax.config.jax_compilation_cache_dir is None:
    jax.config.update("jax_compilation_cache_dir",
                      str(files.cache_directory() / "compiled"))
