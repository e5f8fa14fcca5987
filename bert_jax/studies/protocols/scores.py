"""Scores of a run by a protocol, item by item, as files in its folder."""

import dataclasses
import json
import math
import pathlib
from collections.abc import Mapping

import numpy as np

from bert_jax import files


@dataclasses.dataclass(frozen=True, eq=False)
class Score:
  """What a protocol says of a run.

  Dimensions: R replicates (fine-tunings with seeds of their own; one where
  nothing is trained), I items (documents, examples).

  Attributes:
    protocol: with version and options, as "mlm@1 length=64".
    data: the fingerprint of what was scored. Scores are compared only where
      protocol and data are equal.
    measure: what `value` is, as "nats a token" or "accuracy".
    lower_is_better: of `value`.
    values_R: one value for each replicate.
    totals_RI, weights_RI: float64, of measures that are the ratio of sums over
      items: value r is `totals_RI[r].sum() / weights_RI[r].sum()`. Without
      columns for others.
    further: more numbers of the same run, as {"bits_per_byte": 1.2}.
    unscorable: why the protocol cannot score the run; "": it can.
    checkpoint: what was scored, as `Checkpoint.name`; "": parameters
      that were not read from a checkpoint.
  """

  protocol: str
  data: str = ""
  measure: str = ""
  lower_is_better: bool = True
  values_R: np.ndarray = dataclasses.field(
      default_factory=lambda: np.zeros(0))
  totals_RI: np.ndarray = dataclasses.field(
      default_factory=lambda: np.zeros((0, 0)))
  weights_RI: np.ndarray = dataclasses.field(
      default_factory=lambda: np.zeros((0, 0)))
  further: Mapping[str, float] = dataclasses.field(default_factory=dict)
  unscorable: str = ""
  checkpoint: str = ""

  @property
  def value(self) -> float:
    """The mean over the replicates; nan if it cannot be scored."""
    return float(self.values_R.mean()) if len(self.values_R) else math.nan


def write(workdir: pathlib.Path, score: Score) -> None:
  """Keeps a score in the folder of its run."""
  path = _path(workdir, score.protocol)
  path.parent.mkdir(parents=True, exist_ok=True)
  files.write_text(path, json.dumps({
      field.name: _plain(getattr(score, field.name))
      for field in dataclasses.fields(score)}) + "\n")


def read(workdir: pathlib.Path) -> dict[str, Score]:
  """Those of a run, by protocol."""
  scores = [_read(path) for path in sorted(
      (workdir / "scores").glob("*.json"))]
  return {score.protocol: score for score in scores}


def _read(path: pathlib.Path) -> Score:
  values = json.loads(path.read_text())
  return Score(**{name: np.array(value, np.float64)
                  if name.endswith(("_R", "_RI")) else value
                  for name, value in values.items()})


def _path(workdir: pathlib.Path, protocol: str) -> pathlib.Path:
  return workdir / "scores" / f"{protocol.replace(' ', '_')}.json"


def _plain(value: object) -> object:
  return value.tolist() if isinstance(value, np.ndarray) else value
