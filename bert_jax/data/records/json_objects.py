"""The objects of a JSON file: one a line, or all of them in a list."""

import json
import logging
from collections.abc import Sequence
from typing import Any

from bert_jax.config import UserError
from bert_jax.data.records.bad_records import Fault, Faults
from bert_jax.data.records.surrogates import well_formed

_LOG = logging.getLogger(__name__)


def parse_objects(text: str, faults: Faults,
                  in_list: bool = False) -> list[tuple[int, dict[str, Any]]]:
  """The objects, each with its line, or in a list with its number from 1.

  What is no object is added to `faults`. Half of a surrogate pair, which is no
  character, becomes U+FFFD, and is reported.

  Raises:
    UserError: a list that is not JSON.
  """
  objects, repaired = [], []
  for number, one in (_elements if in_list else _lines)(text, faults.source):
    try:
      value = _object(one)
    except Fault as fault:
      faults.add(f"{faults.source}:{number}", fault)
      continue
    value, halves = well_formed(value)
    if halves:
      repaired.append(number)
    objects.append((number, value))
  if repaired:
    _LOG.warning("%s: half of a surrogate pair is no character and is read as "
                 "U+FFFD; records: %d, the first at %d.", faults.source,
                 len(repaired), repaired[0])
  return objects


def report_blank(source: str, lines: Sequence[int], last: int) -> None:
  """Says how many blank lines come before that of the last record."""
  amid = [line for line in lines if line < last]
  if amid:
    _LOG.warning("%s: blank lines hold no record; passed over: %d, the first "
                 "is line %d.", source, len(amid), amid[0])


def _lines(text: str, source: str) -> list[tuple[int, str]]:
  lines = list(enumerate(text.split("\n"), 1))
  records = [(number, line) for number, line in lines if line.strip()]
  if records:
    report_blank(source, [n for n, line in lines if not line.strip()],
                 records[-1][0])
  return records


def _elements(text: str, source: str) -> list[tuple[int, str]]:
  try:
    return list(enumerate(map(json.dumps, _loaded(text)), 1))
  except Fault as fault:
    raise UserError(f"{source}: {fault.detail()}.") from None


def _object(text: str) -> dict[str, Any]:
  value = _loaded(text)
  if not isinstance(value, dict):
    kind = type(value).__name__
    raise Fault("that are no objects",
                lambda: f"expected a JSON object, not a {kind}")
  return value


def _loaded(text: str) -> Any:
  try:
    return json.loads(text, object_pairs_hook=_with_unique_keys)
  except (ValueError, RecursionError) as error:
    problem = str(error)
    raise Fault("that are no JSON", lambda: f"no JSON: {problem}") from None


def _with_unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
  value = dict(pairs)
  if len(value) < len(pairs):
    raise Fault("with a key twice", lambda: "a key is there twice: "
                + ", ".join(key for key, _ in pairs))
  return value
