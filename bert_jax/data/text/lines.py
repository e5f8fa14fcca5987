"""Lines of text files, whatever is wrong with them."""

import pathlib
from collections.abc import Iterator

from bert_jax import files
from bert_jax.config import UserError

_CHUNK_BYTES = 1 << 20
# A file with a larger share of bytes that are no UTF-8 is of another encoding.
_MOST_INVALID = .01


class Repairs:
  """What had to be repaired of a text: how often, and where first."""

  def __init__(self):
    self._counts: dict[str, int] = {}
    self._places: dict[str, str] = {}

  def add(self, what: str, place: str, count: int = 1) -> None:
    self._counts[what] = self._counts.get(what, 0) + count
    self._places.setdefault(what, place)

  def __bool__(self) -> bool:
    return bool(self._counts)

  def __str__(self) -> str:
    return "; ".join(f"{count:,} {what} (first: {self._places[what]})"
                     for what, count in self._counts.items())


def lines(path: pathlib.Path, limit: int, repairs: Repairs) -> Iterator[str]:
  """Lines of a text file without their ends, streamed.

  Compression is recognized by content. Lines over `limit` bytes are cut,
  invalid UTF-8 is replaced; both are counted in `repairs`.

  Raises:
    UserError: the file is damaged, binary, of another encoding or cannot be
      read.
  """
  size, invalid, first = 0, 0, 0
  for number, block in _line_blocks(path, limit, repairs):
    block = block.removesuffix(b"\r")
    size += len(block)
    try:
      text = block.decode()
    except UnicodeDecodeError as error:
      text = block.decode(errors="replace")
      wrong = len(text) - len(block.decode(errors="ignore"))
      place = number + block.count(b"\n", 0, error.start)
      invalid, first = invalid + wrong, first or place
      repairs.add("invalid UTF-8 bytes replaced", f"{path}:{place}", wrong)
    if invalid > _MOST_INVALID * size:
      raise UserError(
          f"{path} is not UTF-8: {invalid:,} of its first {size:,} bytes are "
          f"none, the first in line {first}. Convert it, as in `iconv -f "
          "ENCODING -t utf-8`.")
    # Not splitlines: it also breaks at form feeds and Unicode separators.
    yield from text.replace("\r\n", "\n").replace("\r", "\n").split("\n")


def _line_blocks(path: pathlib.Path, limit: int,
                 repairs: Repairs) -> Iterator[tuple[int, bytes]]:
  """Whole lines in blocks of about a megabyte, the last line end left out.

  With each the number of its first line.
  """
  rest, number = b"", 1
  for chunk in _chunks(path):
    complete, end, tail = chunk.rpartition(b"\n")
    if end:
      yield number, rest + complete
      number += complete.count(b"\n") + 1
      rest = tail
    else:
      rest += chunk
    while len(rest) > limit:
      repairs.add("overlong lines cut", f"{path}:{number}")
      cut = max(rest.rfind(b" ", limit // 2, limit), 0) or limit
      # Never inside a character, which has four bytes at most.
      cut = next((c for c in range(cut, cut - 4, -1)
                  if rest[c] & 0xC0 != 0x80), cut)
      yield number, rest[:cut]
      rest = rest[cut:]
  if rest:
    yield number, rest


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
