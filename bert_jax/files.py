"""Files: one atomic writer, one reader of what may be compressed."""

import contextlib
import gzip
import io
import itertools
import logging
import lzma
import os
import pathlib
import re
import zlib
from collections.abc import Iterator
from typing import BinaryIO

from bert_jax.config import UserError

_log = logging.getLogger(__name__)
_CHUNK_BYTES = 1 << 16
_MAGIC_BYTES = 10  # as many as tell one compression from another
# As gs://bucket; a Path has only one slash of it.
_ADDRESS = re.compile(r"[a-z][a-z0-9+.-]+:/", re.IGNORECASE)
_COMPRESSION_SUFFIXES = (".gz", ".xz", ".bz2", ".zst")


def cache_directory() -> pathlib.Path:
  """Where corpora and what is compiled are kept: $BERT_JAX_CACHE or
  ~/.cache/bert_jax."""
  return pathlib.Path(os.environ.get("BERT_JAX_CACHE")
                      or pathlib.Path.home() / ".cache" / "bert_jax")


def check_local(path: str | os.PathLike) -> None:
  """
  Raises:
    UserError: it is an address, which would be made as a folder of that name.
  """
  if _ADDRESS.match(str(path)):
    raise UserError(f"{path} is an address. Only paths are read and written: "
                    "mount the bucket (as with Cloud Storage FUSE), or copy "
                    "the files.")


@contextlib.contextmanager
def replacing(path: str | os.PathLike) -> Iterator[BinaryIO]:
  """A binary file to write to, which takes its place at `path` when complete.

  A reader finds the old file or all of the new one, even after a power
  failure.
  """
  check_local(path)
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


def check_folder(path: str | os.PathLike) -> None:
  """Raises UserError where a file has no folder; before it is computed."""
  folder = pathlib.Path(path).parent
  if not folder.absolute().is_dir():
    raise UserError(f"{path} cannot be written: there is no folder {folder}.")


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

  It is opened once and read from its beginning to its end: a pipe will do.

  Raises:
    UserError: it cannot be opened or read, or its compression is damaged.
  """
  check_local(path)
  try:
    with open(path, "rb") as file:
      head = file.read(_MAGIC_BYTES)
      yield _decompressed(head, _file_of(itertools.chain(
          [head], iter(lambda: file.read1(_CHUNK_BYTES), b""))))
  except (EOFError, lzma.LZMAError, zlib.error) as error:
    raise UserError(f"{path} is damaged or incomplete: {error}.") from None
  except OSError as error:
    # Only what the system says has a number.
    problem = ("cannot be read" if error.errno else "is damaged or incomplete")
    raise UserError(f"{path} {problem}: {error.strerror or error}.") from None


def _decompressed(head: bytes, file: BinaryIO) -> BinaryIO:
  """What a file that begins with `head` holds."""
  if head.startswith(b"\x1f\x8b"):
    return gzip.GzipFile(fileobj=file)
  if head.startswith(b"\xfd7zXZ\x00"):
    return _file_of(_xz_chunks(file))
  if re.match(rb"BZh[1-9](1AY&SY|\x17rE8P\x90)", head):
    return _arrow(file, "bz2")
  # Some programs write a frame to skip before the first of zstd.
  if head.startswith((b"\x28\xb5\x2f\xfd", b"\x50\x2a\x4d\x18")):
    return _arrow(file, "zstd")
  return file


def _arrow(file: BinaryIO, codec: str) -> BinaryIO:
  import pyarrow  # Late: it takes a third of a second.
  return pyarrow.CompressedInputStream(
      pyarrow.PythonFile(file, mode="r"), codec)


def _xz_chunks(file: BinaryIO) -> Iterator[bytes]:
  """The content of all streams of an .xz file and of the padding between them.

  `lzma.open` takes what follows a padding, or is damaged, for the end.
  """
  data = b""
  while data := data or file.read(_CHUNK_BYTES):
    data = data.lstrip(b"\0")
    if not data:
      continue
    stream = lzma.LZMADecompressor(lzma.FORMAT_XZ)
    while not stream.eof:
      if stream.needs_input and not (data := data or file.read(_CHUNK_BYTES)):
        raise EOFError("it ends within a stream")
      yield stream.decompress(data, _CHUNK_BYTES)
      data = b""
    data = stream.unused_data


class _Chunks(io.RawIOBase):
  """The bytes of an iterator, as a file."""

  def __init__(self, chunks: Iterator[bytes]):
    self._chunks, self._rest = chunks, memoryview(b"")

  def readable(self) -> bool:
    return True

  def readinto(self, buffer: memoryview) -> int:
    while not self._rest:
      chunk = next(self._chunks, None)
      if chunk is None:
        return 0
      self._rest = memoryview(chunk)
    size = min(len(buffer), len(self._rest))
    buffer[:size], self._rest = self._rest[:size], self._rest[size:]
    return size


def _file_of(chunks: Iterator[bytes]) -> BinaryIO:
  return io.BufferedReader(_Chunks(chunks), _CHUNK_BYTES)


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
