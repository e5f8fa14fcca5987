"""The training loop: one story, top to bottom."""

import dataclasses
import pathlib
import time
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import numpy as np

from bert_jax import checkpoint, config, metrics, writers
from bert_jax.checkpoint import Checkpoints, Facts, Saved
from bert_jax.config import UserError
from bert_jax.data import loader
from bert_jax.evaluate import Evaluator
from bert_jax.experiment import Composition, Experiment, compose
from bert_jax.training import partition
from bert_jax.training.layouts import Runner
from bert_jax.training.step import TrainState

# What may differ between the start of a run and its resumption.
RESUMABLE = ("layout", "log_every", "keep", "evaluate_every", "save_every",
             "evaluation_batches")


@dataclasses.dataclass(frozen=True)
class Result:
  """What a finished run gives."""

  scores: dict[str, float]  # of the last evaluation
  params: Any
  run: Composition


def train(experiment: Experiment, workdir: str | pathlib.Path,
          page: str = "") -> Result:
  """Runs an experiment in its work directory, from wherever it stands there.

  Args:
    experiment: what to run.
    workdir: gets checkpoints, metrics and a picture of the curves.
    page: the source of the config page, kept in the checkpoints.

  Raises:
    UserError: what is asked for cannot be run, or is not what was begun here.
  """
  workdir = pathlib.Path(workdir)
  source = (checkpoint.read(experiment.init_from) if experiment.init_from
            else None)
  run = compose(experiment, source and source.facts.tokenizer)
  experiment = run.experiment
  runner = experiment.layout.build(run.recipe, run.shape(),
                                   experiment.batch_size)
  evaluator = Evaluator(run.recipe, experiment.batch_size, runner.mesh)
  facts = Facts(experiment, page, run.prepared.tokenizer,
                run.prepared.fingerprint)

  def evaluate(state: TrainState) -> dict[str, float]:
    return evaluator.evaluate(
        state.params, run.prepared.evaluation, run.prepared.labelled,
        experiment.evaluation_batches)

  workdir.mkdir(parents=True, exist_ok=True)
  with Checkpoints(workdir, experiment.keep, experiment.best) as checkpoints:
    state = _begin(run, runner, checkpoints, facts, source)
    step, scores = int(state.step), {}
    with _Log(workdir, experiment, step) as log:
      state = runner.spread(state)
      for batch in _batches(run, runner, step):
        state, pairs = runner.step(state, runner.feed(batch))
        # The metrics of a step are fetched when the next is on its way.
        log.flush()
        step += 1
        log.hold(step, batch, lambda pairs=pairs: runner.fetch(pairs))
        last = step == experiment.steps
        evaluates = last or step % experiment.evaluate_every == 0
        saves = last or step % experiment.save_every == 0
        if not (evaluates or saves):
          continue
        log.flush()
        whole = runner.gather(state)
        scores = evaluate(whole) if evaluates else {}
        log.held_out(step, scores)
        if saves:
          checkpoints.save(whole, facts, scores)
      whole = runner.gather(state)
  writers.plot_curves(workdir / "metrics.jsonl", workdir / "curves.png")
  return Result(scores or evaluate(whole), whole.params, run)


def _batches(run: Composition, runner: Runner,
             start: int) -> Iterator[Mapping[str, Any]]:
  """This process's rows of the steps that are left."""
  size = run.experiment.batch_size
  return loader.batches(run.prepared.train, size, start, run.experiment.steps,
                        runner.rows(size))


def _begin(run: Composition, runner: Runner, checkpoints: Checkpoints,
           facts: Facts, source: Saved | None) -> TrainState:
  """The latest state here, or else the first one."""
  if checkpoints.latest() is not None:
    _check_same(checkpoints.facts(), facts)
    return checkpoints.restore(run.shape(), runner.shardings)
  return first_state(run, runner, source)


def first_state(run: Composition, runner: Runner,
                source: Saved | None) -> TrainState:
  """The state before the first step, over a mesh; `source` is `init_from`."""
  state = jax.jit(run.recipe.init, out_shardings=runner.shardings)(
      run.seed(), run.row())
  if source is None or run.experiment.from_scratch:
    return state
  params, _ = checkpoint.start_from(source, partition.collect(
      state.params, runner.mesh))
  return state.replace(params=partition.place(
      params, runner.shardings.params))


def _check_same(old: Facts, new: Facts) -> None:
  """
  Raises:
    UserError: the run here was begun as another one.
  """
  differing = [c for c in config.changes(old.experiment, new.experiment)
               if c.split("=")[0].split(".")[0] not in RESUMABLE]
  if differing:
    raise UserError(
        "This work directory holds another run, which the following would "
        f"change:\n  {chr(10).join(differing)}\nGive another workdir, or "
        "leave these as they were.")
  if old.data_fingerprint != new.data_fingerprint:
    raise UserError("This work directory holds a run over other data (the "
                    "fingerprints differ); give another workdir.")


class _Log:
  """Means over windows of steps, held-out scores, and the time left."""

  def __init__(self, workdir: pathlib.Path, experiment: Experiment, step: int):
    self._every, self._steps = experiment.log_every, experiment.steps
    self._out = writers.Writers(workdir, experiment.steps, step)
    self._held, self._window, self._tokens = None, {}, 0
    self._since = time.monotonic()

  def __enter__(self) -> "_Log":
    return self

  def __exit__(self, *_: Any) -> None:
    self._out.close()

  def hold(self, step: int, batch: Mapping[str, np.ndarray], fetch: Any):
    """Keeps the metrics of a step that has only been dispatched."""
    self._held = step, np.count_nonzero(batch["example_ids"]), fetch

  def flush(self) -> None:
    """Fetches what is held; at the end of a window writes its means."""
    if self._held is None:
      return
    step, tokens, fetch = self._held
    self._held = None
    self._window = metrics.merge([self._window, fetch()])
    self._tokens += tokens
    self._out.advance(step)
    if step % self._every == 0 or step == self._steps:
      now = time.monotonic()
      self._out.write(step, {
          **{f"train/{name}": value for name, value
             in metrics.summarize(self._window).items()},
          "train/tokens_per_second": self._tokens / (now - self._since)})
      self._window, self._tokens, self._since = {}, 0, now

  def held_out(self, step: int, scores: Mapping[str, float]) -> None:
    """Writes scores; their time is not the steps' time."""
    if scores:
      self._out.write(step, {f"held_out/{k}": v for k, v in scores.items()})
    self._since = time.monotonic()
