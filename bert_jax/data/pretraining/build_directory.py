"""A folder to build in, so that what is built is complete or not there.

What DIRECTORY shall hold is built in a hidden folder beside it, which is then
renamed. On one host a process builds and the others wait; a lock ends with its
process, however that ends. Hosts that share a disk do not wait for each other,
as not every network disk knows locks: the first to be done is used.
"""

import contextlib
import errno
import glob
import logging
import os
import pathlib
import shutil
import socket
import threading
import time
from collections.abc import Iterator

import filelock

from bert_jax.config import UserError

# Leftovers of another host are those it has not touched for this time, in
# seconds: its locks may be invisible here.
_ABANDONED = 24 * 3600.0
_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL)
_LOG = logging.getLogger(__name__)


@contextlib.contextmanager
def build_directory(directory: pathlib.Path) -> Iterator[pathlib.Path]:
  """A name beside `directory` to build it under; it is gone afterwards.

  Waits for another process of this host that builds it: check again whether it
  is there.

  Raises:
    UserError: for any OSError inside: the disk is full, may not be written.
  """
  try:
    directory.parent.mkdir(parents=True, exist_ok=True)
    with _host_lock(directory) as locked:
      remove_leftovers(directory, locked)
      folder = directory.with_name(
          f"{_prefix(directory)}{os.getpid()}-{threading.get_ident()}")
      try:
        yield folder
      finally:
        shutil.rmtree(folder, ignore_errors=True)
  except OSError as error:
    raise UserError(_describe(error, directory.parent)) from None


def publish(folder: pathlib.Path, directory: pathlib.Path) -> None:
  """Renames what is complete, unless another host was first."""
  try:
    folder.rename(directory)
  except OSError as error:
    if error.errno not in (errno.EEXIST, errno.ENOTEMPTY):
      raise


def remove_leftovers(directory: pathlib.Path, locked: bool = False) -> None:
  """Removes what dead builders of `directory` left behind.

  Args:
    locked: this process has the host's lock, so no other of it is building.
  """
  for folder in directory.parent.glob(
      glob.escape(f".{directory.name}.building-") + "*"):
    with contextlib.suppress(OSError):
      own = folder.name.startswith(_prefix(directory))
      if own and locked or time.time() - _touched(folder) > _ABANDONED:
        shutil.rmtree(folder)


def _prefix(directory: pathlib.Path) -> str:
  return f".{directory.name}.building-{socket.gethostname()}-"


@contextlib.contextmanager
def _host_lock(directory: pathlib.Path) -> Iterator[bool]:
  """Waits for this host's other builders; False: the disk knows no locks."""
  folder = directory.with_name(".locks")
  folder.mkdir(exist_ok=True)
  lock = filelock.FileLock(
      folder / f"{directory.name}.{socket.gethostname()}.lock")
  try:
    lock.acquire(timeout=0)
  except filelock.Timeout:
    _LOG.warning("Another process is building %s; waiting for it.", directory)
    lock.acquire()
  except OSError as error:
    if error.errno not in _NO_LOCKS:
      raise
    yield False
    return
  try:
    yield True
  finally:
    lock.release()


def _touched(folder: pathlib.Path) -> float:
  return max(path.stat().st_mtime for path in (folder, *folder.rglob("*")))


def _describe(error: OSError, folder: pathlib.Path) -> str:
  reason = error.strerror or str(error)
  name = pathlib.Path(error.filename or folder).absolute()
  if not (name.is_relative_to(folder) or folder.is_relative_to(name)):
    return f"{name}: {reason}."  # Of what was read.
  elsewhere = "Have another folder used: BERT_JAX_CACHE=FOLDER."
  if error.errno not in (errno.ENOSPC, errno.EDQUOT):
    return f"{folder} cannot be written: {reason}. {elsewhere}"
  disk = next(path for path in (folder, *folder.parents) if path.exists())
  return (f"{folder} cannot be written: {reason}; "
          f"{shutil.disk_usage(disk).free / 1e9:.2f} GB are free there. "
          f"{elsewhere}")
