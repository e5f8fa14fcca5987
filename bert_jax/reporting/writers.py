"""Where numbers go: the terminal, JSON lines, a tracker, pictures, tables.

Writers share one face: `write(step, scalars)` and `close()`. Names of scalars
say where they come from: `train/loss`, `held_out/loss`. What cannot be written
is a UserError that names the file.
"""

import contextlib
import pathlib
from collections.abc import Callable, Mapping

from bert_jax.reporting.jsonl import JsonLines, read_jsonl
from bert_jax.reporting.terminal import Progress
from bert_jax.reporting.trackers import TensorboardTracker, Tracker
from bert_jax.reporting.tracking import Tracking


class Writers:
  """A run's writers: the terminal, metrics.jsonl in workdir, and a tracker.

  Args:
    workdir: an existing folder.
    steps: the number of steps at the end.
    start: the step that the run resumes from; lines of later steps, which a run
      wrote that was stopped before it saved them, are dropped.
    terminal: makes what shows the progress, of `steps` and `start`.
    options: of the experiment, for the tracker.
  """

  def __init__(self, workdir: pathlib.Path, steps: int, start: int = 0,
               terminal: Callable[[int, int], Progress] = Progress,
               tracker: Tracker = TensorboardTracker(),
               options: Mapping[str, str] = {}):
    path = workdir / "metrics.jsonl"
    earlier = read_jsonl(path) if path.exists() else []
    with contextlib.ExitStack() as stack:
      lines = JsonLines(path, start)
      stack.callback(lines.close)
      self._progress = terminal(steps, start)
      stack.callback(self._progress.close)
      tracking = stack.enter_context(Tracking(
          tracker, workdir, start, options, earlier, self._progress.note))
      self._open = stack.pop_all()
    self._writers = (self._progress, lines, tracking)

  def advance(self, step: int) -> None:
    """Says that a step was completed, of which there may be no numbers."""
    self._progress.advance(step)

  def note(self, text: str) -> None:
    """Says what happened, on the terminal only."""
    self._progress.note(text)

  def write(self, step: int, scalars: Mapping[str, float]) -> None:
    for writer in self._writers:
      writer.write(step, scalars)

  def close(self, error: BaseException | None = None) -> None:
    """All, also when one fails.

    Args:
      error: that ended the run.
    """
    self._open.__exit__(type(error) if error else None, error,
                        error.__traceback__ if error else None)


class Silent:
  """`Writers` that write nothing: of all processes of a run but the first."""

  def advance(self, step: int) -> None:
    pass

  def note(self, text: str) -> None:
    pass

  def write(self, step: int, scalars: Mapping[str, float]) -> None:
    pass

  def close(self, error: BaseException | None = None) -> None:
    pass
