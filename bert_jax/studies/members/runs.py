"""A member of a program as a run of its own: its files, its progress."""

import contextlib
import pathlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from bert_jax import config
from bert_jax.checkpoints.manager import CheckpointManager
from bert_jax.checkpoints.manifest import Manifest, Progress
from bert_jax.checkpoints.owner import Owner
from bert_jax.checkpoints.reading import Checkpoint
from bert_jax.experiment import Run
from bert_jax.reporting import plots
from bert_jax.runs.anomalies import AnomalyDetector, NonFiniteError
from bert_jax.runs.loop import Job, Scores
from bert_jax.runs.observers import Observers
from bert_jax.runs.record import Recorder
from bert_jax.runs.step_log import StepLog
from bert_jax.runs.train import Result, latest_or_first
from bert_jax.studies.members import results as member_results
from bert_jax.training.step import TrainState


class MemberRun:
  """From its latest checkpoint on.

  Attributes:
    run: by itself.
    state: that it starts with, on one device.
    evaluated: whether that was evaluated, if it was due.
    error: why it ended early; None: it did not.
  """

  def __init__(self, run: Run, workdir: pathlib.Path, owner: Owner,
               recorder: Recorder, observers: Observers, manifest: Manifest,
               checkpoints: CheckpointManager, state: TrainState,
               progress: Progress):
    self.run, self.state, self.error = run, state, None
    self.evaluated, self.on_step = progress.evaluated, observers.on_step
    self.further_scores = observers.further_scores(run)
    self._workdir, self._manifest = workdir, manifest
    self._owner, self._recorder = owner, recorder
    self._checkpoints, self._seconds = checkpoints, progress.seconds
    experiment = run.experiment
    self._detector = AnomalyDetector(experiment.max_nonfinite_steps, 0.0)
    self._detector.load_state(progress.detector)
    self.log = StepLog(
        workdir, experiment.steps, experiment.log_every, experiment.batch_size,
        self._detector, int(state.step), progress.tokens, progress.window,
        remark=experiment.objective.remark,
        terminal=observers.progress(workdir.name),
        tracker=experiment.tracker, options=config.options(experiment))

  @classmethod
  @contextlib.contextmanager
  def begin(cls, run: Run, workdir: pathlib.Path, page: config.Page | None,
            source: Checkpoint | None, shardings: TrainState, owner: Owner,
            recorder: Recorder, observers: Observers
            ) -> Iterator["MemberRun"]:
    """Restores it, or starts it.

    Args:
      source: `init_from`.
      shardings: of its state.
    """
    recorder.composed(run)
    manifest, notes = Manifest.of_run(run, page), []
    with CheckpointManager(workdir, run.experiment.keep_checkpoints
                           ) as checkpoints:
      step, state, progress = latest_or_first(
          run, checkpoints, shardings, manifest, source, notes.append)
      recorder.reached(step, progress.tokens, progress.seconds)
      member = cls(run, workdir, owner, recorder, observers, manifest,
                   checkpoints, state, progress)
      with member.log:
        for note in notes:
          member.log.note(note)
        yield member
    plots.plot_curves(workdir / "metrics.jsonl", workdir / "curves.png")

  def save(self, step: int, state: TrainState, scores: Scores,
           seconds: float) -> None:
    """
    Args:
      seconds: its share of what the program took in this process.
    """
    if self.error is not None:
      return
    self._owner.check()
    used = self._seconds + seconds
    self._checkpoints.save(state, self._manifest, scores, Progress(
        used, self.log.tokens(), evaluated=bool(scores),
        devices=member_results.shared_devices(),
        detector=self._detector.state(), window=self.log.window()))
    self._recorder.reached(step, self.log.tokens(), used)

  def result(self, scores: Scores, params: Any) -> Result | Exception:
    if self.error is None:
      return Result(scores, params, self.run)
    self._recorder.failed(self.error)
    return self.error


class Logs:
  """The logs of all members, with the face of one."""

  def __init__(self, members: Sequence[MemberRun]):
    self._members, self._held = members, None

  def note(self, text: str) -> None:
    self._members[0].log.note(text)

  def hold(self, step: int, batch: Mapping[str, np.ndarray],
           sums: Any) -> None:
    self._held = step, batch["example_ids"], sums

  def flush(self) -> None:
    """A member that is not finite any more ends, the others continue.

    Raises:
      NonFiniteError: none is left.
    """
    if self._held is None:
      return
    (step, ids, sums), self._held = self._held, None
    sums = jax.device_get(sums)
    for i, member in enumerate(self._members):
      if member.error is None:
        member.log.hold(step, {"example_ids": ids[i]},
                        jax.tree.map(lambda x: x[i], sums))
        try:
          member.log.flush()
        except NonFiniteError as error:
          member.error = error
    if all(member.error for member in self._members):
      raise self._members[0].error

  def held_out(self, step: int, scores: Sequence[Scores]) -> None:
    for member, score in zip(self._members, scores):
      if member.error is None:
        member.log.held_out(step, [score])


def evaluate_late(job: Job, start: int, states: TrainState,
                  members: Sequence[MemberRun]) -> None:
  """What was due when the members were saved, and was not done."""
  late = [i for i, member in enumerate(members) if not member.evaluated]
  if late and start % job.experiment.evaluate_every == 0:
    scores = job.evaluate(states)
    for i in late:
      members[i].log.held_out(start, [scores[i]])


def on_step(members: Sequence[MemberRun]) -> Callable[[int], None]:
  def of_all(step: int) -> None:
    for member in members:
      member.on_step(step)

  return of_all
