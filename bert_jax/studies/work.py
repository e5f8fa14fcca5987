"""The runs of a study, shared by any number of processes in one folder.

What is to be done is read off the folder: a run is done when it is finished
and scored. Who does it is decided by claims, folders with an owner: a process
that dies loses its claims, and what it left resumes from its checkpoint.
"""

import contextlib
import dataclasses
import pathlib
import time
import traceback
from collections.abc import Callable, Mapping, Sequence

from bert_jax import files
from bert_jax.checkpoints.owner import Owner
from bert_jax.config import Page, UserError
from bert_jax.experiment import Experiment
from bert_jax.reporting.study_progress import StudyProgress
from bert_jax.runs import record, train
from bert_jax.runs.loop import Stopped
from bert_jax.runs.observers import Observers
from bert_jax.studies.members import together
from bert_jax.studies.protocols import scored_runs, scores
from bert_jax.studies.protocols.base import Protocol

_POLL_SECONDS = 1.0


@dataclasses.dataclass(frozen=True, eq=False)
class Unit:
  """A run and the protocols that score it.

  Attributes:
    arm, name: what it is called, as "rotary" and "seed 3".
    experiment: with its seed and its steps.
  """

  arm: str
  name: str
  folder: pathlib.Path
  experiment: Experiment
  page: Page | None
  protocols: Sequence[Protocol]

  def unscored(self) -> list[Protocol]:
    done = scores.read(self.folder)
    return [p for p in self.protocols if p.title not in done]

  def state(self, before: record.Record | None = None) -> str:
    """waiting, running, finished or failed.

    Args:
      before: the record when this process began; a failure of then is tried
        again.
    """
    saved = record.read(self.folder)
    if saved is None:
      return "waiting"
    if saved.state == "failed":
      return "waiting" if saved == before else "failed"
    if saved.state == "running":
      return "running"
    return "waiting" if self.unscored() else "finished"


Job = Sequence[Unit]  # Runs that are one program.


def work(jobs: Sequence[Job], claims: pathlib.Path, board: StudyProgress,
         first: int = 0) -> None:
  """Does what is not done and not claimed, until all is done.

  Args:
    claims: a folder for claims.
    board: shows the progress.
    first: the job to begin with.

  Raises:
    Stopped: after SIGTERM or SIGINT; the runs in work are saved.
  """
  jobs = [*jobs[first:], *jobs[:first]]
  before = {unit: record.read(unit.folder) for job in jobs for unit in job}
  while open_jobs := [job for job in jobs if _open(job, before, board)]:
    worked = False
    for job in open_jobs:
      with contextlib.ExitStack() as stack:
        # A claim a run: other processes may have other programs of them.
        mine = [unit for unit in _open(job, before, board)
                if stack.enter_context(Owner(claims / _claim(unit))).try_take()]
        # Others may have done some of them before they were claimed.
        if units := _open(mine, before, board):
          _run(units, board)
          worked = True
      if worked:
        break  # Others may have done some of those behind.
    if not worked:
      time.sleep(_POLL_SECONDS)
      board.changed()


def _claim(unit: Unit) -> str:
  return f"{unit.arm} {unit.name}".replace(" ", "_")


def _open(job: Job, before: Mapping[Unit, record.Record | None],
          board: StudyProgress) -> list[Unit]:
  """Those that are not done."""
  states = {unit: unit.state(before[unit]) for unit in job}
  for unit, state in states.items():
    saved = record.read(unit.folder)
    board.set(unit.arm, unit.name, state, saved.step if saved else 0)
  return [unit for unit, state in states.items()
          if state not in ("finished", "failed")]


def _run(units: Job, board: StudyProgress) -> None:
  """Trains and scores; what fails is written to its record."""
  try:
    results = _train(units, board)
  except Stopped:
    raise
  except Exception as error:
    results = [error] * len(units)
    if len(units) > 1:
      board.note(f"{len(units)} runs as one program failed; now each is run "
                 f"by itself: {error}")
      results = []
  # Here the error holds no arrays any more.
  if not results:
    for unit in units:
      _run([unit], board)
  for unit, result in zip(units, results):
    _score(unit, result, board)


def _score(unit: Unit, result: train.Result | Exception,
           board: StudyProgress) -> None:
  try:
    if isinstance(result, Exception):
      raise result
    if missing := unit.unscored():
      scored_runs.score_run(unit.folder, missing, result.run)
    if missing := unit.unscored():  # Else it would be tried again and again.
      raise UserError(f"{missing[0].title} left no score of that title.")
    board.set(unit.arm, unit.name, "finished", unit.experiment.steps)
  except Stopped:
    raise
  except Exception as error:
    fail(unit, error, board)


def _train(units: Job, board: StudyProgress
           ) -> list[train.Result | Exception]:
  observers = [Observers(
      terminal=board.terminal(unit.arm, unit.name, together=len(units)),
      further_scores=_ruler(unit)) for unit in units]
  if len(units) == 1:
    unit, = units
    return [train.train(unit.experiment, unit.folder, unit.page, observers[0])]
  return together.train_together(
      [unit.experiment for unit in units], [unit.folder for unit in units],
      units[0].page, observers)


def _ruler(unit: Unit) -> Callable:
  """The score by the first protocol at every evaluation, for the curves."""

  def further_scores(run):
    ruler = unit.protocols[0].for_curves()
    scorer = ruler.scorer(run)
    if not scorer:
      return lambda params: {}
    return lambda params: {ruler.title: scorer(params).value}

  return further_scores


def fail(unit: Unit, error: Exception, board: StudyProgress) -> None:
  unit.folder.mkdir(parents=True, exist_ok=True)
  message = str(error) or type(error).__name__
  saved = record.read(unit.folder) or record.Record(
      seed=unit.experiment.seed, steps=unit.experiment.steps)
  record.write(unit.folder, dataclasses.replace(
      saved, state="failed", message=message, ended=record.now()))
  files.write_text(unit.folder / "error.txt", "".join(
      traceback.format_exception(error)))
  board.set(unit.arm, unit.name, "failed")
  board.note(f"{unit.arm} {unit.name} failed: {message}")
