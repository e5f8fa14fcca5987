"""The training loop: one story, top to bottom.

A run and the members of a sweep go through it alike; a run has one member.
"""

import dataclasses
import signal
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from bert_jax import distributed
from bert_jax.experiment import Experiment
from bert_jax.parallel.layouts import Runner
from bert_jax.runs.anomalies import NonFiniteError
from bert_jax.runs.clock import Clock
from bert_jax.runs.early_stopping import EarlyStopping
from bert_jax.runs.signals import stop_requests
from bert_jax.runs.step_log import StepLog
from bert_jax.training.step import TrainState

Scores = Mapping[str, float]
Rows = Mapping[str, np.ndarray]


class Stopped(Exception):
  """The process was asked to end, by the signal `number`."""

  def __init__(self, message: str, number: int = signal.SIGTERM):
    super().__init__(message)
    self.number = number

  def _render_traceback_(self) -> list[str]:
    """What IPython shows."""
    return [str(self)]


@dataclasses.dataclass(frozen=True)
class Job:
  """What the loop runs.

  Attributes:
    experiment: how many steps, and how often they are evaluated and saved.
    runner: the step, and where its batches go.
    batches: from a step on, this process's rows of each batch.
    evaluate: the scores of each member.
    save: keeps (step, state, scores of each member, whether each is its best).
    stopping: of each member.
    skipped_steps: steps whose batches are skipped, after a roll-back.
  """

  experiment: Experiment
  runner: Runner
  batches: Callable[[int], Iterable[Rows]]
  evaluate: Callable[[TrainState], list[Scores]]
  save: Callable[[int, TrainState, list[Scores], list[bool]], None]
  stopping: Sequence[EarlyStopping]
  clock: Clock
  skipped_steps: frozenset[int] = frozenset()

  def should_stop(self) -> bool:
    """Whether no member gets better any more."""
    return all(stopping.should_stop() for stopping in self.stopping)


class Dispatched(NamedTuple):
  """A step that the devices work on."""

  step: int
  state: TrainState  # after it
  batch: Rows
  sums: Any  # its metrics; None: its batch was skipped
  answer: Any  # of `ask`, called just before it


def run_steps(runner: Runner, state: TrainState, start: int,
              batches: Iterable[Rows],
              skipped_steps: frozenset[int] = frozenset(),
              ask: Callable[[], Any] = lambda: None) -> Iterator[Dispatched]:
  """Takes a step for each batch, the first of them `start + 1`."""
  for step, batch in enumerate(batches, start + 1):
    answer, sums = ask(), None
    if step in skipped_steps:
      state = state.replace(step=state.step + 1)
    else:
      # A profile counts the steps by this name.
      with jax.profiler.StepTraceAnnotation("train", step_num=step):
        state, sums = runner.step(state, runner.put(batch))
    yield Dispatched(step, state, batch, sums, answer)


def train_loop(job: Job, state: TrainState, start: int, log: StepLog,
               on_step: Callable[[int], None] = lambda step: None
               ) -> tuple[TrainState, list[Scores]]:
  """Trains to the last step, or until no member gets better.

  Args:
    state: after `start` steps.
    on_step: called when a step was dispatched.

  Returns:
    The last state, and its scores: none if no step was left.

  Raises:
    NonFiniteError, Spike: as AnomalyDetector; before the first, the last good
      parameters are saved.
    Stopped: after SIGTERM or SIGINT on any process; the state is saved.
  """
  experiment, clock, scores = job.experiment, job.clock, []
  with stop_requests() as requests:

    def ask() -> Callable[[], list[bool]]:
      # Asked before the step, so that the answer is there during it.
      return distributed.any_host([
          requests.came.is_set(), distributed.first() and clock.save_due(),
          distributed.first() and clock.should_stop()])

    batches = () if job.should_stop() else job.batches(start)
    for step, state, batch, sums, answer in run_steps(
        job.runner, state, start, batches, job.skipped_steps, ask):
      try:
        # The metrics of a step are fetched when the next is on its way.
        log.flush()
        log.hold(step, batch, sums)
        on_step(step)
        stop, save, out_of_time = answer()
        last = out_of_time or step == experiment.steps
        evaluate = last or step % experiment.evaluate_every == 0 and not stop
        save |= last or stop or step % experiment.save_every == 0
        if not (evaluate or save):
          continue
        log.flush()
      except NonFiniteError:
        job.save(step, state, [], [])
        raise
      with requests.no_step():
        scores, better = evaluate_step(job, step, state, log) if evaluate else (
            [], [])
        if save or any(better) or job.should_stop():
          job.save(step, state, scores, better)
      if last or job.should_stop():
        _note_early_end(job, step, log)
        break
      if stop:
        raise Stopped(f"Asked to end; saved at step {step} of "
                      f"{experiment.steps}. The same command resumes.",
                      requests.number)
  return state, scores


def evaluate_step(job: Job, step: int, state: TrainState,
                  log: StepLog) -> tuple[list[Scores], list[bool]]:
  """The scores of each member after a step, and whether each is its best."""
  scores = job.evaluate(state)
  log.held_out(step, scores)
  return scores, [stopping.update(step, score)
                  for stopping, score in zip(job.stopping, scores)]


def _note_early_end(job: Job, step: int, log: StepLog) -> None:
  experiment = job.experiment
  if step == experiment.steps:
    return
  if job.should_stop():
    log.note(f"{experiment.best} has not improved since step "
             f"{max(stopping.step for stopping in job.stopping)} "
             f"(patience={experiment.patience}): the run ends at step {step} "
             f"of {experiment.steps}.")
  else:
    log.note(f"The budget ended at step {step} of {experiment.steps}: the "
             "machine was slower than measured.")
