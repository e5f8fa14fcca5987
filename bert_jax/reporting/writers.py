"""Where numbers go: the terminal, JSON lines, TensorBoard, pictures, tables.

Writers share one face: `write(step, scalars)` and `close()`. Names of scalars
say where they come from: `train/loss`, `held_out/loss`. What cannot be written
is a UserError that names the file.
"""

import contextlib
import pathlib
from collections.abc import Callable, Mapping

from bert_jax.reporting.jsonl import JsonLines, read_jsonl
from bert_jax.reporting.tensorboard import TensorBoard
from bert_jax.reporting.terminal import Progress


class Writers:
  """A run's writers: the terminal, metrics.jsonl and tensorboard/ in workdir.

  Args:
    workdir: an existing folder.
    steps: the number of steps at the end.
    start: the step that the run resumes from; lines of later steps, which a run
      wrote that was stopped before it saved them, are dropped.
    terminal: makes what shows the progress, of `steps` and `start`.
  """

  def __init__(self, workdir: pathlib.Path, steps: int, start: int = 0,
               terminal: Callable[[int, int], Progress] = Progress):
    lines = JsonLines(workdir / "metrics.jsonl", start)
    board = TensorBoard(workdir / "tensorboard",
                        read_jsonl(workdir / "metrics.jsonl"))
    self._progress = terminal(steps, start)
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
