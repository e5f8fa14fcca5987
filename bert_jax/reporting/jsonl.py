"""Numbers as JSON lines."""

import json
import math
import pathlib
from collections.abc import Mapping

from bert_jax.config import UserError
from bert_jax.files import write_text, writing


class JsonLines:
  """Appends an object a write, with its step, to a file.

  Args:
    path: the file; gets a line at once, so that a killed run keeps them.
    start: lines of later steps are dropped.
  """

  def __init__(self, path: pathlib.Path, start: int = 0):
    self._path = path
    earlier = ([line for line in read_jsonl(path) if line["step"] <= start]
            if path.exists() else [])
    write_text(path, "".join(map(_json, earlier)))
    with writing(path):
      self._file = path.open("a")

  def write(self, step: int, scalars: Mapping[str, float]) -> None:
    with writing(self._path):
      self._file.write(_json({"step": int(step), **scalars}))
      self._file.flush()

  def close(self) -> None:
    with writing(self._path):
      self._file.close()


def _json(line: Mapping[str, float]) -> str:
  """JSON has no nan and no infinity: they become null."""
  values = {name: value if name == "step" else float(value)
            for name, value in line.items()}
  return json.dumps({
      name: value if math.isfinite(value) else None
      for name, value in values.items()}) + "\n"


def read_jsonl(path: str | pathlib.Path) -> list[dict[str, float]]:
  """Lines of a JsonLines, without a half-written last one; null is nan.

  Raises:
    UserError: another line is not a JSON object with a step.
  """
  *lines, rest = pathlib.Path(path).read_text().split("\n")
  rows = []
  for i, text in enumerate(lines, 1):
    try:
      line = json.loads(text)
      rows.append({"step": line.pop("step"), **{
          name: math.nan if value is None else value
          for name, value in line.items()}})
    except (ValueError, LookupError, AttributeError, TypeError) as error:
      raise UserError(f"{path}, line {i} is not a JSON object with a step: "
                      f"{text[:80]!r}") from error
  return rows
