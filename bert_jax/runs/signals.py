"""Requests to stop."""

import contextlib
import os
import select
import signal
import sys
import threading
from collections.abc import Iterator
from typing import Any

from bert_jax.reporting import terminal

_SIGNALS = (signal.SIGTERM, signal.SIGINT)
_GRACE_SECONDS = 60


class StopRequests:
  """Requests to stop, and whether a step has to answer them.

  Attributes:
    came: set once there was one.
    number: of its signal.
  """

  def __init__(self):
    self.came, self.number = threading.Event(), signal.SIGTERM
    self._interrupts = 0
    self._no_step = threading.Event()

  @contextlib.contextmanager
  def no_step(self) -> Iterator[None]:
    """While a state is evaluated or saved, which takes its time."""
    self._no_step.set()
    try:
      yield
    finally:
      self._no_step.clear()

  def handle(self, number: int, frame: Any) -> None:
    """A signal, in the main thread.

    Raises:
      KeyboardInterrupt: the second in a notebook, whose process lives on.
    """
    if not self.came.is_set():
      self.number = signal.Signals(number)
    self.came.set()
    self._interrupts += number == signal.SIGINT
    if self._interrupts > 1 and terminal.in_notebook():
      raise KeyboardInterrupt

  def watch(self, reader: int, seconds: float) -> None:
    """Ends the process at a second request, or where no step answers the first.

    Not that of a notebook at an interrupt.

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
          if number == signal.SIGINT and terminal.in_notebook():
            print("Interrupted: ends after this step; a second time does not "
                  "wait.", file=sys.stderr, flush=True)
            continue
          if first:
            _exit(number, "Asked to end again")
          first = number
          if not self.came.is_set():
            self.number = signal.Signals(number)
          self.came.set()
          print(f"{self.number.name}: ends after this step; a second one does "
                "not wait.", file=sys.stderr, flush=True)
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
  """Follows SIGTERM and SIGINT (Ctrl-C), which until then end nothing.

  Preempted machines, Kubernetes and SLURM send the first some time before they
  end a process. Only a main thread can listen. Where SIGINT is ignored, as in
  the background of a shell, it still is.

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
  before = {number: signal.signal(number, requests.handle)
            for number in _SIGNALS
            if signal.getsignal(number) != signal.SIG_IGN}
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
