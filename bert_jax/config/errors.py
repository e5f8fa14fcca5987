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
