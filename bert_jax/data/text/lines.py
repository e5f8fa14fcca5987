"""Lines of text files, whatever is wrong with them."""

import collections
import pathlib
from collections.abc import Iterator

from bert_jax import files
from bert_jax.config import UserError

_CHUNK_BYTES = 1 << 20


def lines(path: pathlib.Path, limit: int,
          repairs: collections.Counter[str]) -> Iterator[str]:
  """Lines of a text file without their ends, streamed.

  Compression is recognized by content. Lines over `limit` bytes are cut,
  invalid UTF-8 is replaced; both are counted in `repairs`.

  Raises:
    UserError: the file is damaged, binary or cannot be read.
  """
  for block in _line_blocks(path, limit, repairs):
    block = block.removesuffix(b"\r")
    try:
      text = block.decode()
    except UnicodeDecodeError:
      bad = block.decode(errors="replace")
      good = block.decode(errors="ignore")
      repairs["invalid UTF-8 bytes replaced"] += len(bad) - len(good)
      text = bad
    # Not splitlines: it also breaks at form feeds and Unicode separators.
    yield from text.replace("\r\n", "\n").replace("\r", "\n").split("\n")


def _line_blocks(path: pathlib.Path, limit: int,
                 repairs: collections.Counter[str]) -> Iterator[bytes]:
  """Whole lines in blocks of about a megabyte, the last line end left out."""
  rest = b""
  for chunk in _chunks(path):
    complete, end, tail = chunk.rpartition(b"\n")
    if end:
      yield rest + complete
      rest = tail
    else:
      rest += chunk
    while len(rest) > limit:
      repairs["overlong lines cut"] += 1
      cut = max(rest.rfind(b" ", limit // 2, limit), 0) or limit
      while rest[cut] & 0xC0 == 0x80:
        cut -= 1  # never inside a character
      yield rest[:cut]
      rest = rest[cut:]
  if rest:
    yield rest


def _chunks(path: pathlib.Path) -> Iterator[bytes]:
  """A file's decompressed bytes, without a byte-order mark."""
  with files.reading(path) as file:
    first = True
    while chunk := file.read(_CHUNK_BYTES):
      yield _without_mark(path, chunk) if first else chunk
      first = False


def _without_mark(path: pathlib.Path, chunk: bytes) -> bytes:
  if chunk.startswith((b"\xff\xfe", b"\xfe\xff")):
    raise UserError(f"{path} is UTF-16; convert it first, as in "
                    "`iconv -f utf-16 -t utf-8`.")
  if b"\x00" in chunk[:4096]:
    raise UserError(f"{path} is a binary file, not text.")
  return chunk.removeprefix(b"\xef\xbb\xbf")
