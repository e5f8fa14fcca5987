"""The owner of a work directory: the one process that writes there."""

import contextlib
import logging
import os
import pathlib
import tempfile
import time
from typing import Any

import filelock

from bert_jax import distributed
from bert_jax.config import UserError
from bert_jax.files import check_local

_LOG = logging.getLogger(__name__)
# The owner touches its record three times in this many seconds. A network disk
# may show that a minute late.
_LEASE = 180.0
# A dead owner of this host is replaced within this time.
_AT_ONCE = 1.0


class Owner:
  """Of a work directory, from `take` to the end of the context.

  The record `owner` in the directory names host, process and time. It needs no
  locks of the disk: whether an owner of this host is alive is seen by its
  process and when that was started, of another host by whether it still
  touches its record. Of a run on several hosts process 0 is the owner.
  """

  def __init__(self, workdir: pathlib.Path):
    check_local(workdir)
    self._workdir, self._path = workdir, workdir / "owner"
    self._lease = filelock.SoftFileLease(self._path, lease_duration=_LEASE,
                                         poll_interval=0.05)

  def take(self) -> None:
    """Makes the directory where it is not there.

    Raises:
      UserError: it cannot be written to, or its owner is alive.
    """
    try:
      self._workdir.mkdir(parents=True, exist_ok=True)
      if distributed.first():
        self._acquire()
      else:
        tempfile.TemporaryFile(dir=self._workdir).close()
    except OSError as error:
      raise UserError(f"The work directory {self._workdir} cannot be written "
                      f"to: {error.strerror}.") from error

  def try_take(self) -> bool:
    """Whether this process is the owner now; it does not wait for another's
    death, but replaces one that is known to be dead."""
    self._workdir.mkdir(parents=True, exist_ok=True)
    try:
      self._lease.acquire(timeout=_AT_ONCE)
    except filelock.Timeout:
      return False
    self._sign()
    return True

  def _acquire(self) -> None:
    try:
      self._lease.acquire(timeout=_AT_ONCE)
    except filelock.Timeout:
      self._wait_for_death()
    self._sign()

  def _sign(self) -> None:
    # For people; the record may hold more than the library reads.
    with self._path.open("a") as file:
      file.write(time.strftime("since=%Y-%m-%d %H:%M:%S %Z\n"))

  def _wait_for_death(self) -> None:
    """Of an owner elsewhere, as its record is not touched any more."""
    if self._is_here():
      raise UserError(self._refusal())
    _LOG.warning("%s Waiting up to %.0f s for a sign of life.",
                 self._refusal(), 1.5 * _LEASE)
    touched, end = self._touched(), time.monotonic() + 1.5 * _LEASE
    while time.monotonic() < end and self._touched() == touched:
      with contextlib.suppress(filelock.Timeout):
        self._lease.acquire(timeout=_LEASE / 36)
        return
    raise UserError(self._refusal())

  def _is_here(self) -> bool:
    """Whether it is a process of this host, and of the same container."""
    with tempfile.TemporaryDirectory() as folder, filelock.SoftFileLease(
        f"{folder}/owner") as mine:
      owner = self._lease.owner
      return owner is not None and owner.hostname == mine.owner.hostname

  def _touched(self) -> float | None:
    with contextlib.suppress(OSError):
      return self._path.stat().st_mtime
    return None

  def _refusal(self) -> str:
    owner, since = self._lease.owner, ""
    with contextlib.suppress(OSError):
      since = "".join(f" since {line.removeprefix('since=')}"
                      for line in self._path.read_text().splitlines()
                      if line.startswith("since="))
    process = (f"process {owner.pid} on {owner.hostname.partition('?')[0]}"
               if owner else "another process")
    return (f"{self._workdir} is in use by {process}{since}. Wait until it has "
            "ended, or give another workdir.")

  def is_alive(self) -> bool:
    """Whether a process seems to be at work here; nothing is changed."""
    owner, touched = self._lease.owner, self._touched()
    if owner is None or touched is None:
      return False
    if self._is_here():
      with contextlib.suppress(ProcessLookupError):
        os.kill(owner.pid, 0)
        return True
      return False
    return time.time() - touched < _LEASE

  def check(self) -> None:
    """To be called before anything is saved.

    Raises:
      UserError: this process was taken for dead, and another is the owner.
    """
    lost = self._lease.compromise
    if lost is None:
      return
    self._lease.release(force=True)
    if lost.reason != "refresh-failed":
      raise UserError(f"This process did not touch {self._path} for {_LEASE:g} "
                      "seconds and was taken for dead; it saves nothing more. "
                      + self._refusal())
    self._acquire()

  def __enter__(self) -> "Owner":
    return self

  def __exit__(self, *_: Any) -> None:
    self._lease.release(force=True)
