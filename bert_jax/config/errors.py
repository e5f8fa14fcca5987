"""Errors that a user understands."""

import difflib
import pathlib
import shutil
import sysconfig
import textwrap
import traceback
from collections.abc import Iterable
from typing import TextIO


_COLUMNS = 80  # of a list of names
_PACKAGE = str(pathlib.Path(__file__).resolve().parents[1])
_LIBRARIES = tuple(sysconfig.get_path(name) for name in (
    "stdlib", "platstdlib", "purelib", "platlib", "scripts"))


class UserError(ValueError):
  """A mistake in what the user gave; its message is all the user needs."""

  def _render_traceback_(self) -> list[str]:
    """What IPython shows: the user's own line, then the message."""
    line = users_line(self)
    return [*([line, ""] if line else []), f"UserError: {self}"]


def users_line(error: BaseException) -> str:
  """Where in the user's own code, a page's or a cell's, an error came from: the
  innermost such line with its place; "" if there is none."""
  if isinstance(error, SyntaxError) and error.text:
    return (f"{error.filename}, line {error.lineno}:\n    "
            f"{error.text.strip()}")
  lines = [frame for frame in traceback.extract_tb(error.__traceback__)
           if not frame.filename.startswith((_PACKAGE, *_LIBRARIES, "<frozen"))]
  if not lines:
    return ""
  last = lines[-1]
  return f"{last.filename}, line {last.lineno}:\n    {last.line}"


def wrapped(text: str, stream: TextIO) -> str:
  """Its sentences in lines of a terminal, without a cut word; lines that are
  indented, and what is for a file or another program, as they are."""
  if not stream.isatty():
    return text
  columns = shutil.get_terminal_size().columns
  return "\n".join(line if line.startswith(" ") else textwrap.fill(
      line, columns, break_long_words=False, break_on_hyphens=False)
                   for line in text.splitlines())


def nearest(word: str, valid: Iterable[str]) -> str:
  """The end of an error message: the closest valid name, and all of them where
  there is none or they are few."""
  valid = list(valid)
  close = difflib.get_close_matches(word, valid, n=1)
  names = f" Valid: {', '.join(valid) or 'none'}."
  if len(names) > _COLUMNS:
    names = "" if close else " Valid:\n" + textwrap.fill(
        f"{', '.join(valid)}.", _COLUMNS, initial_indent="  ",
        subsequent_indent="  ", break_long_words=False, break_on_hyphens=False)
  return (f"; did you mean {close[0]!r}?" if close else ".") + names


def nearest_keys(key: str, keys: Iterable[str], count: int = 3) -> list[str]:
  """Keys, or what they begin with, that a wrong one may mean.

  By its last name, or by the initials of theirs, as lr for learning_rate.
  """
  name = key.rpartition(".")[2].lower()
  names = {".".join(parts[:i + 1]) for parts in (k.split(".") for k in keys)
           for i in range(len(parts))}
  scores = {}
  for other in sorted(names):
    last = other.rpartition(".")[2]
    initials = "".join(word[0] for word in last.split("_"))
    ratio = difflib.SequenceMatcher(None, name, last).ratio()
    if name in (last, initials):
      ratio = 2.0
    elif len(name) > 3 and name in last:
      ratio = 1.0
    if ratio >= 0.7:
      scores[other] = ratio
  return sorted(scores, key=lambda k: (-scores[k], k.count(".")))[:count]
