"""A trace of some steps of a run, with the network's parts named."""

import pathlib
import shutil
from collections.abc import Callable

import jax

from bert_jax import distributed
from bert_jax.runs import trace

# Steps of a process that are not traced: the first one compiles.
_BEFORE = 3


class Profiler:
  """Follows a run and writes a trace of `steps` of its steps, of process 0.

  In the folder then lie what XProf reads, trace.json, which Perfetto reads and
  where every operation begins with its part of the network, and parts.md, the
  time of each part.

  Args:
    folder: replaced.
    part_of: from the path that an operation was traced under to its part.
    say: gets what came of it.
  """

  def __init__(self, folder: pathlib.Path, steps: int,
               part_of: Callable[[str], str], say: Callable[[str], None]):
    self._folder, self._steps, self._part_of = folder, steps, part_of
    self._say, self._seen, self._tracing = say, 0, False

  def on_step(self, step: int) -> None:
    """Called when a step was dispatched."""
    if not distributed.first():
      return
    self._seen += 1
    if self._seen == _BEFORE:
      self._start()
    elif self._tracing and self._seen == _BEFORE + self._steps:
      self._stop()

  def _start(self) -> None:
    _wait()
    shutil.rmtree(self._folder, ignore_errors=True)
    options = jax.profiler.ProfileOptions()
    options.python_tracer_level = 0  # Calls of Python would be most of it.
    jax.profiler.start_trace(self._folder, profiler_options=options)
    self._tracing = True

  def _stop(self) -> None:
    _wait()
    self._tracing = False
    jax.profiler.stop_trace()
    table = trace.name_parts(self._folder, self._part_of)
    self._say(f"{table}\n\nThe trace lies in {self._folder}: trace.json for "
              f"https://ui.perfetto.dev, and all of it for `xprof "
              f"{self._folder}`.")

  def __enter__(self) -> "Profiler":
    return self

  def __exit__(self, kind: type | None, *_: object) -> None:
    if self._tracing:  # The run ended sooner.
      self._stop()
    elif kind is None and 0 < self._seen < _BEFORE:
      self._say(f"Nothing was traced: this process took {self._seen} steps, "
                f"and the first {_BEFORE} are left out, as they compile.")


def _wait() -> None:
  """Until all that was dispatched is done: whole steps are traced."""
  jax.block_until_ready(jax.live_arrays())
