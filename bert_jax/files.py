"""Files: one atomic writer, one reader of what may be compressed."""

import contextlib
import gzip
import logging
import lzma
import os
import pathlib
import zlib
from collections.abc import Iterator
from typing import BinaryIO

from bert_jax.config import UserError

_log = logging.getLogger(__name__)
# What a compressed file begins with, and what opens it.
_MAGIC = {b"\x1f\x8b": gzip.open, b"\xfd7zXZ\x00": lzma.open}
_COMPRESSION_SUFFIXES = (".gz", ".xz")


@contextlib.contextmanager
def replacing(path: str | os.PathLike) -> Iterator[BinaryIO]:
  """A binary file to write to, which takes its place at `path` when complete.

  A reader finds the old file or all of the new one, even after a power
  failure.
  """
  part = pathlib.Path(f"{path}.part")
  try:
    with open(part, "wb") as file:
      yield file
      file.flush()
      os.fsync(file.fileno())
    part.replace(path)
  except BaseException:
    with contextlib.suppress(OSError):
      part.unlink(missing_ok=True)
    raise


def write_bytes(path: str | os.PathLike, data: bytes) -> None:
  """Replaces a file; a UserError where it cannot be written."""
  with writing(path), replacing(path) as file:
    file.write(data)


def write_text(path: str | os.PathLike, text: str) -> None:
  write_bytes(path, text.encode())


@contextlib.contextmanager
def writing(path: str | os.PathLike) -> Iterator[None]:
  """Turns an OSError inside into a UserError that names the file."""
  try:
    yield
  except OSError as error:
    raise UserError(f"{path} cannot be written: {error.strerror or error}."
                    ) from None


@contextlib.contextmanager
def reading(path: str | os.PathLike) -> Iterator[BinaryIO]:
  """A binary file to read, decompressed if its first bytes say so.

  Raises:
    UserError: it cannot be opened or read, or its compression is damaged.
  """
  try:
    with open(path, "rb") as file:
      magic = file.read(max(map(len, _MAGIC)))
    open_ = next((open_ for start, open_ in _MAGIC.items()
                  if magic.startswith(start)), open)
    with open_(path, "rb") as file:
      yield file
  except (EOFError, lzma.LZMAError, zlib.error, gzip.BadGzipFile) as error:
    raise UserError(f"{path} is damaged or incomplete: {error}.") from None
  except OSError as error:
    raise UserError(f"{path} cannot be read: {error.strerror or error}."
                    ) from None


def read_text(path: str | os.PathLike) -> str:
  """UTF-8 text, without its byte-order mark.

  Raises:
    UserError: as `reading`, or it is not UTF-8.
  """
  with reading(path) as file:
    data = file.read()
  try:
    text = data.decode()
  except UnicodeDecodeError as error:
    raise UserError(f"{path} is not UTF-8: byte {error.start} is "
                    f"{data[error.start]:#x}.") from None
  if text.startswith("\ufeff"):
    _log.warning("%s:1: ignoring a byte-order mark.", path)
  return text.removeprefix("\ufeff")


def suffix(path: str | os.PathLike) -> str:
  """The suffix of a file's name, ignoring that of its compression."""
  path = pathlib.Path(path)
  return (path.with_suffix("") if path.suffix in _COMPRESSION_SUFFIXES
          else path).suffix
