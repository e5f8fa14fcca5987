"""The training loop: one story, top to bottom."""

import dataclasses
import pathlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from bert_jax import distributed
from bert_jax.checkpoints.manager import Checkpoint, CheckpointManager
from bert_jax.checkpoints.manifest import Manifest
from bert_jax.data.batches import loader
from bert_jax.experiment import Run
from bert_jax.runs import anomalies
from bert_jax.runs.anomalies import AnomalyDetector, NonFiniteError
from bert_jax.runs.clock import Clock
from bert_jax.runs.early_stopping import EarlyStopping
from bert_jax.runs.evaluation import Evaluator
from bert_jax.runs.initialize import first_state
from bert_jax.runs.signals import stop_requests
from bert_jax.runs.step_log import StepLog
from bert_jax.training.step import TrainState


@dataclasses.dataclass(frozen=True)
class Result:
  """What a finished run gives: its best checkpoint, or else its last state."""

  scores: dict[str, float]
  params: Any
  run: Run


class Stopped(Exception):
  """The process was asked to end; all is saved."""


class Leg:
  """A run from its latest checkpoint to its end, or to what stops it."""

  def __init__(self, workdir: pathlib.Path, run: Run, facts: Manifest,
               source: Checkpoint | None, checkpoints: CheckpointManager,
               clock: Clock):
    self._run, self._experiment = run, run.experiment
    self._workdir, self._facts, self._source = workdir, facts, source
    self._checkpoints, self._clock = checkpoints, clock
    self._left_out = distributed.broadcast(sorted(anomalies.left_out(workdir)))
    self._watch = AnomalyDetector(self._experiment.max_nonfinite_steps,
                        self._experiment.spike_deviations)
    self._patience = EarlyStopping(self._experiment.best,
                                   self._experiment.patience)
    self.runner = self._experiment.layout.build(
        run.recipe, run.shape(), self._experiment.batch_size, run.row())
    # It may have been chosen by what is free on each host.
    distributed.assert_equal({"mesh": str(dict(self.runner.mesh.shape))})
    self._evaluator = Evaluator(
        self.runner.recipe, self._experiment.batch_size, self.runner.mesh)

  def run(self, news: list[str]) -> Result:
    """Runs it; `news` are what to tell at its beginning."""
    with stop_requests() as stop_requested:
      return self._go(stop_requested, news)

  def _go(self, stop_requested: Callable[[], bool],
          news: list[str]) -> Result:
    experiment, runner, clock = self._experiment, self.runner, self._clock
    whole, progress = self._begin(news.append)
    step, scores = int(whole.step), {}
    log = StepLog(self._workdir, experiment, step, self._watch,
               progress["window"])
    with log:
      for message in news:
        log.note(message)
      if step and not progress["evaluated"] and self._evaluates(step):
        scores = self.evaluate(whole)
        log.held_out(step, scores)
        if self._patience.see(step, scores):
          self._save(whole, log, scores, again=True)
      state = runner.spread(whole)
      for batch in () if self._patience.over() else self.batches(step):
        # Asked before the step, so that the answer is there during it.
        wishes = distributed.any_host([stop_requested(),
                                     distributed.first() and clock.save_due(),
                                     distributed.first() and clock.over()])
        state, pairs = self.step(state, step + 1, batch)
        try:
          # The metrics of a step are fetched when the next is on its way.
          log.flush()
          step += 1
          log.hold(step, batch, pairs)
          stops, saves, over = wishes()
          last = over or step == experiment.steps
          evaluates = last or self._evaluates(step) and not stops
          saves |= last or stops or step % experiment.save_every == 0
          if not (evaluates or saves):
            continue
          log.flush()
        except NonFiniteError as error:
          self._give_up(runner.gather(state), log, error)
        whole = runner.gather(state)
        scores = self.evaluate(whole) if evaluates else {}
        log.held_out(step, scores)
        better = evaluates and self._patience.see(step, scores)
        tired = self._patience.over()
        if saves or better or tired:
          self._save(whole, log, scores)
        if tired and not last:
          log.note(f"{experiment.best} has not been better since step "
                   f"{self._patience.step} (patience={experiment.patience}): "
                   f"the run ends at step {step} of {experiment.steps}.")
          break
        if last:
          if over and step < experiment.steps:
            log.note(f"The budget ended at step {step} of {experiment.steps}: "
                     "the machine was slower than measured.")
          break
        if stops:
          self._checkpoints.wait()
          raise Stopped(f"Asked to end; saved at step {step} of "
                        f"{experiment.steps}. The same command goes on.")
    return Result(scores or self.evaluate(whole), whole.params, self._run)

  def _begin(self, say: Callable[[str], None]
             ) -> tuple[TrainState, dict[str, Any]]:
    """The latest state here, or else the first one."""
    found = self._checkpoints.restore(
        self._run.shape(), self.runner.shardings, self._facts, say)
    self._clock.go_on(found.progress["seconds"] if found else 0.0)
    if found is None:
      return (first_state(self._run, self.runner, self._source, say),
              {"window": {}, "evaluated": True})
    self._watch.go_on(found.progress["watch"])
    self._patience.go_on(found.progress["patience"])
    return found.state, found.progress

  def batches(self, start: int) -> Iterator[Mapping[str, Any]]:
    """This process's rows of the steps that are left."""
    size = self._experiment.batch_size
    return loader.batches(self._run.prepared.train, size, start,
                          self._experiment.steps, self.runner.rows(size))

  def step(self, state: TrainState, step: int, batch: Mapping[str, Any]
            ) -> tuple[TrainState, Any]:
    """The state after it, and its pairs, if its batch is not left out."""
    if step in self._left_out:
      return state.replace(step=state.step + 1), None
    state, pairs = self.runner.step(state, self.runner.feed(batch))
    return state, lambda: self.runner.fetch(pairs)

  def _evaluates(self, step: int) -> bool:
    return step % self._experiment.evaluate_every == 0

  def evaluate(self, state: TrainState) -> dict[str, float]:
    return self._evaluator.evaluate(
        state.params, self._run.prepared.evaluation,
        self._run.prepared.labeled, self._experiment.evaluation_batches)

  def _save(self, state: TrainState, log: StepLog, scores: dict[str, float],
            again: bool = False) -> None:
    self._checkpoints.save(state, self._facts, scores, {
        "seconds": self._clock.used(), "evaluated": bool(scores),
        "watch": self._watch.state(), "window": log.window(),
        "patience": self._patience.state(), "devices": distributed.devices()},
        again)
    self._clock.saved()

  def _give_up(self, state: TrainState, log: StepLog,
               error: NonFiniteError) -> None:
    """Saves the last good parameters.

    Raises:
      NonFiniteError: always; says what is there and what to do.
    """
    self._watch.in_row = 0  # The next start may try as many again.
    self._save(state, log, {})
    self._checkpoints.wait()
    raise NonFiniteError(
        f"{error} The parameters from before them are saved as step "
        f"{int(state.step)}, and the same command goes on behind them. "
        f"`bert-jax replay {self._workdir} --step {error.first}` shows the "
        "first of their batches.", error.first) from error
