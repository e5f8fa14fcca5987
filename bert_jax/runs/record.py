"""What a run is and how far it is: run.json in its work directory."""

import dataclasses
import json
import pathlib
from typing import Any

from bert_jax import files


@dataclasses.dataclass(frozen=True)
class Record:
  """Of a run, readable in one screen; no environment variables, no secrets.

  Attributes:
    state: "running", "finished", "stopped" or "failed".
    message: why it stopped or failed.
    started, ended: UTC, as 2026-01-31T12:00:00; "" while it runs.
    command: as it was typed.
    page: the text of the config page; "": there was none.
    overrides: what differs from the page.
    options: what differs from the defaults.
    commit: of the program's checkout, "" outside of one; `dirty` if its files
      were changed since.
    versions: of Python, jax and the other libraries.
    devices: as "8 x TPU v5 lite"; `hosts` of them.
    data: the fingerprint of what it reads.
    parameters: their number.
    steps: of the complete run; `step` of them are done.
    tokens: real ones, of all steps until now.
    flops: of all steps until now, as counted from the step.
    seconds: until now, of all processes.
  """

  state: str = "running"
  message: str = ""
  started: str = ""
  ended: str = ""
  command: str = ""
  page: str = ""
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


def path_of(workdir: pathlib.Path) -> pathlib.Path:
  return workdir / "run.json"


def write(workdir: pathlib.Path, record: Record) -> None:
  files.write_text(path_of(workdir), json.dumps(
      dataclasses.asdict(record), indent=1) + "\n")


def read(workdir: pathlib.Path) -> Record | None:
  """None where no run was begun."""
  path = path_of(workdir)
  if not path.exists():
    return None
  values: dict[str, Any] = json.loads(path.read_text())
  return Record(**values)
