"""The seconds that a run has used."""

import time
from collections.abc import Callable


class Clock:
  """The seconds that a run has used, in this process and those before it.

  Args:
    save_minutes: between saves; None: saves do not depend on time.
    now: the time in seconds.
  """

  def __init__(self, save_minutes: float | None = None,
               now: Callable[[], float] = time.monotonic):
    self._now, self._start, self._before = now, now(), None
    self._save_seconds = save_minutes and 60 * save_minutes
    self._last_save = self._start
    self._deadline = float("inf")

  def load_state(self, seconds: float) -> None:
    """Adds the seconds of earlier processes; after a roll-back, nothing."""
    if self._before is None:
      self._before = seconds

  def limit(self, seconds: float) -> None:
    """It `should_stop` once this many seconds are used."""
    self._deadline = seconds

  def used(self) -> float:
    return (self._before or 0.0) + self._now() - self._start

  def should_stop(self) -> bool:
    return self.used() >= self._deadline

  def save_due(self) -> bool:
    return bool(self._save_seconds) and (
        self._now() - self._last_save >= self._save_seconds)

  def saved(self) -> None:
    self._last_save = self._now()
