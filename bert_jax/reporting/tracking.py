"""A tracker at work: it gets each line once, and ends no run by its failure."""

import contextlib
import hashlib
import json
import pathlib
import re
import uuid
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from bert_jax import config, files
from bert_jax.config import UserError
from bert_jax.reporting.trackers import TrackedRun, Tracker, Write


class Tracking:
  """An open tracker; as a context it is closed.

  Args:
    workdir: of the run.
    start: the step that the run resumes from.
    options: of the experiment.
    lines: that metrics.jsonl had before this start, those of later steps, too.
    note: prints a line on the terminal.

  Raises:
    UserError: the tracker cannot be opened, and nothing is trained yet.
  """

  def __init__(self, tracker: Tracker, workdir: pathlib.Path, start: int,
               options: Mapping[str, str],
               lines: Sequence[Mapping[str, float]],
               note: Callable[[str], None]):
    self._name, self._note = f"tracker={tracker.choice_name}", note
    self._ledger = None if tracker.rewrites else _Ledger(
        workdir / "tracked.json", _place(tracker))
    had = [line for line in lines if self._ledger and self._ledger.has(line)]
    # A step may have several lines: of training and of an evaluation.
    self._had = {(line["step"], name) for line in had if line["step"] >= start
                 for name in line}
    until = [line for line in lines if line["step"] <= start]
    self._write: Write | None = None
    self._context = contextlib.ExitStack()
    try:
      self._write = self._context.enter_context(tracker.open(TrackedRun(
          workdir, _name(workdir), self._ledger.id if self._ledger else "",
          {key: text for key, text in options.items()
           if key.partition(".")[0] != "tracker"}, until, note)))
    except UserError:
      raise
    except Exception as error:
      if not start:
        raise UserError(
            f"{self._name} cannot be opened: {_text(error)}. tracker=jsonl "
            "trains without it.") from error
      last = max((int(line["step"]) for line in lines), default=start)
      lacks = self._ledger.missing_from if self._ledger else None
      self._fail(last + 1 if lacks is None else lacks, error)
    if self._ledger:
      self._catch_up(self._ledger, until)

  def __enter__(self) -> "Tracking":
    return self

  def _catch_up(self, ledger: "_Ledger",
                lines: Sequence[Mapping[str, float]]) -> None:
    for line in lines:
      if not ledger.has(line):
        self.write(line["step"], {
            name: value for name, value in line.items() if name != "step"})
    if self._write:
      ledger.set(None)

  def write(self, step: int, scalars: Mapping[str, float]) -> None:
    new = {name: value for name, value in scalars.items()
           if (step, name) not in self._had}
    if not (self._write and new):
      return
    try:
      self._write(step, new)
    except UserError:
      raise
    except Exception as error:
      self._fail(step, error)

  def _fail(self, step: int, error: Exception) -> None:
    """Nothing is tracked from a step on."""
    self._write = None
    with contextlib.suppress(Exception):
      self._close(error)
    if self._ledger:
      with contextlib.suppress(UserError):  # The disk may be why it failed.
        self._ledger.set(step)
    self._note(f"{self._name} failed: {_text(error)}. The run continues "
               "without it; metrics.jsonl has all numbers, and the next start "
               "of the run tracks what is missing.")

  def __exit__(self, kind: Any, error: BaseException | None,
               traceback: Any) -> None:
    if not self._write:
      return
    self._write = None
    try:
      self._close(error)
    except UserError:
      raise
    except Exception as failure:
      self._note(f"{self._name} could not be closed: {_text(failure)}.")

  def _close(self, error: BaseException | None) -> None:
    self._context.__exit__(type(error) if error else None, error,
                           error.__traceback__ if error else None)


class _Ledger:
  """What a tracker has had of a run, in a file.

  The file has the run's `id` and, by tracker, the step whose lines and all
  later ones it lacks (`missing_from`): none lacks null, and one that is not
  listed lacks all.

  Attributes:
    id: of the run.
  """

  def __init__(self, path: pathlib.Path, tracker: str):
    self._path, self._tracker = path, tracker
    try:
      kept = json.loads(path.read_text())
      self.id, self._missing_from = kept["id"], kept["missing_from"]
    except FileNotFoundError:
      self.id, self._missing_from = uuid.uuid4().hex[:16], {}
      self._save()
    except (ValueError, LookupError, TypeError) as error:
      raise UserError(f"{path} is damaged; without it, the run is tracked as a "
                      "new one.") from error

  @property
  def missing_from(self) -> int | None:
    """The tracker's."""
    return self._missing_from.get(self._tracker, 0)

  def has(self, line: Mapping[str, float]) -> bool:
    """Whether the tracker has had a line of an earlier start."""
    return self.missing_from is None or line["step"] < self.missing_from

  def set(self, missing_from: int | None) -> None:
    if (self._tracker, missing_from) not in self._missing_from.items():
      self._missing_from[self._tracker] = missing_from
      self._save()

  def _save(self) -> None:
    files.write_text(self._path, json.dumps(
        {"id": self.id, "missing_from": self._missing_from}, indent=1) + "\n")


def _place(tracker: Tracker) -> str:
  """What the ledger calls a tracker: with options that lead elsewhere, as
  another project, it is another one. They may hold a password."""
  options = [change for change in config.changes(type(tracker)(), tracker)
             if not change.startswith("name=")]
  digest = hashlib.blake2b("\n".join(options).encode(), digest_size=4)
  return tracker.choice_name + (f"-{digest.hexdigest()}" if options else "")


def _name(workdir: pathlib.Path) -> str:
  folder = workdir.absolute()
  if re.match(r"seed\d", folder.name):
    return f"{folder.parent.name}/{folder.name}"
  return folder.name


def _text(error: BaseException) -> str:
  """An error of a library on one line."""
  line = next(iter(str(error).strip().splitlines()), "").rstrip(".")
  return f"{type(error).__name__}: {line}" if line else type(error).__name__
