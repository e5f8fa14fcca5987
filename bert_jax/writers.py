"""Where numbers go: the terminal, JSON lines, TensorBoard, pictures, tables.

Writers share one face: `write(step, scalars)` and `close()`. Names of scalars
say where they come from: `train/loss`, `held_out/loss`. What cannot be written
is a UserError that names the file.
"""

import contextlib
import json
import math
import os
import pathlib
import socket
import struct
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import rich.console
import rich.progress

from bert_jax.config import UserError
from bert_jax.data.tables import write_text

# What is drawn beside the loss: everything on the scale of a share.
_SCORES = ("accuracy", "f1", "matthews", "pearson", "spearman")


class Writers:
  """A run's writers: the terminal, metrics.jsonl and tensorboard/ in workdir.

  Args:
    workdir: an existing folder.
    steps: the number of steps at the end.
    start: the step that the run goes on from; what was written of later steps,
      by a run that was stopped before it saved them, is cut off.
  """

  def __init__(self, workdir: pathlib.Path, steps: int, start: int = 0):
    lines = JsonLines(workdir / "metrics.jsonl", start)
    board = TensorBoard(workdir / "tensorboard",
                        read_jsonl(workdir / "metrics.jsonl"))
    self._progress = Progress(steps, start)
    self._writers = (self._progress, lines, board)

  def advance(self, step: int) -> None:
    """Says that a step was completed, of which there may be no numbers."""
    self._progress.advance(step)

  def note(self, text: str) -> None:
    """Says what happened, on the terminal only."""
    self._progress.note(text)

  def write(self, step: int, scalars: Mapping[str, float]) -> None:
    for writer in self._writers:
      writer.write(step, scalars)

  def close(self) -> None:
    with contextlib.ExitStack() as stack:  # All, also when one fails.
      for writer in self._writers:
        stack.callback(writer.close)


class Silent:
  """`Writers` that write nothing: of all processes of a run but the first."""

  def advance(self, step: int) -> None:
    pass

  def note(self, text: str) -> None:
    pass

  def write(self, step: int, scalars: Mapping[str, float]) -> None:
    pass

  def close(self) -> None:
    pass


@contextlib.contextmanager
def _writing(path: str | os.PathLike) -> Iterator[None]:
  try:
    yield
  except OSError as error:
    raise UserError(f"{path} cannot be written: {error.strerror or error}."
                    ) from None


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


class JsonLines:
  """Appends an object a write, with its step, to a file.

  Args:
    path: the file; gets a line at once, so that a killed run keeps them.
    start: lines of later steps are cut off.
  """

  def __init__(self, path: pathlib.Path, start: int = 0):
    self._path = path
    kept = ([line for line in read_jsonl(path) if line["step"] <= start]
            if path.exists() else [])
    write_text(path, "".join(map(_json, kept)))
    with _writing(path):
      self._file = path.open("a")

  def write(self, step: int, scalars: Mapping[str, float]) -> None:
    with _writing(self._path):
      self._file.write(_json({"step": int(step), **scalars}))
      self._file.flush()

  def close(self) -> None:
    with _writing(self._path):
      self._file.close()


def _json(line: Mapping[str, float]) -> str:
  """JSON has no nan and no infinity: they become null."""
  values = {name: value if name == "step" else float(value)
            for name, value in line.items()}
  return json.dumps({
      name: value if math.isfinite(value) else None
      for name, value in values.items()}) + "\n"


def read_jsonl(path: str | pathlib.Path) -> list[dict[str, float]]:
  """Lines of a JsonLines, without a half-written last one; null is nan.

  Raises:
    UserError: another line is no JSON object with a step.
  """
  *lines, rest = pathlib.Path(path).read_text().split("\n")
  found = []
  for i, text in enumerate(lines, 1):
    try:
      line = json.loads(text)
      found.append({"step": line.pop("step"), **{
          name: math.nan if value is None else value
          for name, value in line.items()}})
    except (ValueError, LookupError, AttributeError, TypeError) as error:
      raise UserError(f"{path}, line {i} is not a JSON object with a step: "
                      f"{text[:80]!r}") from error
  return found


class TensorBoard:
  """One event file, written anew at every start.

  A file for every start of a run that is often stopped would be many, each
  with steps that were taken back. (Not tensorboardX's own writer: its thread
  dies of a full disk, and then it waits for that thread forever.)

  Args:
    folder: gets the file; older event files there go.
    lines: what a JsonLines holds already; their time becomes that of this
      start.
  """

  def __init__(self, folder: pathlib.Path,
               lines: Sequence[Mapping[str, float]] = ()):
    from tensorboardX.proto import event_pb2  # Not needed by most commands.
    self._events = event_pb2
    self._path = folder / (f"events.out.tfevents.{time.time():017.6f}."
                           f"{socket.gethostname()}")
    with _writing(self._path):
      folder.mkdir(exist_ok=True)
      self._file = open(folder / "part", "wb")
      self._add(file_version="brain.Event:2")
      # A TensorBoard that looks on drops what it has read of older files.
      self._add(step=0, session_log=event_pb2.SessionLog(
          status=event_pb2.SessionLog.START))
      for line in lines:
        self.write(line["step"],
                   {name: v for name, v in line.items() if name != "step"})
      os.replace(folder / "part", self._path)
      for path in folder.glob("events.out.tfevents.*"):
        if path != self._path:
          path.unlink()

  def write(self, step: int, scalars: Mapping[str, float]) -> None:
    from tensorboardX.proto import summary_pb2
    values = [summary_pb2.Summary.Value(tag=name, simple_value=float(value))
              for name, value in scalars.items()]
    with _writing(self._path):
      self._add(step=int(step), summary=summary_pb2.Summary(value=values))
      self._file.flush()

  def _add(self, **fields: Any) -> None:
    """Appends an event, framed as TFRecord frames it."""
    from tensorboardX.record_writer import masked_crc32c
    data = self._events.Event(wall_time=time.time(),
                              **fields).SerializeToString()
    length = struct.pack("<Q", len(data))
    for part in (length, data):
      self._file.write(part + struct.pack("<I", masked_crc32c(part)))

  def close(self) -> None:
    with _writing(self._path):
      self._file.close()


def plot_curves(jsonl: str | pathlib.Path, png: str | pathlib.Path) -> None:
  """Draws losses, and beside them scores, of a metrics.jsonl over its steps.

  Nothing is drawn where nothing was written.
  """
  curves = _curves(read_jsonl(jsonl))
  panels = {"loss": {name: curve for name, curve in curves.items()
                     if name.endswith("/loss")},
            "score": {name: curve for name, curve in curves.items()
                      if name.endswith(_SCORES)}}
  panels = {title: panel for title, panel in panels.items() if panel}
  if not panels:
    return
  figure, axes = _figure(len(panels))
  for axis, (title, panel) in zip(axes, panels.items()):
    for name, (steps, values) in panel.items():
      training = name.startswith("train/")
      axis.plot(steps, values, label=name.replace("/", " ").replace("_", " "),
                marker="" if training else "o", markersize=4,
                linewidth=1 if training else 2, alpha=.6 if training else 1)
    axis.set(title=title, xlabel="step", ylabel=title)
    axis.legend()
  figure.suptitle(pathlib.Path(jsonl).absolute().parent.name)
  _save(figure, png)


def _curves(lines: Sequence[Mapping[str, float]]
            ) -> dict[str, tuple[list[float], list[float]]]:
  """The steps and values of each name."""
  curves: dict[str, tuple[list[float], list[float]]] = {}
  for line in lines:
    for name, value in line.items():
      if name != "step":
        steps, values = curves.setdefault(name, ([], []))
        steps.append(line["step"])
        values.append(value)
  return curves


def plot_table(results: Mapping[str, Sequence[float]],
               png: str | pathlib.Path, title: str, measure: str) -> None:
  """Draws a bar at the mean of each variant, and a point for every seed.

  Args:
    results: the values of each variant's seeds.
    png: the file.
    title: of the picture.
    measure: what the values are.
  """
  figure, (axis,) = _figure(1)
  for i, values in enumerate(results.values()):
    mean = sum(values) / len(values)
    axis.bar(i, mean, width=.6, color=f"C{i}", alpha=.5)
    axis.plot([i] * len(values), values, "o", color=f"C{i}")
    axis.annotate(f"{mean:.3f}", (i + .32, mean), va="center")
  axis.set_xticks(range(len(results)), list(results))
  axis.set(title=title, ylabel=measure, xlim=(-.6, len(results) - .2))
  _save(figure, png)


def _figure(panels: int) -> Any:
  """A figure with a row of panels, drawn without a screen."""
  from matplotlib.figure import Figure  # Slow to import.
  figure = Figure(figsize=(6.4 * panels, 4.4), dpi=110, layout="constrained")
  axes = figure.subplots(1, panels, squeeze=False)[0]
  for axis in axes:
    axis.grid(alpha=.3)
    axis.spines[["top", "right"]].set_visible(False)
    axis.set_axisbelow(True)
  return figure, axes


def _save(figure: Any, png: str | pathlib.Path) -> None:
  part = pathlib.Path(png).with_suffix(".part")
  with _writing(png):
    figure.savefig(part, format="png")
    os.replace(part, png)


def table(headers: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
  """An aligned Markdown table; the first column is text, the others numbers."""
  cells = [[cell if isinstance(cell, str) else f"{cell:.4g}" for cell in row]
           for row in (headers, *rows)]
  widths = [max(3, *map(len, column)) for column in zip(*cells, strict=True)]
  align = lambda row: [cell.rjust(width) if i else cell.ljust(width)
                       for i, (cell, width) in enumerate(zip(row, widths))]
  rule = ["-" * (width - 1) + ("-:"[i > 0]) for i, width in enumerate(widths)]
  head, *body = map(align, cells)
  return "\n".join(f"| {' | '.join(row)} |" for row in (head, rule, *body))


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
