"""Errors that a user understands."""

import difflib
from collections.abc import Iterable


class UserError(ValueError):
  """A mistake in what the user gave; its message is all the user needs."""


def nearest(word: str, valid: Iterable[str]) -> str:
  """The end of an error message: the closest valid name and all of them."""
  valid = list(valid)
  close = difflib.get_close_matches(word, valid, n=1)
  guess = f"; did you mean {close[0]!r}?" if close else "."
  return f"{guess} Valid: {', '.join(valid) or 'none'}."


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
    if name in (last, initials) or (len(name) > 3 and name in last):
      ratio = 1.0
    if ratio >= 0.7:
      scores[other] = ratio
  return sorted(scores, key=lambda k: (-scores[k], k.count(".")))[:count]
