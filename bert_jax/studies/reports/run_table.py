"""The runs below a folder: what they are, how far, and what they scored."""

import collections
import csv
import dataclasses
import datetime
import io
import json
import math
import pathlib
import re
from collections.abc import Mapping, Sequence
from typing import Any

from bert_jax.checkpoints.owner import Owner
from bert_jax.config import UserError
from bert_jax.reporting.jsonl import read_jsonl
from bert_jax.runs import record
from bert_jax.runs.record import Record
from bert_jax.studies.protocols import scores

_AGO = {"d": "days", "h": "hours", "min": "minutes"}


@dataclasses.dataclass(frozen=True)
class ListedRun:
  """
  Attributes:
    name: its folder, from the one that was searched.
    state: that of its record, or "interrupted": no process is at work there.
    scores: by protocol, and the last held-out loss of its own objective.
    differs: the options in which it is not as most of the listed runs.
  """

  name: str
  record: Record
  state: str
  scores: Mapping[str, float]
  differs: Sequence[str] = ()


def since_time(text: str) -> str:
  """The time, as records have it, of "7d", "12h", "30min" or a date.

  Raises:
    UserError: it is none of these.
  """
  if match := re.fullmatch(r"(\d+(?:\.\d+)?)(d|h|min)", text):
    ago = datetime.timedelta(**{_AGO[match[2]]: float(match[1])})
    return (datetime.datetime.now(datetime.timezone.utc) - ago).strftime(
        record.TIME)
  try:
    return datetime.datetime.fromisoformat(text).strftime(record.TIME)
  except ValueError:
    raise UserError(f"--since {text}: expected a time as 7d, 12h or 30min ago, "
                    "or a date as 2026-01-31.") from None


def read(folder: pathlib.Path, since: str = "") -> tuple[
    list[ListedRun], list[str]]:
  """The runs that were at work since a time, the oldest first.

  Returns:
    The runs, and a sentence for each record that cannot be read.

  Raises:
    UserError: there is no such folder.
  """
  if not folder.is_dir():
    raise UserError(f"{folder} is no folder.")
  runs, faults = [], []
  for path in sorted(folder.rglob("run.json")):
    try:
      saved = record.read(path.parent)
    except UserError as error:
      faults.append(str(error))
      continue
    if (saved.ended or saved.started) >= since or saved.state == "running":
      runs.append(_listed(folder, path.parent, saved))
  runs.sort(key=lambda run: (run.record.started, run.name))
  return _with_differences(runs), faults


def _listed(folder: pathlib.Path, workdir: pathlib.Path,
            saved: Record) -> ListedRun:
  state = saved.state
  if state == "running" and not Owner(workdir).is_alive():
    state = "interrupted"
  values = {title: score.value for title, score in scores.read(workdir).items()
            if not score.unscorable}
  curves = workdir / "metrics.jsonl"
  losses = [line["held_out/loss"] for line in (
      read_jsonl(curves) if curves.exists() else []) if "held_out/loss" in line]
  return ListedRun(str(workdir.relative_to(folder)), saved, state,
                   values | ({"its own loss": losses[-1]} if losses else {}))


def _with_differences(runs: Sequence[ListedRun]) -> list[ListedRun]:
  options = [dict(word.partition("=")[::2] for word in run.record.options)
             for run in runs]
  keys = dict.fromkeys(key for those in options for key in those)
  usual = {key: collections.Counter(
      those.get(key) for those in options).most_common(1)[0][0]
           for key in keys if key != "seed"}
  return [dataclasses.replace(run, differs=[
      f"{key}={those[key]}" if key in those else f"{key} as by default"
      for key, value in usual.items() if those.get(key) != value])
          for run, those in zip(runs, options)]


def as_rows(runs: Sequence[ListedRun]) -> list[dict[str, Any]]:
  """All that is known of each, flat; nan is None."""
  titles = dict.fromkeys(title for run in runs for title in run.scores)
  return [{
      "run": run.name, "state": run.state, **{
          name: getattr(run.record, name) for name in (
              "message", "started", "ended", "seed", "steps", "step", "tokens",
              "flops", "seconds", "parameters", "devices", "hosts", "commit",
              "dirty", "command")},
      **{title: _finite(run.scores.get(title)) for title in titles},
      "differs": " ".join(run.differs)} for run in runs]


def _finite(value: float | None) -> float | None:
  return value if value is not None and math.isfinite(value) else None


def as_json(runs: Sequence[ListedRun]) -> str:
  return json.dumps(as_rows(runs), indent=1) + "\n"


def as_csv(runs: Sequence[ListedRun]) -> str:
  rows, out = as_rows(runs), io.StringIO()
  writer = csv.DictWriter(out, list(rows[0]) if rows else ["run"],
                          lineterminator="\n")
  writer.writeheader()
  writer.writerows(rows)
  return out.getvalue()
