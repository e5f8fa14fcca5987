"""What a run is and how far it is: run.json in its work directory."""

import contextlib
import dataclasses
import datetime
import functools
import importlib.metadata
import json
import pathlib
import re
import shlex
import subprocess
import sys
import threading
from collections.abc import Callable
from typing import Any

import jax

from bert_jax import config, distributed, files
from bert_jax.checkpoints import environment
from bert_jax.checkpoints.manifest import OtherOptions
from bert_jax.config import Page, UserError
from bert_jax.experiment import Experiment, Run, step_flops
from bert_jax.runs.loop import Stopped
from bert_jax.training.param_paths import leaves

_PACKAGE = pathlib.Path(__file__).parents[1]
TIME = "%Y-%m-%dT%H:%M:%S"  # UTC
_GIT_SECONDS = 5.0  # at most; a slow disk is no reason to wait
# Between :// and @ of an address.
_PASSWORD = re.compile(r"(\w://)[^/\s@\"'\\]+@")
_LIBRARIES = ("bert_jax", "numpy", "scipy", "orbax-checkpoint")


@dataclasses.dataclass(frozen=True)
class Record:
  """Of a run, readable in one screen; no environment variables, no secrets.

  Attributes:
    state: "running", "finished", "stopped" or "failed".
    message: why it stopped or failed.
    started, ended: UTC, as 2026-01-31T12:00:00; "" while it runs.
    command: as it was typed.
    overrides: what differs from the page.
    options: what differs from the defaults, but for the tracker.
    commit: of the program's checkout, "" outside of one; `dirty` if its files
      were changed since.
    versions: of the program, Python, jax and the other libraries.
    devices: as "8 x TPU v5 lite"; `hosts` of them.
    data: the fingerprint of what it reads.
    parameters: their number.
    steps: of the complete run; `step` of them are done.
    tokens: real ones, of all steps until now.
    flops: of all steps until now, as counted from the step; 0: they cannot be
      counted.
    seconds: until now, of all processes.
    page: the text of the config page; "": there was none.
  """

  state: str = "running"
  message: str = ""
  started: str = ""
  ended: str = ""
  command: str = ""
  overrides: list[str] = dataclasses.field(default_factory=list)
  options: list[str] = dataclasses.field(default_factory=list)
  seed: int = 0
  commit: str = ""
  dirty: bool = False
  versions: dict[str, str] = dataclasses.field(default_factory=dict)
  devices: str = ""
  hosts: int = 1
  data: str = ""
  parameters: int = 0
  steps: int = 0
  step: int = 0
  tokens: float = 0.0
  flops: float = 0.0
  seconds: float = 0.0
  page: str = ""


def write(workdir: pathlib.Path, record: Record) -> None:
  """Passwords in addresses are left out."""
  text = json.dumps(dataclasses.asdict(record), indent=1) + "\n"
  files.write_text(workdir / "run.json", _PASSWORD.sub(r"\1...@", text))


def read(workdir: pathlib.Path) -> Record | None:
  """None where no run was begun.

  Raises:
    UserError: run.json is damaged, or of another version of this program.
  """
  path = workdir / "run.json"
  try:
    values: dict[str, Any] = json.loads(path.read_text())
    return Record(**values)
  except FileNotFoundError:
    return None
  except (ValueError, TypeError) as error:
    raise UserError(f"{path} cannot be read: {error}.") from None


def read_begun(workdir: pathlib.Path) -> Record:
  """
  Raises:
    UserError: no run was begun there, or as `read`.
  """
  about = read(workdir)
  if about is None:
    raise UserError(f"{workdir} is no run: " + (
        f"it has no run.json. `bert-jax runs {workdir}` lists those below it."
        if workdir.is_dir() else "there is no such folder."))
  return about


def now() -> str:
  return datetime.datetime.now(datetime.timezone.utc).strftime(TIME)


class Recorder:
  """Keeps run.json up to date, on process 0.

  As a context it writes how the run ended, once it has begun. What ends before
  it resumes a run leaves the record of that as it was.
  """

  def __init__(self, workdir: pathlib.Path):
    self._workdir, self._record = workdir, None
    self._flops: Callable[[], int] = lambda: 0  # of a step
    self._counting: threading.Thread | None = None
    self._failure, self._before, self._resumed = "", None, False

  def begin(self, experiment: Experiment, page: Page | None) -> None:
    """The work directory is this process's from now on."""
    self._before = before = read_tolerantly(self._workdir)
    commit, dirty = _commit()
    self._write(Record(
        started=before.started if before else now(), command=_command(),
        page=page.source if page else "",
        overrides=_overrides(page, experiment),
        options=config.changes(Experiment(), experiment.untracked()),
        seed=experiment.seed, commit=commit, dirty=dirty,
        versions=_versions(), devices=distributed.devices(),
        hosts=jax.process_count()))

  def composed(self, run: Run) -> None:
    """What is known once data and network are."""
    # Counting takes seconds, and would be part of the start.
    self._flops = functools.cache(lambda: _step_flops(run.experiment))
    self._update(
        data=run.prepared.fingerprint, steps=run.experiment.steps,
        parameters=sum(x.size for x in leaves(run.shape().params).values()))

  def dispatched(self) -> None:
    """A step is on its way; beside the first one FLOPs are counted."""
    if self._counting is None:
      self._counting = threading.Thread(target=self._flops)
      self._counting.start()

  def reached(self, step: int, tokens: float, seconds: float) -> None:
    """A step was saved, or is the last.

    Args:
      tokens, seconds: of all steps until then.
    """
    self._resumed = True
    if self._counting:
      self._counting.join()
    self._update(step=step, tokens=tokens, seconds=round(seconds, 3),
                 flops=float(step and step * self._flops()))

  def failed(self, error: Exception) -> None:
    """The run is over, while its process continues."""
    self._failure = str(error) or type(error).__name__

  def __enter__(self) -> "Recorder":
    return self

  def __exit__(self, kind: type | None, error: BaseException | None,
               _: Any) -> None:
    if self._record is None:
      return
    if error and self._before and self._before.step and not self._resumed:
      self._write(self._before)
      if isinstance(error, OtherOptions) and self._before.command:
        raise UserError(f"{error}\nThe command that resumes it as it is:\n  "
                        f"{self._before.command}") from None
      return
    message = self._failure if error is None else str(error) or kind.__name__
    state = ("stopped" if isinstance(error, (Stopped, KeyboardInterrupt))
             else "failed" if message else "finished")
    try:
      self._update(state=state, message=message, ended=now())
    except UserError:
      if error is None:  # Else the disk may be why the run failed.
        raise

  def _update(self, **values: Any) -> None:
    self._write(dataclasses.replace(self._record, **values))

  def _write(self, record: Record) -> None:
    self._record = record
    if distributed.first():
      write(self._workdir, record)


def _step_flops(experiment: Experiment) -> int:
  """0 where a page's own network cannot be counted."""
  try:
    return step_flops(experiment)
  except UserError:
    return 0


def read_tolerantly(workdir: pathlib.Path) -> Record | None:
  """None, too, where it cannot be read."""
  try:
    return read(workdir)
  except UserError:
    return None


def _versions() -> dict[str, str]:
  versions = environment.code_versions()
  for name in _LIBRARIES:
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):
      versions |= {name: importlib.metadata.version(name)}
  return versions


def _overrides(page: Page | None, experiment: Experiment) -> list[str]:
  """What differs from the page; of a page that only defines choices, nothing.
  """
  if page is None or not isinstance(page.experiment, Experiment):
    return []
  return config.changes(page.experiment, experiment)


def _command() -> str:
  """As it was typed; "" where the program is another one."""
  program = pathlib.Path(sys.argv[0])
  if program.name != "bert-jax" and program != _PACKAGE / "__main__.py":
    return ""
  return shlex.join(["bert-jax", *sys.argv[1:]])


@functools.cache
def _commit() -> tuple[str, bool]:
  """Of the package's checkout, and whether files of it were changed since."""
  def git(*words: str) -> str:
    return subprocess.run(
        ["git", "-C", str(_PACKAGE), *words], capture_output=True, text=True,
        check=True, timeout=_GIT_SECONDS).stdout.strip()

  try:
    # It may lie in the checkout of something else.
    git("ls-files", "--error-unmatch", "__main__.py")
    return git("rev-parse", "HEAD"), bool(git("status", "--porcelain", "."))
  except (OSError, subprocess.SubprocessError):
    return "", False
