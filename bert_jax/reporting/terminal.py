"""Progress on a terminal."""

import math
import time
from collections.abc import Mapping

import rich.progress


class Progress:
  """A bar on a terminal, else lines; on stderr.

  Args:
    steps: the number of steps at the end.
    start: the step that the run goes on from.
    console: where to, if not to stderr.
    every: seconds between lines of training numbers where there is no bar;
      held-out numbers and those of the last step always get their line.
  """

  def __init__(self, steps: int, start: int = 0,
               console: rich.console.Console | None = None, every: float = 10):
    self._console = console or rich.console.Console(stderr=True)
    self._steps, self._start, self._step = steps, start, start
    self._every, self._last_line = every, -math.inf
    self._since = time.monotonic()
    self._numbers = ""
    self._bar = rich.progress.Progress(
        rich.progress.BarColumn(),
        rich.progress.TextColumn("{task.description}"),
        console=self._console, refresh_per_second=2,
        disable=not self._console.is_terminal)
    self._task = self._bar.add_task(self._status(), total=steps,
                                    completed=start)
    self._bar.start()

  def advance(self, step: int) -> None:
    self._step = step
    self._bar.update(self._task, completed=step, description=self._status())

  def note(self, text: str) -> None:
    """A line of its own, beside the bar."""
    self._print(text)

  def write(self, step: int, scalars: Mapping[str, float]) -> None:
    groups = _by_source(scalars)
    training = groups.pop("train", None)
    if training:
      rate = training.pop("tokens_per_second", math.nan)
      self._numbers = f"{_text(training)}  {_thousands(rate)} tokens/s"
      self.advance(step)
      self._line_of_training(step)
    for source, numbers in groups.items():
      self._print(f"{step}/{self._steps}  {source}: {_text(numbers)}")

  def _line_of_training(self, step: int) -> None:
    now = time.monotonic()
    due = now - self._last_line >= self._every or step == self._steps
    if due and not self._console.is_terminal:
      self._last_line = now
      self._print(self._status())

  def _status(self) -> str:
    done, left = self._step - self._start, self._steps - self._step
    parts = [f"{self._step}/{self._steps}", self._numbers]
    if done:
      seconds = (time.monotonic() - self._since) / done * left
      parts.append(f"{_duration(seconds)} left")
    return "  ".join(filter(None, parts))

  def _print(self, line: str) -> None:
    self._console.print(line, highlight=False, markup=False, soft_wrap=True)

  def close(self) -> None:
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


def _duration(seconds: float) -> str:
  minutes, seconds = divmod(round(seconds), 60)
  hours, minutes = divmod(minutes, 60)
  return (f"{hours}:{minutes:02}:{seconds:02}" if hours
          else f"{minutes}:{seconds:02}")
