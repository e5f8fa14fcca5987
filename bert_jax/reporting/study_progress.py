"""Progress of a study: one line an arm."""

import dataclasses
import datetime
import math
import time
from collections.abc import Callable, Collection, Iterable, Mapping

import rich.console
import rich.live
import rich.table

_MARKS = {"waiting": "·", "running": "▶", "finished": "■", "failed": "✗"}


@dataclasses.dataclass
class _Run:
  """What is known of a run.

  Attributes:
    loss: the latest; None: it does not run in this process.
    rate: seconds a step, of this process.
    together: runs that take these seconds together, as one program.
  """

  steps: int
  state: str = "waiting"
  step: int = 0
  loss: float | None = None
  rate: float | None = None
  together: int = 1

  @property
  def seconds_left(self) -> float | None:
    return self.rate and (self.steps - self.step) * self.rate


class StudyProgress:
  """A table on a terminal, else a line at times; on stderr.

  Args:
    runs: arm, name and number of steps of each run.
    processes: that share the work, as far as is known.
    console: where to print; stderr by default.
    every: seconds between lines where there is no table.
  """

  def __init__(self, runs: Iterable[tuple[str, str, int]], processes: int = 1,
               console: rich.console.Console | None = None, every: float = 60):
    self._console = console or rich.console.Console(stderr=True)
    self._processes, self._every = processes, every
    self._runs = {(arm, name): _Run(steps) for arm, name, steps in runs}
    self._last_line = time.monotonic()
    self._live = rich.live.Live(
        get_renderable=self._table, console=self._console,
        refresh_per_second=2, auto_refresh=self._console.is_terminal,
        transient=True)

  def __enter__(self) -> "StudyProgress":
    if self._console.is_terminal:
      self._live.start()
    return self

  def __exit__(self, *_: object) -> None:
    if self._console.is_terminal:
      self._live.stop()

  def set(self, arm: str, name: str, state: str, step: int = 0) -> None:
    """
    Args:
      state: waiting, running, finished or failed.
    """
    run = self._runs[arm, name]
    run.state, run.step = state, max(step, run.step)

  def note(self, text: str) -> None:
    """Prints a line of its own."""
    self._console.print(text, highlight=False, markup=False,
                        soft_wrap=not self._console.is_terminal)

  def terminal(self, arm: str, name: str, together: int = 1
               ) -> Callable[[int, int], "_Line"]:
    """Makes what shows the progress of one run.

    Args:
      together: runs that are one program with it.
    """
    run = self._runs[arm, name]
    run.together = together
    return lambda steps, start: _Line(self, run, f"{arm} {name}", start)

  def changed(self) -> None:
    """Prints a line where there is no table, if it is time."""
    now = time.monotonic()
    if not self._console.is_terminal and now - self._last_line >= self._every:
      self._last_line = now
      self.note(self.line())

  def line(self) -> str:
    """All in one line; of the runs of other processes their number."""
    runs = self._runs.values()
    done = sum(run.state in ("finished", "failed") for run in runs)
    now, elsewhere = [], 0
    for arm in self._arms():
      running = self._running(arm)
      here = {name: run for name, run in running.items()
              if run.loss is not None}
      elsewhere += len(running) - len(here)
      if here:
        name = next(iter(here)) if len(here) == 1 else f"{len(here)} runs"
        now.append(f"{arm} {name} {_progress(here.values())}")
    if elsewhere:
      now.append(f"{elsewhere} in other processes")
    return ", ".join([f"{done} of {len(runs)} runs done", *now,
                      f"{_duration(self.seconds_left())} left"])

  def seconds_left(self) -> float | None:
    """Of the study, by what steps took here; None before the first."""
    rates = {arm: run.rate / run.together
             for (arm, _), run in self._runs.items() if run.rate}
    if not rates:
      return None
    mean = sum(rates.values()) / len(rates)
    return sum((run.steps - run.step) * rates.get(arm, mean)
               for (arm, _), run in self._runs.items()
               if run.state in ("waiting", "running")) / self._processes

  def _table(self) -> rich.table.Table:
    table = rich.table.Table(box=None, pad_edge=False, show_header=False)
    for arm in self._arms():
      marks = "".join(_MARKS[run.state] for (a, _), run in self._runs.items()
                      if a == arm)
      running = self._running(arm).values()
      table.add_row(arm, marks, f"{_progress(running)}  "
                    f"{_duration(next(iter(running)).seconds_left)} left"
                    if running else "")
    table.add_row("", "", f"{_duration(self.seconds_left())} left of the study")
    return table

  def _arms(self) -> list[str]:
    return list(dict.fromkeys(arm for arm, _ in self._runs))

  def _running(self, arm: str) -> dict[str, _Run]:
    return {name: run for (a, name), run in self._runs.items()
            if a == arm and run.state == "running"}


class _Line:
  """A run's progress, as reporting.terminal.Progress has its face."""

  def __init__(self, board: StudyProgress, run: _Run, name: str, start: int):
    self._board, self._run, self._name = board, run, name
    self._start, self._since = start, None
    run.state, run.step, run.loss = "running", start, math.nan

  def advance(self, step: int) -> None:
    now = time.monotonic()
    if self._since is None:  # The first step is compiled.
      self._start, self._since = step, now
    elif step > self._start:
      self._run.rate = (now - self._since) / (step - self._start)
    self._run.step = step
    self._board.changed()

  def note(self, text: str) -> None:
    self._board.note(f"{self._name}: {text}")

  def write(self, step: int, scalars: Mapping[str, float]) -> None:
    if "train/loss" in scalars:
      self._run.loss = scalars["train/loss"]

  def close(self) -> None:
    pass


def _progress(runs: Collection[_Run]) -> str:
  """Of the slowest, with the losses of all."""
  last = min(runs, key=lambda run: run.step)
  losses = sorted({f"{run.loss:.3f}" for run in runs
                   if run.loss is not None and not math.isnan(run.loss)})
  loss = f" loss {' to '.join(losses[::max(1, len(losses) - 1)])}"
  return f"{last.step:,}/{last.steps:,}{loss if losses else ''}"


def _duration(seconds: float | None) -> str:
  return ("?" if seconds is None
          else str(datetime.timedelta(seconds=round(seconds))))
