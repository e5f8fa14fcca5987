"""The training loop: one story, top to bottom."""

import contextlib
import dataclasses
import json
import pathlib
import shutil
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

from bert_jax import checkpoint, config, hosts, watch, writers
from bert_jax.budget import Budget, Clock
from bert_jax.checkpoint import Checkpoints, Saved
from bert_jax.config import UserError
from bert_jax.data import loader
from bert_jax.data.tables import write_text
from bert_jax.evaluate import Evaluator
from bert_jax.experiment import Composition, Experiment, compose
from bert_jax.facts import Facts
from bert_jax.log import Log
from bert_jax.start import first_state
from bert_jax.training.step import TrainState
from bert_jax.watch import NotFinite, Patience, Spike, Watch

# Of a budget of time, what the steps may take: machines are not even.
_SHARE_OF_TIME = 0.97
_MEASURED_SECONDS = 3.0


@dataclasses.dataclass(frozen=True)
class Result:
  """What a finished run gives: its best checkpoint, or else its last state."""

  scores: dict[str, float]
  params: Any
  run: Composition


class Stopped(Exception):
  """The process was asked to end; all is saved."""


def train(experiment: Experiment, workdir: str | pathlib.Path,
          page: str = "") -> Result:
  """Runs an experiment in its work directory, from wherever it stands there.

  Args:
    experiment: what to run.
    workdir: gets checkpoints, metrics and a picture of the curves.
    page: the source of the config page, kept in the checkpoints.

  Raises:
    UserError: what is asked for cannot be run, or is not what was begun here.
    Stopped: after SIGTERM.
  """
  workdir, clock = pathlib.Path(workdir), Clock(experiment.save_minutes)
  try:
    _make(workdir)
    source = (checkpoint.read(experiment.init_from) if experiment.init_from
              else None)
    run = compose(experiment, source and source.facts.tokenizer)
  except UserError as error:
    hosts.agree({}, str(error))
    raise
  hosts.agree({**config.options(run.experiment), **hosts.code_facts(),
               "data": run.prepared.fingerprint,
               "left out": str(sorted(watch.left_out(workdir)))})
  if experiment.budget and Budget.parse(experiment.budget).unit == "seconds":
    run = _within_budget(run, workdir, clock)
  facts = Facts(run.experiment, page, run.prepared.tokenizer,
                run.prepared.fingerprint)
  with Checkpoints(workdir, experiment.keep, experiment.best) as checkpoints:
    news = []
    while True:
      try:
        result = _Leg(workdir, run, facts, source, checkpoints, clock
                      ).run(news)
        break
      except Spike as spike:
        _roll_back(workdir, checkpoints, spike, experiment.max_skipped)
        news = [f"Rolled back: {spike}. That batch is left out."]
  if experiment.best:
    saved = checkpoint.read(workdir)
    result = Result(saved.scores, saved.params, result.run)
  if hosts.first():
    writers.plot_curves(workdir / "metrics.jsonl", workdir / "curves.png")
  return result


def _make(workdir: pathlib.Path) -> None:
  """
  Raises:
    UserError: it cannot be written to.
  """
  try:
    workdir.mkdir(parents=True, exist_ok=True)
    probe = workdir / "writable"
    probe.touch()
    probe.unlink(missing_ok=True)  # Another process may have been quick.
  except OSError as error:
    raise UserError(f"The work directory {workdir} cannot be written to: "
                    f"{error.strerror}.") from error


def _roll_back(workdir: pathlib.Path, checkpoints: Checkpoints, spike: Spike,
               at_most: int) -> None:
  """Has the batch of a spike left out from now on.

  Raises:
    NotFinite: that was done `at_most` times since the last checkpoint.
  """
  since = [s for s in watch.left_out(workdir)
           if s > (checkpoints.latest() or 0)]
  if len(since) >= at_most:
    raise NotFinite(
        f"A {spike}; {len(since)} batches since step "
        f"{checkpoints.latest() or 0} were left out already (max_skipped="
        f"{at_most}): {', '.join(map(str, sorted(since)))}.", spike.step)
  if hosts.first():
    watch.leave_out(workdir, spike.step)
  hosts.any_of([True])()  # Nobody reads before it is written.


class _Leg:
  """A run from its latest checkpoint to its end, or to what stops it."""

  def __init__(self, workdir: pathlib.Path, run: Composition, facts: Facts,
               source: Saved | None, checkpoints: Checkpoints, clock: Clock):
    self._run, self._experiment = run, run.experiment
    self._workdir, self._facts, self._source = workdir, facts, source
    self._checkpoints, self._clock = checkpoints, clock
    self._left_out = hosts.from_first(sorted(watch.left_out(workdir)))
    self._watch = Watch(self._experiment.max_skipped,
                        self._experiment.spike_deviations)
    self._patience = Patience(self._experiment.best, self._experiment.patience)
    self.runner = self._experiment.layout.build(
        run.recipe, run.shape(), self._experiment.batch_size, run.row())
    # It may have been chosen by what is free on each host.
    hosts.agree({"mesh": str(dict(self.runner.mesh.shape))})
    self._evaluator = Evaluator(
        self.runner.recipe, self._experiment.batch_size, self.runner.mesh)

  def run(self, news: list[str]) -> Result:
    """Runs it; `news` are what to tell at its beginning."""
    with _stop_requests() as stop_requested:
      return self._go(stop_requested, news)

  def _go(self, stop_requested: Callable[[], bool],
          news: list[str]) -> Result:
    experiment, runner, clock = self._experiment, self.runner, self._clock
    whole, progress = self._begin(news.append)
    step, scores = int(whole.step), {}
    log = Log(self._workdir, experiment, step, self._watch,
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
        wishes = hosts.any_of([stop_requested(),
                               hosts.first() and clock.save_due(),
                               hosts.first() and clock.over()])
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
        except NotFinite as error:
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
        self._run.prepared.labelled, self._experiment.evaluation_batches)

  def _save(self, state: TrainState, log: Log, scores: dict[str, float],
            again: bool = False) -> None:
    self._checkpoints.save(state, self._facts, scores, {
        "seconds": self._clock.used(), "evaluated": bool(scores),
        "watch": self._watch.state(), "window": log.window(),
        "patience": self._patience.state(), "devices": hosts.devices()}, again)
    self._clock.saved()

  def _give_up(self, state: TrainState, log: Log, error: NotFinite) -> None:
    """Saves the last good parameters.

    Raises:
      NotFinite: always; says what is there and what to do.
    """
    self._watch.in_row = 0  # The next start may try as many again.
    self._save(state, log, {})
    self._checkpoints.wait()
    raise NotFinite(
        f"{error} The parameters from before them are saved as step "
        f"{int(state.step)}, and the same command goes on behind them. "
        f"`bert-jax replay {self._workdir} --step {error.first}` shows the "
        "first of their batches.", error.first) from error


@contextlib.contextmanager
def _stop_requests() -> Iterator[Callable[[], bool]]:
  """Whether SIGTERM has come, which until then ends nothing.

  Preempted machines, Kubernetes and SLURM send it some time before they end a
  process. Only a main thread can listen.
  """
  came = threading.Event()
  if threading.current_thread() is not threading.main_thread():
    yield came.is_set
    return
  before = signal.signal(signal.SIGTERM, lambda *_: came.set())
  try:
    yield came.is_set
  finally:
    signal.signal(signal.SIGTERM, before)


def _within_budget(run: Composition, workdir: pathlib.Path,
                   clock: Clock) -> Composition:
  """The run with as many steps as its budget of time is enough for.

  They are measured once and written down, so that the schedule is the same
  after an interruption.
  """
  path, budget = workdir / "budget.json", Budget.parse(run.experiment.budget)
  plan = hosts.from_first(
      json.loads(path.read_text()) if path.exists() else {"budget": ""})
  if plan["budget"] != run.experiment.budget:
    costs = _measure(run, workdir / "measured")
    # Every process measures; what process 0 found holds.
    step, before, end = hosts.from_first([
        costs.step, clock.used() + costs.start + costs.end, costs.end])
    plan = {"budget": run.experiment.budget, "end": end,
            "steps": budget.enough(step / _SHARE_OF_TIME, before)}
    if hosts.first():
      write_text(path, json.dumps(plan))
  clock.limit(budget.amount - plan["end"])
  return run.with_steps(plan["steps"])


@dataclasses.dataclass(frozen=True)
class _Costs:
  """In seconds."""

  start: float  # until the step is compiled
  step: float  # with its share of the evaluations
  end: float  # the last evaluation and save


def _measure(run: Composition, folder: pathlib.Path) -> _Costs:
  """Some steps, an evaluation and a save, all thrown away."""
  experiment, times, now = run.experiment, [], time.monotonic
  facts = Facts(experiment, "", run.prepared.tokenizer, "")
  with Checkpoints(folder) as checkpoints:
    leg = _Leg(folder, run, facts, None, checkpoints, Clock())
    state = leg.runner.spread(first_state(run, leg.runner, None))
    for batch in leg.batches(0):
      start = now()
      state, pairs = leg.step(state, 1, batch)
      pairs()
      times.append(now() - start)
      enough = len(times) > 2 and sum(times[1:]) > _MEASURED_SECONDS
      if hosts.any_of([enough])()[0]:
        break
    whole, start = leg.runner.gather(state), now()
    leg.evaluate(whole)
    first, again = now() - start, now()
    leg.evaluate(whole)
    evaluation, saving = now() - again, now()
    checkpoints.save(whole, facts, {}, {})
    checkpoints.wait()
    saving = now() - saving
  if hosts.first():
    shutil.rmtree(folder)
  step = float(np.median(times[1:] or times))
  return _Costs(times[0] + first, step + evaluation / experiment.evaluate_every,
                evaluation + saving)
