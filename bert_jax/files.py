"""Files: one atomic write, one read of what may be compressed."""

import contextlib
import gzip
import logging
import lzma
import os
import pathlib
from collections.abc import Iterator

from bert_jax.config import UserError

_LOG = logging.getLogger(__name__)
_COMPRESSED = {".gz": gzip.open, ".xz": lzma.open}


def write_text(path: str | os.PathLike, text: str) -> None:
  """Writes a file, whole or not at all; a UserError where it cannot."""
  part = pathlib.Path(f"{path}.part")
  try:
    part.write_text(text, newline="", encoding="utf-8")
    part.replace(path)
  except OSError as error:
    with contextlib.suppress(OSError):
      part.unlink(missing_ok=True)
    raise UserError(f"{path} cannot be written: {error.strerror}.") from None


def suffix(spec: str) -> str:
  """Of a file, without that of the compression."""
  path = pathlib.Path(spec)
  return (path.with_suffix("") if path.suffix in _COMPRESSED else path).suffix


def read_text(spec: str) -> str:
  path = pathlib.Path(spec)
  opened = _COMPRESSED.get(path.suffix, open)
  try:
    with opened(path, "rb") as file:
      text = file.read().decode()
  except UnicodeDecodeError as error:
    raise UserError(f"{spec} is not UTF-8: byte {error.start} is "
                    f"{error.object[error.start]:#x}.") from None
  except (OSError, EOFError, lzma.LZMAError) as error:
    reason = getattr(error, "strerror", None) or error
    raise UserError(f"{spec} cannot be read: {reason}.") from None
  if text.startswith("\ufeff"):
    _LOG.warning("%s:1: a byte-order mark is left out.", spec)
  return text.removeprefix("\ufeff")


@contextlib.contextmanager
def writing(path: str | os.PathLike) -> Iterator[None]:
  try:
    yield
  except OSError as error:
    raise UserError(f"{path} cannot be written: {error.strerror or error}."
                    ) from None
