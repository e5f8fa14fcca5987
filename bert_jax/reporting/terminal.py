"""Progress on a terminal, in a notebook, or as lines."""

import contextlib
import datetime
import html
import math
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from typing import Any

import rich.console
import rich.progress
import rich.table
import rich.text

_BAR = 16  # characters
# What a reader can tell from the loss; files have it all the same.
_DERIVED = "perplexity"


@contextlib.contextmanager
def named(stage: str, after: float = 2.0) -> Iterator[None]:
  """Says on stderr what is done inside, once it takes `after` seconds."""
  timer = threading.Timer(after, lambda: print(
      f"{stage} ...", file=sys.stderr, flush=True))
  timer.daemon = True  # An interrupt does not wait for it.
  timer.start()
  try:
    yield
  finally:
    timer.cancel()


class Progress:
  """A bar on a terminal or in a notebook, else lines; on stderr.

  The loss and the time left are always to be seen, further numbers as far as
  the terminal is wide.

  Args:
    steps: the step at which the run ends.
    start: the step that the run resumes from.
    name: of the run, before each line where there is no bar.
    console: where to print; stderr by default.
    every: seconds between lines of training numbers where there is no bar;
      held-out numbers and those of the last step always get their line.
  """

  def __init__(self, steps: int, start: int = 0, name: str = "",
               console: rich.console.Console | None = None, every: float = 10):
    self._console = console or rich.console.Console(stderr=True)
    self._steps, self._every, self._last_line = steps, every, -math.inf
    self._prefix = f"{name}: " if name else ""
    self._display = _notebook() if console is None else None
    self._bar = rich.progress.Progress(
        rich.progress.BarColumn(bar_width=_BAR),
        rich.progress.MofNCompleteColumn(),
        _Numbers(self._console, steps), rich.progress.TimeRemainingColumn(),
        console=self._console, expand=True, refresh_per_second=2,
        disable=self._display is not None or not self._console.is_terminal)
    self._task = self._bar.add_task(name, total=steps, completed=start,
                                    start_step=start, numbers=[])
    self._bar.start()
    if self._bar.disable and not self._display:
      self.note("compiling")

  def advance(self, step: int) -> None:
    self._bar.update(self._task, completed=step)

  def note(self, text: str) -> None:
    """Prints a line of its own, above the bar."""
    self._console.print(self._prefix * self._bar.disable + text,
                        highlight=False, markup=False,
                        soft_wrap=not self._console.is_terminal)

  def write(self, step: int, scalars: Mapping[str, float]) -> None:
    groups = _by_source(scalars)
    training = groups.pop("train", None)
    if training:
      self.advance(step)
      rate = training.pop("tokens_per_second", math.nan)
      self._training(step, [*_texts(training), f"{_thousands(rate)} tokens/s"])
    for source, numbers in groups.items():
      self.note(f"{step}/{self._steps}  {source}: "
                + "  ".join(_texts(numbers)))

  def _training(self, step: int, numbers: list[str]) -> None:
    self._bar.update(self._task, numbers=numbers)
    if self._display:
      self._display.update(_Bar(step, self._steps, self._left(), numbers))
      return
    now = time.monotonic()
    due = now - self._last_line >= self._every or step == self._steps
    if due and not self._console.is_terminal:
      self._last_line = now
      self.note(f"{step}/{self._steps}  {'  '.join(numbers)}  {self._left()}")

  def _left(self) -> str:
    seconds = self._bar.tasks[0].time_remaining or 0
    return f"{datetime.timedelta(seconds=round(seconds))} left"

  def close(self) -> None:
    if not self._bar.disable:  # Else rich before 15 prints an empty line.
      self._bar.stop()


class _Numbers(rich.progress.ProgressColumn):
  """As many as there is room for, or that the step is being compiled."""

  def __init__(self, console: rich.console.Console, steps: int):
    # Beside it stand the bar, the steps and the time left, with a space each.
    self._width = console.width - _BAR - 2 * len(str(steps)) - 11
    super().__init__(rich.table.Column(no_wrap=True, overflow="crop", ratio=1))

  def render(self, task: rich.progress.Task) -> rich.text.Text:
    numbers = task.fields["numbers"]
    if not numbers and task.completed == task.fields["start_step"]:
      return rich.text.Text(f"compiling ({task.elapsed or 0:.0f} s)")
    text = ""
    for number in numbers:
      if len(text) + len(number) > self._width:
        break
      text += f"{number}  "
    return rich.text.Text(text.rstrip())


class _Bar:
  """A bar as a notebook shows it."""

  def __init__(self, step: int, steps: int, left: str, numbers: list[str]):
    self._bar = f'<progress value="{step}" max="{steps}"></progress>'
    self._text = f"{step}/{steps}  {'  '.join(numbers)}  {left}"

  def _repr_html_(self) -> str:
    return f"{self._bar} <code>{html.escape(self._text)}</code>"

  def __repr__(self) -> str:
    return self._text


def in_notebook() -> bool:
  """Whether this process is the kernel of a notebook."""
  interactive = sys.modules.get("IPython")
  return bool(interactive) and hasattr(interactive.get_ipython(), "kernel")


def _notebook() -> Any:
  """Where a notebook shows a bar; None: this is no notebook."""
  if not in_notebook():
    return None
  return sys.modules["IPython"].display.display("compiling", display_id=True)


def _by_source(scalars: Mapping[str, float]) -> dict[str, dict[str, float]]:
  """`held_out/loss` is `loss` of `held out`."""
  groups: dict[str, dict[str, float]] = {}
  for name, value in scalars.items():
    source, _, rest = name.rpartition("/")
    groups.setdefault(source.replace("_", " "), {})[rest] = value
  return groups


def _texts(numbers: Mapping[str, float]) -> list[str]:
  """First the loss; what says the same as another number is left out."""
  texts = {name: f"{value:.4g}" for name, value in numbers.items()
           if name != _DERIVED}
  loss = texts.get("loss")
  return [f"{name} {texts[name]}" for name in sorted(texts, key=_rank)
          if not (name.endswith("_loss") and texts[name] == loss)]


def _rank(name: str) -> int:
  """The loss before other losses and scores, and these before what describes
  the step."""
  if name == "loss":
    return 0
  return 1 + (name in ("gradient_norm", "learning_rate", "masked_fraction"))


def _thousands(number: float) -> str:
  return f"{number:.0f}" if number < 1000 else f"{number / 1000:.1f}k"
