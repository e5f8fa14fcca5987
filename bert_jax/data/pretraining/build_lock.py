"""A folder to build in, so that what is built is there whole or not at all.

One host builds DIRECTORY in one hidden folder beside it, under a lock: of the
processes of a host one builds and the others wait. A lock ends with its process
however that ends, so whoever comes next finds what is left and takes it away.

Hosts that share a disk do not wait for each other, as not every network disk
knows locks: each builds in a folder of its own, and the first to be done is
used by all.
"""

import contextlib
import errno
import fcntl
import glob
import logging
import os
import pathlib
import shutil
import socket
import time
from collections.abc import Iterator
from typing import TextIO

from bert_jax.config import UserError

_BUILDING = ".building-"
_LOCK = "lock"
# What another host has not touched for so many seconds, it left behind. (Its
# locks may be invisible here, so a free lock alone says nothing.)
_ABANDONED = 24 * 3600.0
_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL)

_log = logging.getLogger(__name__)


@contextlib.contextmanager
def building(directory: pathlib.Path) -> Iterator[pathlib.Path]:
  """An empty folder to build `directory` in, which is gone afterwards.

  Waits for another process of this host that builds it: look again whether it
  is there.

  Raises:
    UserError: for any OSError inside: the disk is full, may not be written.
  """
  folder, lock = None, None
  try:
    directory.parent.mkdir(parents=True, exist_ok=True)
    remove_rests(directory)
    folder, lock = _locked(directory)
    _clear(folder)
    yield folder
  except OSError as error:
    raise UserError(_told(error, directory.parent)) from None
  finally:
    if lock:
      with contextlib.suppress(OSError):
        _remove(folder, lock)


def place(folder: pathlib.Path, directory: pathlib.Path) -> None:
  """Renames what is complete to its place, unless there is another already."""
  try:
    folder.rename(directory)
  except OSError as error:
    if error.errno not in (errno.EEXIST, errno.ENOTEMPTY):
      raise


def remove_rests(directory: pathlib.Path) -> None:
  """Removes what dead builders of `directory` left; leaves living ones."""
  own = _own(directory)
  for rest in directory.parent.glob(
      glob.escape(f".{directory.name}{_BUILDING}") + "*"):
    with contextlib.suppress(OSError):
      if rest != own and time.time() - _touched(rest) < _ABANDONED:
        continue
      with open(rest / _LOCK, "w") as lock:
        if _is_free(lock) is not False and _is_at_its_place(lock):
          _remove(rest, lock)


def _own(directory: pathlib.Path) -> pathlib.Path:
  return directory.parent / (
      f".{directory.name}{_BUILDING}{socket.gethostname()}")


def _locked(directory: pathlib.Path) -> tuple[pathlib.Path, TextIO]:
  """This host's folder, and the lock on it as long as that is open."""
  folder = _own(directory)
  while True:
    lock = _opened(folder)
    free = _is_free(lock)
    if free is None:  # Nobody can wait: a folder for this process alone.
      with contextlib.suppress(OSError):
        _remove(folder, lock)
      folder = folder.with_name(f"{folder.name}-{os.getpid()}")
      return folder, _opened(folder)
    if not free:
      _log.warning("Another process is building %s; waiting for it.", directory)
      fcntl.flock(lock, fcntl.LOCK_EX)
    if _is_at_its_place(lock):
      return folder, lock
    lock.close()


def _opened(folder: pathlib.Path) -> TextIO:
  while True:
    with contextlib.suppress(FileExistsError):
      folder.mkdir()
    try:
      return open(folder / _LOCK, "w")
    except FileNotFoundError:
      continue  # Whoever had the folder was just removing it.
    except OSError:
      with contextlib.suppress(OSError):
        folder.rmdir()
      raise


def _is_free(lock: TextIO) -> bool | None:
  """Locks a file if nobody else has; None: this disk knows no locks."""
  try:
    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    return True
  except BlockingIOError:
    return False
  except OSError as error:
    if error.errno not in _NO_LOCKS:
      raise
    return None


def _is_at_its_place(lock: TextIO) -> bool:
  """Whether an open file was not removed by the one who had it before."""
  try:
    return os.path.samestat(os.fstat(lock.fileno()), os.stat(lock.name))
  except FileNotFoundError:
    return False


def _remove(folder: pathlib.Path, lock: TextIO) -> None:
  """The lock goes last: until then nobody else begins in here."""
  _clear(folder)
  (folder / _LOCK).unlink()
  lock.close()
  folder.rmdir()  # Fails where another one was quick, and may.


def _clear(folder: pathlib.Path) -> None:
  for path in folder.iterdir():
    if path.is_dir():
      shutil.rmtree(path)
    elif path.name != _LOCK:
      path.unlink()


def _touched(folder: pathlib.Path) -> float:
  return max(path.stat().st_mtime for path in (folder, *folder.rglob("*")))


def _told(error: OSError, folder: pathlib.Path) -> str:
  reason = error.strerror or str(error)
  name = pathlib.Path(error.filename or folder).absolute()
  if not (name.is_relative_to(folder) or folder.is_relative_to(name)):
    return f"{name}: {reason}."  # Of what was read.
  found = folder
  while not found.exists():
    found = found.parent
  return (f"{folder} cannot be written: {reason}; "
          f"{shutil.disk_usage(found).free / 1e9:.2f} GB are free there. Make "
          "room, or have another folder used: BERT_JAX_CACHE=FOLDER.")
