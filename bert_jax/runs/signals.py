"""Requests to stop."""

import contextlib
import os
import select
import signal
import sys
import threading
from collections.abc import Iterator

_SIGNALS = (signal.SIGTERM,)
_GRACE_SECONDS = 60


class StopRequests:
  """Requests to stop, and whether a step has to answer them.

  Attributes:
    came: set once there was one.
  """

  def __init__(self):
    self.came = threading.Event()
    self._no_step = threading.Event()

  @contextlib.contextmanager
  def no_step(self) -> Iterator[None]:
    """While a state is evaluated or saved, which takes its time."""
    self._no_step.set()
    try:
      yield
    finally:
      self._no_step.clear()

  def watch(self, reader: int, seconds: float) -> None:
    """Ends the process at a second request, or where no step answers the first.

    Args:
      reader: of a pipe that gets the number of every signal; until it ends.
      seconds: in which a step has to answer.
    """
    waited, tick, first = 0.0, seconds / 60, None
    while True:
      if select.select([reader], [], [], tick if first else None)[0]:
        signals = os.read(reader, 64)
        if not signals:
          return
        for number in filter(_SIGNALS.__contains__, signals):
          if first:
            _exit(number, "Asked to end again")
          first = number
          self.came.set()
      elif not self._no_step.is_set():
        waited += tick
        if waited >= seconds:
          _exit(first, f"Asked to end, and no step has answered for "
                f"{seconds:g} seconds (it waits for another process, or is "
                "being compiled)")


def _exit(number: int, reason: str) -> None:
  print(f"{reason}: ended at once. The same command resumes from the last "
        "checkpoint, if there is one.", file=sys.stderr, flush=True)
  os._exit(128 + number)


@contextlib.contextmanager
def stop_requests(seconds: float = _GRACE_SECONDS) -> Iterator[StopRequests]:
  """Follows SIGTERM, which until then ends nothing.

  Preempted machines, Kubernetes and SLURM send it some time before they end a
  process. Only a main thread can listen.

  Args:
    seconds: in which a step has to answer a request.
  """
  requests = StopRequests()
  if threading.current_thread() is not threading.main_thread():
    yield requests
    return
  reader, writer = os.pipe()
  os.set_blocking(writer, False)
  # Handlers run when the main thread is back from a computation, if ever; the
  # number of a signal is in the pipe at once.
  before = {number: signal.signal(number, lambda *_: requests.came.set())
            for number in _SIGNALS}
  wakeup = signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
  watcher = threading.Thread(target=requests.watch, args=(reader, seconds),
                             daemon=True)
  watcher.start()
  try:
    yield requests
  finally:
    signal.set_wakeup_fd(wakeup)
    for number, handler in before.items():
      signal.signal(number, handler)
    os.close(writer)
    watcher.join()
    os.close(reader)
