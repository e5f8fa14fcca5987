"""Records that cannot be used: counted, and reported with file and line."""

import collections
import dataclasses
import logging
from collections.abc import Callable
from typing import Literal

from bert_jax.config import UserError

OnBadRecord = Literal["error", "skip"]
_SHOWN = 5
_LOG = logging.getLogger(__name__)


class Fault(Exception):
  """What is wrong with one record.

  Attributes:
    what: the kind of fault, to count by.
    detail: makes the words for this one; called for the first few only.
  """

  def __init__(self, what: str, detail: Callable[[], str]):
    super().__init__(what)
    self.what = what
    self.detail = detail


@dataclasses.dataclass
class Faults:
  """The faults of a source, by place ("train.tsv:7")."""

  source: str
  option: str = "data.columns.bad_records"  # by which a user chooses
  unusable: list[tuple[str, Fault]] = dataclasses.field(default_factory=list)

  def add(self, place: str, fault: Fault) -> None:
    self.unusable.append((place, fault))

  def settle(self, records: int, bad_records: OnBadRecord) -> None:
    """Reports the faults, if there are any, and stops where asked to.

    Args:
      records: how many there were with the bad ones.

    Raises:
      UserError: there are faults, and `bad_records` is "error".
    """
    if not self.unusable:
      return
    counts = collections.Counter(fault.what for _, fault in self.unusable)
    lines = [f"  {place}: {fault.detail()}"
             for place, fault in self.unusable[:_SHOWN]]
    message = "\n".join([
        f"{self.source}: {len(self.unusable)} of {records} records cannot be "
        f"used ({', '.join(f'{n} {what}' for what, n in counts.items())}):",
        *lines, *["  ..."] * (len(self.unusable) > _SHOWN)])
    if bad_records == "error":
      raise UserError(f"{message}\nFix them, or skip them with "
                      f"{self.option}=skip.")
    _LOG.warning("%s\nThey are skipped.", message)
