"""What a run tells of its steps: means over windows, held-out scores, notes."""

import pathlib
import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from bert_jax import distributed
from bert_jax.experiment import Experiment
from bert_jax.metrics import weighted
from bert_jax.reporting import writers
from bert_jax.runs.anomalies import AnomalyDetector


class StepLog:
  """Means over windows of steps, held-out scores, and the time left.

  Args:
    workdir: of the run.
    experiment: that runs.
    step: that it goes on from.
    watcher: sees the metrics of every step.
    window: the sums since the last line, of a process before this one.
  """

  def __init__(self, workdir: pathlib.Path, experiment: Experiment, step: int,
               watcher: AnomalyDetector, window: Mapping[str, Any]):
    self._every, self._steps = experiment.log_every, experiment.steps
    self._out = (writers.Writers(workdir, experiment.steps, step)
                 if distributed.first() else writers.Silent())
    self._batch_size, self._watch = experiment.batch_size, watcher
    self._held, self._window, self._tokens = None, dict(window), 0.0
    self._since = time.monotonic()

  def __enter__(self) -> "StepLog":
    return self

  def __exit__(self, *_: Any) -> None:
    self._out.close()

  def note(self, text: str) -> None:
    self._out.note(text)

  def window(self) -> dict[str, Any]:
    """The sums since the last line, as JSON."""
    return self._window

  def hold(self, step: int, batch: Mapping[str, np.ndarray],
           fetch: Callable[[], Any] | None) -> None:
    """Keeps the metrics of a step that has only been dispatched."""
    # Each process counts its own rows; they are alike.
    rows = batch["example_ids"]
    tokens = np.count_nonzero(rows) * self._batch_size / len(rows)
    self._held = step, tokens, fetch

  def flush(self) -> None:
    """Fetches what is held; at the end of a window writes its means.

    Raises:
      NonFiniteError, Spike: as the AnomalyDetector.
    """
    if self._held is None:
      return
    step, tokens, fetch = self._held
    self._held = None
    if fetch is not None:
      pairs = weighted.merge([fetch()])
      self._watch.see(step, pairs)
      self._window = weighted.merge([self._window, pairs])
    self._tokens += tokens
    self._out.advance(step)
    if step % self._every == 0 or step == self._steps:
      self._write(step)

  def _write(self, step: int) -> None:
    now, window = time.monotonic(), dict(self._window)
    skipped, _ = window.pop("skipped", (0.0, 0.0))
    self._out.write(step, {
        **{f"train/{name}": value
           for name, value in weighted.summarize(window).items()},
        **({"train/skipped": skipped} if skipped else {}),
        "train/tokens_per_second": self._tokens / (now - self._since)})
    self._window, self._tokens, self._since = {}, 0.0, now

  def held_out(self, step: int, scores: Mapping[str, float]) -> None:
    """Writes scores; their time is not the steps' time."""
    if scores:
      self._out.write(step, {f"held_out/{k}": v for k, v in scores.items()})
    self._since = time.monotonic()
