"""A run: from its latest checkpoint to its end, rolled back where needed."""

import contextlib
import dataclasses
import pathlib
from collections.abc import Callable, Sequence
from typing import Any

from bert_jax import config, distributed
from bert_jax.checkpoints import environment
from bert_jax.checkpoints.manager import CheckpointManager
from bert_jax.checkpoints.manifest import Manifest, Progress
from bert_jax.checkpoints.owner import Owner
from bert_jax.checkpoints.reading import Checkpoint, read_checkpoint
from bert_jax.config import UserError
from bert_jax.experiment import Experiment, Run, compose
from bert_jax.parallel.layouts import Runner
from bert_jax.reporting import plots
from bert_jax.reporting.terminal import named
from bert_jax.runs import anomalies
from bert_jax.runs.anomalies import AnomalyDetector, NonFiniteError, Spike
from bert_jax.runs.clock import Clock
from bert_jax.runs.early_stopping import EarlyStopping
from bert_jax.runs.evaluation import Evaluator, check_best
from bert_jax.runs.initialize import batches, first_state, lay_out
from bert_jax.runs.loop import Job, Scores, evaluate_step, train_loop
from bert_jax.runs.observers import Observers
from bert_jax.runs.record import Recorder
from bert_jax.runs.step_log import StepLog
from bert_jax.runs.time_budget import within_budget
from bert_jax.training.budget import Budget
from bert_jax.training.step import TrainState

@dataclasses.dataclass(frozen=True)
class Result:
  """Of a finished run: its best checkpoint, or else its last state."""

  scores: Scores
  params: Any
  run: Run


def train(experiment: Experiment, workdir: str | pathlib.Path,
          page: config.Page | None = None,
          observers: Observers = Observers()) -> Result:
  """Runs an experiment in its work directory, from its latest checkpoint.

  Args:
    experiment: what to run.
    workdir: gets checkpoints, metrics and a picture of the curves.
    page: the config page, kept in the checkpoints.
    observers: what follows it.

  Raises:
    UserError: it cannot be run, another run was begun here, or another process
      is at work here.
    Stopped: after SIGTERM or SIGINT.
  """
  workdir = pathlib.Path(workdir)
  with Owner(workdir) as owner, Recorder(workdir) as recorder:
    return _train(experiment, workdir, owner, recorder, page, observers)


def _train(experiment: Experiment, workdir: pathlib.Path, owner: Owner,
           recorder: Recorder, page: config.Page | None,
           observers: Observers) -> Result:
  clock = Clock(experiment.save_minutes)
  run, source = _compose(experiment, workdir, owner, recorder, page)
  if experiment.budget and Budget.parse(experiment.budget).unit == "seconds":
    run = within_budget(run, workdir, clock)
  with stage("tracing the network"):
    recorder.composed(run)
    runner = lay_out(run)
  evaluator = Evaluator(runner.recipe, run.experiment.batch_size, runner.mesh)
  with CheckpointManager(workdir, experiment.keep_checkpoints,
                         experiment.best) as checkpoints:
    attempt = _Attempt(workdir, owner, recorder, run,
                       Manifest.of_run(run, page), source, checkpoints, clock,
                       runner, evaluator, observers,
                       observers.further_scores(run))
    result, notes = None, chosen(run, runner)
    while result is None:
      try:
        result = attempt.train(notes)
      except Spike as spike:
        _roll_back(workdir, checkpoints, spike, experiment.max_nonfinite_steps)
        notes = [f"Rolled back: {spike}. That batch is skipped."]
      except NonFiniteError as error:
        raise NonFiniteError(
            f"{error} The parameters from before them are saved as step "
            f"{checkpoints.latest()}, and the same command resumes after them. "
            f"`bert-jax replay {workdir} --step {error.first}` shows the first "
            "of their batches.", error.first) from error
  if experiment.best:
    best = read_checkpoint(workdir)
    result = Result(best.manifest.scores, best.params, result.run)
  if distributed.first():
    plots.plot_curves(workdir / "metrics.jsonl", workdir / "curves.png")
  return result


def _compose(experiment: Experiment, workdir: pathlib.Path,
             owner: Owner, recorder: Recorder, page: config.Page | None
             ) -> tuple[Run, Checkpoint | None]:
  """The run, the same on all processes, and what it starts from."""
  try:
    owner.take()
    recorder.begin(experiment, page)
    if distributed.first():
      experiment.tracker.check()
    source = (read_checkpoint(experiment.init_from)
              if experiment.init_from else None)
    run = compose(experiment, source and source.manifest.tokenizer)
    check_best(run)
  except UserError as error:
    distributed.assert_equal({}, str(error))
    raise
  distributed.assert_equal({
      **config.options(run.experiment), **environment.process(),
      "data": run.prepared.fingerprint,
      "skipped steps": str(sorted(anomalies.skipped_steps(workdir)))})
  return run, source


def chosen(run: Run, runner: Runner) -> list[str]:
  """What was chosen for these devices and may surprise."""
  experiment, parts = run.experiment, runner.recipe.parts
  notes = {block.attention.remark(block, experiment.data.length)
           for model in run.recipe.networks.values()
           for block in model.stack.blocks(model)}
  if experiment.microbatches is None and parts > 1:
    notes.add(f"The batch is computed in {parts} microbatches, so that it fits "
              "in a device's memory.")
  return sorted(filter(None, notes))


@dataclasses.dataclass(frozen=True)
class _Attempt:
  """What stays the same when a run rolls back."""

  workdir: pathlib.Path
  owner: Owner
  recorder: Recorder
  run: Run
  manifest: Manifest
  source: Checkpoint | None
  checkpoints: CheckpointManager
  clock: Clock
  runner: Runner
  evaluator: Evaluator
  observers: Observers
  further_scores: Callable[[Any], Scores]

  def train(self, notes: Sequence[str]) -> Result:
    """Trains from the latest checkpoint, or else from the beginning."""
    experiment, notes = self.run.experiment, list(notes)
    detector = AnomalyDetector(experiment.max_nonfinite_steps,
                               experiment.spike_deviations)
    stopping = EarlyStopping(experiment.best, experiment.patience)
    with stage("making the first parameters, or reading a checkpoint"):
      start, state, progress = latest_or_first(
          self.run, self.checkpoints, self.runner.shardings, self.manifest,
          self.source, notes.append)
    self.clock.load_state(progress.seconds)
    detector.load_state(progress.detector)
    stopping.load_state(progress.stopping)
    self.recorder.reached(start, progress.tokens, progress.seconds)
    with StepLog(self.workdir, experiment.steps, experiment.log_every,
                 experiment.batch_size, detector, start, progress.tokens,
                 progress.window,
                 remark=experiment.objective.remark,
                 terminal=self.observers.progress(
                     f"{self.workdir.absolute().name}, seed "
                     f"{experiment.seed}, {distributed.devices()}"),
                 tracker=experiment.tracker,
                 options=config.options(experiment)) as log:
      for note in notes:
        log.note(note)

      def save(step: int, state: TrainState, scores: Sequence[Scores],
               better: Sequence[bool], again: bool = False) -> None:
        self.owner.check()
        self.checkpoints.save(
            state, self.manifest, scores[0] if scores else {}, Progress(
                self.clock.used(), log.tokens(), evaluated=bool(scores),
                devices=distributed.devices(), detector=detector.state(),
                stopping=stopping.state(), window=log.window()), again)
        self.recorder.reached(step, log.tokens(), self.clock.used())
        self.clock.saved()

      job = self._job(stopping, save)
      scores = []
      if not progress.evaluated and start % experiment.evaluate_every == 0:
        scores, better = evaluate_step(job, start, state, log)
        if any(better):
          save(start, state, scores, better, again=True)
      state, last_scores = train_loop(job, state, start, log, self._on_step)
    scores, = last_scores or scores or job.evaluate(state)
    return Result(scores, state.params, self.run)

  def _on_step(self, step: int) -> None:
    self.recorder.dispatched()
    self.observers.on_step(step)

  def _job(self, stopping: EarlyStopping, save: Any) -> Job:
    run, runner, experiment = self.run, self.runner, self.run.experiment
    return Job(
        experiment, runner,
        batches=lambda start: batches(run, runner, start, experiment.steps),
        evaluate=lambda state: [{
            **self.evaluator.evaluate_run(state.params, run),
            **self.further_scores(state.params)}],
        save=save, stopping=[stopping], clock=self.clock,
        skipped_steps=frozenset(distributed.broadcast(
            sorted(anomalies.skipped_steps(self.workdir)))))


def stage(name: str) -> contextlib.AbstractContextManager[None]:
  """What a start that takes long is at, said by process 0."""
  return named(name) if distributed.first() else contextlib.nullcontext()


def latest_or_first(run: Run, checkpoints: CheckpointManager,
                    shardings: TrainState, manifest: Manifest,
                    source: Checkpoint | None, say: Callable[[str], None]
                    ) -> tuple[int, TrainState, Progress]:
  """The latest state of a run, its step, and its progress, or those before the
  first step, which the devices may still be computing.

  Args:
    shardings: of the state.
    source: `init_from`.
    say: gets where it resumes, and a sentence on whatever is odd.
  """
  restored = checkpoints.restore(run.shape(), shardings, manifest, say)
  if restored is None:
    return 0, first_state(run, shardings, source, say), Progress()
  step, steps = int(restored.state.step), run.experiment.steps
  say(f"resumes from step {step} of {steps}" if step < steps else
      f"was finished before, at step {step}")
  progress = restored.manifest.progress
  if differences := environment.differences(progress.environment):
    say(differences)
  return step, restored.state, progress


def _roll_back(workdir: pathlib.Path, checkpoints: CheckpointManager,
               spike: Spike, at_most: int) -> None:
  """Has the batch of a spike skipped from now on.

  Raises:
    NonFiniteError: that was done `at_most` times since the last checkpoint.
  """
  saved = checkpoints.latest() or 0
  skipped = [s for s in anomalies.skipped_steps(workdir) if s > saved]
  if len(skipped) >= at_most:
    raise NonFiniteError(
        f"A {spike}; {len(skipped)} batches since step {saved} were skipped "
        f"already (max_nonfinite_steps={at_most}): "
        f"{', '.join(map(str, sorted(skipped)))}.", spike.step)
  if distributed.first():
    anomalies.skip_step(workdir, spike.step)
  distributed.any_host([True])()  # Nobody reads before it is written.
