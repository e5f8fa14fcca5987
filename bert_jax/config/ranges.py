"""Which numbers an option may have.

  rate: Fraction = 0.1

Without a range, an option of this package is finite and not negative, and one
of a page's own class is any number.
"""

import dataclasses
import inspect
import math
import typing
from typing import Annotated, Any

from bert_jax.config.errors import UserError


@dataclasses.dataclass(frozen=True)
class Range:
  """Finite numbers from `low` to `high`, or only `below` it."""

  low: float = 0
  high: float = math.inf
  below: bool = False

  def __contains__(self, number: float) -> bool:
    return math.isfinite(number) and self.low <= number <= self.high and not (
        self.below and number == self.high)

  def short(self) -> str:
    if self.high == math.inf:
      return "" if self.low == -math.inf else f">= {self.low:g}"
    return f"{self.low:g} to {'<' * self.below}{self.high:g}"

  def __str__(self) -> str:
    if self.high == math.inf:
      return f"finite numbers from {self.low} on"
    return f"{self.low} to {'below ' * self.below}{self.high}"


Fraction = Annotated[float, Range(0, 1)]
Decay = Annotated[float, Range(0, 1, below=True)]
Percent = Annotated[float, Range(0, 100)]
Count = Annotated[int, Range(1)]
Signed = Annotated[float, Range(-math.inf)]


def check_ranges(options: Any, prefix: str = "") -> None:
  """
  Raises:
    UserError: a number of a tree of options is out of its range.
  """
  hints = typing.get_type_hints(type(options), include_extras=True)
  for field in dataclasses.fields(options):
    key, value = prefix + field.name, getattr(options, field.name)
    if dataclasses.is_dataclass(value):
      check_ranges(value, key + ".")
    elif isinstance(value, (int, float)):
      allowed = _range_of(type(options), field.name, hints[field.name])
      if allowed and value not in allowed:
        raise UserError(f"{key}={value}; allowed: {allowed}.")


def _range_of(options: type, name: str, hint: Any) -> Range | None:
  ranges = [extra for part in (hint, *typing.get_args(hint))
            for extra in getattr(part, "__metadata__", ())]
  if ranges:
    return ranges[0]
  owner = next(c for c in options.__mro__ if name in inspect.get_annotations(c))
  return Range() if owner.__module__.startswith("bert_jax.") else None
