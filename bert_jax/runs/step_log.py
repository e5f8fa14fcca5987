"""What a run logs: means over windows of steps, held-out scores, notes."""

import math
import pathlib
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from bert_jax import distributed
from bert_jax.metrics import weighted
from bert_jax.reporting import writers
from bert_jax.reporting.terminal import Progress
from bert_jax.reporting.trackers import TensorboardTracker, Tracker
from bert_jax.runs.anomalies import AnomalyDetector


class StepLog:
  """Means over windows of steps, held-out scores, and the time left.

  Args:
    workdir: of the run.
    steps: the number of steps at the end.
    every: steps of a window.
    rows: of the global batch, of all members.
    detector: gets the metrics of every step.
    start: the step that the run resumes from.
    tokens: real ones of the steps until then.
    window: the sums since the last line, of an earlier process.
    members: behind the leading axis of metrics; 0: they have none.
    remark: a sentence on the first line of scores, "" for none.
    terminal, tracker, options: as `Writers` takes them.
  """

  def __init__(self, workdir: pathlib.Path, steps: int, every: int, rows: int,
               detector: AnomalyDetector, start: int = 0,
               tokens: float = 0.0, window: Mapping[str, Any] = {},
               members: int = 0,
               remark: Callable[[Mapping[str, float]], str] = lambda _: "",
               terminal: Callable[[int, int], Progress] = Progress,
               tracker: Tracker = TensorboardTracker(),
               options: Mapping[str, str] = {}):
    self._steps, self._every, self._rows = steps, every, rows
    self._out = (writers.Writers(workdir, steps, start, terminal, tracker,
                                 options)
                 if distributed.first() else writers.Silent())
    self._detector, self._members = detector, members
    self._remark: Callable[[Mapping[str, float]], str] | None = remark
    self._held, self._window, self._tokens = None, dict(window), 0.0
    self._all_tokens = tokens
    self._since = time.monotonic()

  def __enter__(self) -> "StepLog":
    return self

  def __exit__(self, kind: type | None, error: BaseException | None,
               _: Any) -> None:
    self._out.close(error)

  def note(self, text: str) -> None:
    self._out.note(text)

  def window(self) -> dict[str, Any]:
    """The sums since the last line, as JSON."""
    return self._window

  def tokens(self) -> float:
    """The real tokens of all steps until now."""
    return self._all_tokens

  def hold(self, step: int, batch: Mapping[str, np.ndarray],
           sums: Any) -> None:
    """Keeps the metrics of a step that has only been dispatched; None: its
    batch was skipped."""
    # Each process counts its own rows; those of the others are alike.
    ids = batch["example_ids"]
    tokens = np.count_nonzero(ids) * self._rows / math.prod(ids.shape[:-1])
    self._held = step, tokens, sums

  def flush(self) -> None:
    """Fetches what is held; at the end of a window writes its means.

    Raises:
      NonFiniteError, Spike: as AnomalyDetector.
    """
    if self._held is None:
      return
    step, tokens, sums = self._held
    self._held = None
    if sums is not None:
      sums = weighted.merge([self._of_all(jax.device_get(sums))])
      self._detector.update(step, sums)
      self._window = weighted.merge([self._window, sums])
    self._tokens += tokens
    self._all_tokens += tokens
    self._out.advance(step)
    if step % self._every == 0 or step == self._steps:
      self._write(step)

  def _of_all(self, sums: Any) -> Any:
    """Over the members; behind them are copies that fill up the devices."""
    if not self._members:
      return sums
    return jax.tree.map(lambda x: x[:self._members].sum(0), sums)

  def _write(self, step: int) -> None:
    now, window = time.monotonic(), dict(self._window)
    skipped, _ = window.pop("skipped", (0.0, 0.0))
    # Steps that were skipped leave nothing to average.
    scores = {name: value for name, value in weighted.summarize(window).items()
              if not math.isnan(value)}
    self._out.write(step, {
        **{f"train/{name}": value for name, value in scores.items()},
        **({"train/skipped": skipped} if skipped else {}),
        "train/tokens_per_second": self._tokens / (now - self._since)})
    if self._remark and (remark := self._remark(scores)):
      self.note(remark)
    self._remark = None
    self._window, self._tokens, self._since = {}, 0.0, now

  def held_out(self, step: int,
               scores: Sequence[Mapping[str, float]]) -> None:
    """Writes the members' scores; their time is not the steps' time."""
    self._out.write(step, {f"held_out/{name}": value
                           for name, value in _mean(scores).items()})
    self._since = time.monotonic()


def _mean(scores: Sequence[Mapping[str, float]]) -> Mapping[str, float]:
  """Over the members, of those that have a finite score."""
  if len(scores) == 1:
    return scores[0]
  finite = {name: [s[name] for s in scores if math.isfinite(s[name])]
            for name in scores[0]}
  return {name: float(np.mean(values)) if values else math.nan
          for name, values in finite.items()}
