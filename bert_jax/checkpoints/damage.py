"""What a failed attempt to read a checkpoint proves about it."""

import contextlib
import functools
import json
import os
import pathlib
import re
import time
from collections.abc import Callable, Iterator
from typing import Any

from bert_jax.config import UserError

# What TensorStore says of a file that is missing, too short, or not decoded.
# All else, and whatever names an error of the system, is a disk, a network or
# a machine that refused.
_PROOF = re.compile(r"(DATA_LOSS|FAILED_PRECONDITION|NOT_FOUND|OUT_OF_RANGE):"
                    r"(?!.*\[OS error)", re.DOTALL)
_NEEDED = ("manifest/metadata", "params/_METADATA", "optimizer/_METADATA")
# Seconds between attempts to read: a network disk may need some.
_PAUSES = (0.5, 4.0)


class Damaged(Exception):
  """What is there is not what was written, as a checksum or its structure
  proves."""


class Unreadable(UserError):
  """It cannot be read now, for a reason that proves nothing about it."""


class Removed(UserError):
  """It is not there any more: its run has newer ones."""


def retried(read: Callable[..., Any]) -> Callable[..., Any]:
  """Reads again where that failed; the last attempt decides."""

  @functools.wraps(read)
  def attempts(*arguments: Any) -> Any:
    for seconds in _PAUSES:
      try:
        return read(*arguments)
      except (Damaged, Unreadable):
        time.sleep(seconds)
    return read(*arguments)

  return attempts


@contextlib.contextmanager
def explained(folder: pathlib.Path) -> Iterator[None]:
  """Turns whatever is raised while a checkpoint's folder is read into
  `Damaged`, `Removed` or `Unreadable`; a UserError stays."""
  try:
    yield
  except UserError:
    raise
  except Exception as error:
    causes, refused = list(_causes(error)), _refused(folder)
    proofs = [_line(cause) for cause in causes if _proves_damage(cause)] + [
        f"{name} is missing" for name in _NEEDED if _is_missing(folder / name)]
    if proofs and not refused and not _is_missing(folder.parent):
      if _is_missing(folder):
        raise Removed(f"{folder} is not there any more.") from None
      raise Damaged(proofs[0]) from None
    reason = refused or f"{folder} cannot be read: {_line(causes[-1])}."
    raise Unreadable(
        f"{reason} Nothing was moved. Try again; if this lasts, move the "
        "folder elsewhere, and the checkpoint before it is used.") from error


def _causes(error: BaseException | None) -> Iterator[BaseException]:
  while error is not None:
    yield error
    error = error.__cause__ or error.__context__


def _proves_damage(error: BaseException) -> bool:
  return isinstance(error, (FileNotFoundError, json.JSONDecodeError,
                            UnicodeDecodeError)) or bool(
                                _PROOF.match(str(error)))


def _line(error: BaseException) -> str:
  text = (str(error).splitlines() or [""])[0]
  return f"{type(error).__name__}: {text[:200]}"


def _is_missing(path: pathlib.Path) -> bool:
  """Not so where the system does not say; `Path.exists` guesses."""
  try:
    path.stat()
  except FileNotFoundError:
    return True
  except OSError:
    pass
  return False


def _refused(folder: pathlib.Path) -> str:
  """Which file or folder the system does not open, and its own word for it.

  To Orbax, what is in a folder that may not be searched is not there.
  """
  def fail(error: OSError) -> None:
    raise error

  try:
    for place, _, names in os.walk(folder, onerror=fail):
      for name in names:
        open(os.path.join(place, name), "rb").close()
  except FileNotFoundError:
    pass
  except OSError as error:
    return f"{error.filename or folder} cannot be read: {error.strerror}."
  return ""
