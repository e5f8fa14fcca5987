"""Which numbers an option may have.

  rate: Fraction = 0.1

Without a range of its own, an option is finite and not negative.
"""

import dataclasses
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
    elif isinstance(value, (int, float)) and (
        value not in (allowed := _range_of(hints[field.name]))):
      raise UserError(f"{key}={value}; allowed: {allowed}.")


def _range_of(hint: Any) -> Range:
  ranges = [extra for part in (hint, *typing.get_args(hint))
            for extra in getattr(part, "__metadata__", ())]
  return ranges[0] if ranges else Range()
