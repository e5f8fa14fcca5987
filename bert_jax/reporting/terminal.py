"""Progress on a terminal."""

import datetime
import math
import time
from collections.abc import Mapping

import rich.progress
import rich.table


class Progress:
  """A bar on a terminal, else lines; on stderr.

  Args:
    steps: the step at which the run ends.
    start: the step that the run resumes from.
    console: where to print; stderr by default.
    every: seconds between lines of training numbers where there is no bar;
      held-out numbers and those of the last step always get their line.
  """

  def __init__(self, steps: int, start: int = 0,
               console: rich.console.Console | None = None, every: float = 10):
    self._console = console or rich.console.Console(stderr=True)
    self._steps, self._every, self._last_line = steps, every, -math.inf
    self._bar = rich.progress.Progress(
        rich.progress.BarColumn(bar_width=20),
        rich.progress.MofNCompleteColumn(),
        rich.progress.TextColumn("{task.description}", table_column=(
            rich.table.Column(no_wrap=True, overflow="ellipsis", ratio=1))),
        rich.progress.TimeRemainingColumn(), console=self._console, expand=True,
        refresh_per_second=2, disable=not self._console.is_terminal)
    self._task = self._bar.add_task("", total=steps, completed=start)
    self._bar.start()

  def advance(self, step: int) -> None:
    self._bar.update(self._task, completed=step)

  def note(self, text: str) -> None:
    """Prints a line of its own, above the bar."""
    self._console.print(text, highlight=False, markup=False, soft_wrap=True)

  def write(self, step: int, scalars: Mapping[str, float]) -> None:
    groups = _by_source(scalars)
    training = groups.pop("train", None)
    if training:
      self.advance(step)
      rate = training.pop("tokens_per_second", math.nan)
      self._training(step, f"{_text(training)}  {_thousands(rate)} tokens/s")
    for source, numbers in groups.items():
      self.note(f"{step}/{self._steps}  {source}: {_text(numbers)}")

  def _training(self, step: int, numbers: str) -> None:
    self._bar.update(self._task, description=numbers)
    now = time.monotonic()
    due = now - self._last_line >= self._every or step == self._steps
    if due and not self._console.is_terminal:
      self._last_line = now
      seconds = self._bar.tasks[0].time_remaining or 0
      self.note(f"{step}/{self._steps}  {numbers}  "
                f"{datetime.timedelta(seconds=round(seconds))} left")

  def close(self) -> None:
    if not self._bar.disable:  # Else rich before 15 prints an empty line.
      self._bar.stop()


def _by_source(scalars: Mapping[str, float]) -> dict[str, dict[str, float]]:
  """`held_out/loss` is `loss` of `held out`."""
  groups: dict[str, dict[str, float]] = {}
  for name, value in scalars.items():
    source, _, rest = name.rpartition("/")
    groups.setdefault(source.replace("_", " "), {})[rest] = value
  return groups


def _text(numbers: Mapping[str, float]) -> str:
  return "  ".join(f"{name} {value:.4g}" for name, value in numbers.items())


def _thousands(number: float) -> str:
  return f"{number:.0f}" if number < 1000 else f"{number / 1000:.1f}k"
