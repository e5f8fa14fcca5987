"""The seconds that a run has used."""

import time
from collections.abc import Callable


class Clock:
  """The seconds that a run has used, this process's and those before it.

  Args:
    save_minutes: between saves; None: time asks for none.
    now: the time in seconds.
  """

  def __init__(self, save_minutes: float | None = None,
               now: Callable[[], float] = time.monotonic):
    self._now, self._start, self._before = now, now(), None
    self._save_seconds = save_minutes and 60 * save_minutes
    self._last_save = self._start
    self._deadline = float("inf")

  def go_on(self, seconds: float) -> None:
    """Adds what processes before this one used, the first time it is told."""
    if self._before is None:
      self._before = seconds

  def limit(self, seconds: float) -> None:
    """From so many used seconds on, it is `over`."""
    self._deadline = seconds

  def used(self) -> float:
    return (self._before or 0.0) + self._now() - self._start

  def over(self) -> bool:
    return self.used() >= self._deadline

  def save_due(self) -> bool:
    return bool(self._save_seconds) and (
        self._now() - self._last_save >= self._save_seconds)

  def saved(self) -> None:
    self._last_save = self._now()
