"""What a study is: study.json in its folder."""

import dataclasses
import json
import pathlib
from collections.abc import Mapping
from typing import Any

from bert_jax import files
from bert_jax.config import UserError

BASE = "base"  # the name of the arm that the others are compared with


@dataclasses.dataclass(frozen=True)
class ArmDefinition:
  """A variant.

  Attributes:
    words: as they were typed, as "model.norm_placement=pre"; "" of the base.
    changes: of its experiment, from the base's, budget and tuning included.
    unshared: what it does not share with the base, as "other masks".
    steps: of each of its runs.
    chosen: the options that its tuning chose; none: it was not tuned.
  """

  name: str
  words: str = ""
  changes: list[str] = dataclasses.field(default_factory=list)
  unshared: list[str] = dataclasses.field(default_factory=list)
  steps: int = 0
  chosen: list[str] = dataclasses.field(default_factory=list)


@dataclasses.dataclass(frozen=True)
class Definition:
  """Of a study, whose runs lie at `folder / arm / seedN`.

  Attributes:
    command: that runs it.
    base: the page, as it was named.
    cumulative: whether an arm has the options of all arms before it, too.
    overrides: that all arms share.
    seeds: of each arm.
    equal: the unit in which the arms have the same budget.
    protocols: titles of those that score the arms, the first one decides.
    tuned: the options and values that were tried for each arm, as
      "schedule.learning_rate=1e-4,3e-4".
    arms: the base first.
  """

  command: str
  base: str
  cumulative: bool
  overrides: list[str]
  seeds: list[int]
  equal: str
  protocols: list[str]
  tuned: list[str]
  arms: list[ArmDefinition]


def run_folder(folder: pathlib.Path, arm: str, seed: int) -> pathlib.Path:
  """The work directory of a run."""
  return folder / arm / f"seed{seed}"


def write(folder: pathlib.Path, definition: Definition) -> None:
  files.write_text(folder / "study.json", json.dumps(
      dataclasses.asdict(definition), indent=1) + "\n")


def read(folder: pathlib.Path) -> Definition | None:
  """None where no study was begun.

  Raises:
    UserError: it is of another version of the program.
  """
  path = folder / "study.json"
  if not path.exists():
    return None
  values: Mapping[str, Any] = json.loads(path.read_text())
  try:
    return Definition(**{**values, "arms": [
        ArmDefinition(**arm) for arm in values["arms"]]})
  except TypeError as error:
    raise UserError(
        f"{path} was written by another version of bert_jax ({error}); give "
        "another workdir. `compare` takes the folders of its runs.") from None
