"""The commands: `python -m bert_jax COMMAND --help`."""

import argparse
import signal
import sys
import traceback
from collections.abc import Sequence

from bert_jax import distributed
from bert_jax.cli import compile_cache, prepare, train, use, weights
from bert_jax.config import UserError
from bert_jax.data.sources import cache_directory
from bert_jax.runs import loop


def main(arguments: Sequence[str] | None = None) -> int:
  """Runs a command; 1 after a mistake of the user, which is explained."""
  parser = _parser()
  options, rest = parser.parse_known_args(arguments)
  # Overrides may also stand behind flags.
  if rest:
    if not hasattr(options, "overrides") or not all(
        "=" in word and word[0] != "-" for word in rest):
      parser.error(f"unrecognized arguments: {' '.join(rest)}")
    options.overrides += rest
  compile_cache.keep(cache_directory() / "compiled")
  try:
    if hasattr(options, "coordinator"):
      distributed.start(options.coordinator, options.processes, options.process)
    options.run(options)
  except (UserError, OSError) as error:
    told = distributed.exit_together(str(error))
    print(f"bert-jax {options.command}: {told}", file=sys.stderr)
    return 1
  except loop.Stopped as stopped:
    print(f"bert-jax {options.command}: {stopped}", file=sys.stderr)
    return 128 + signal.SIGTERM
  except KeyboardInterrupt:
    print(
        distributed.exit_together(
            "Stopped; the same command resumes from the last "
            "checkpoint."), file=sys.stderr)
    return 130
  except Exception:
    distributed.exit_together(traceback.format_exc())
    raise
  return 0


def _parser() -> argparse.ArgumentParser:
  parser = argparse.ArgumentParser(
      prog="bert-jax", description="BERT in JAX, from raw text to a solved "
      "task. Experiments are config pages; key=value overrides any option.")
  commands = parser.add_subparsers(dest="command", required=True)
  for group in (prepare, train, use, weights):
    group.add(commands)
  return parser
