"""Halves of surrogate pairs, which JSON can write and which are no text."""

import re
from typing import Any

_HALF = re.compile("[\ud800-\udfff]")


def well_formed(value: Any) -> tuple[Any, int]:
  """A JSON value with U+FFFD for each half, and the number of halves."""
  if isinstance(value, str):
    try:
      value.encode()  # Much faster than to look for them.
    except UnicodeEncodeError:
      return _HALF.subn("\ufffd", value)
  elif isinstance(value, list):
    parts = [well_formed(part) for part in value]
    return [part for part, _ in parts], sum(halves for _, halves in parts)
  elif isinstance(value, dict):
    keys, in_keys = well_formed(list(value))
    values, in_values = well_formed(list(value.values()))
    return dict(zip(keys, values)), in_keys + in_values
  return value, 0
