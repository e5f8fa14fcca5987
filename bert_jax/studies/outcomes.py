"""What became of the members of a sweep."""

import dataclasses
import json
import math
import pathlib
import shutil
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from bert_jax.checkpoints.manager import CheckpointManager
from bert_jax.checkpoints.manifest import Manifest
from bert_jax.config import UserError
from bert_jax.experiment import Experiment, Run
from bert_jax.files import write_text
from bert_jax.reporting import markdown
from bert_jax.reporting.statistics import SeedStatistics
from bert_jax.runs.early_stopping import EarlyStopping
from bert_jax.training.step import TrainState

Scores = Mapping[str, float]


@dataclasses.dataclass(frozen=True)
class Member:
  """What sets a run apart from the others of its sweep."""

  seed: int
  learning_rate: float

  def __str__(self) -> str:
    return f"seed{self.seed}_rate{self.learning_rate:g}"

  def of(self, experiment: Experiment) -> Experiment:
    """The run by itself."""
    schedule = dataclasses.replace(experiment.schedule,
                                   learning_rate=self.learning_rate)
    return dataclasses.replace(experiment, seed=self.seed, schedule=schedule)


@dataclasses.dataclass(frozen=True, eq=False)
class MemberResult:
  """What became of a member, at the evaluation that counts.

  That is the last one or, where the experiment names what is `best`, the best
  until its `patience` was over.

  Attributes:
    step: the updates until then.
    scores: held out.
    seconds: that all members of its group took until then.
    params: the parameters, on the host, an adapter merged; None once they are
      written or given up.
  """

  member: Member
  step: int
  scores: Scores
  seconds: float
  params: Any = None


class MemberTracker:
  """Keeps the outcome of a member, as its evaluations come in."""

  def __init__(self, member: Member, experiment: Experiment):
    self._member, self._picks = member, bool(experiment.best)
    self._patience = EarlyStopping(experiment.best, experiment.patience)
    self.outcome: MemberResult | None = None

  def see(self, step: int, scores: Scores, params: Callable[[], Any],
          seconds: float, last: bool) -> None:
    """`params` are called for where they are wanted."""
    if self.over():
      return
    if self._patience.see(step, scores) or last and not self._picks:
      self.outcome = MemberResult(self._member, step, scores, seconds, params())

  def over(self) -> bool:
    """Whether nothing that comes changes the outcome."""
    return self._patience.over()


def save(outcome: MemberResult, run: Run, workdir: pathlib.Path,
         page: str = "") -> None:
  """Makes a member's work directory, to predict with or to start from.

  Args:
    run: `Sweep.of` the member.
    workdir: of checkpoints that are there nothing is left.
    page: the source of the config page; it may define choices.
  """
  shutil.rmtree(workdir / "checkpoints", ignore_errors=True)
  state = TrainState(np.int32(outcome.step), run.seed(),
                     jax.tree.map(jnp.asarray, outcome.params), ())
  facts = Manifest(run.experiment, page, run.prepared.tokenizer,
                run.prepared.fingerprint)
  with CheckpointManager(workdir) as checkpoints:
    checkpoints.save(state, facts, dict(outcome.scores), {
        "seconds": outcome.seconds,
        "devices": f"{jax.device_count()} x {jax.devices()[0].device_kind}, "
        "shared with other members of a sweep"})


def write(path: pathlib.Path, found: Sequence[MemberResult],
          how: Mapping[str, Any]) -> None:
  """Writes outcomes down, without parameters.

  Args:
    how: what they came by, which `read` asks for.
  """
  write_text(path, to_json(dict(how) | {"outcomes": [
      {"member": dataclasses.asdict(o.member), "step": o.step,
       "scores": dict(o.scores), "seconds": o.seconds} for o in found]}))


def read(path: pathlib.Path, how: Mapping[str, Any]) -> list[MemberResult]:
  """What `write` wrote.

  Raises:
    UserError: they came about in another way.
  """
  kept = json.loads(path.read_text())
  for name, value in how.items():
    if kept[name] != value:
      raise UserError(f"{path} is of other {name}; give another workdir.")
  number = lambda x: math.nan if x is None else x
  return [MemberResult(Member(**o["member"]), o["step"],
                  {name: number(x) for name, x in o["scores"].items()},
                  o["seconds"]) for o in kept["outcomes"]]


def table(outcomes: Sequence[MemberResult]) -> str:
  """Of every score, what the seeds of each rate say."""
  lines = []
  for rate in dict.fromkeys(o.member.learning_rate for o in outcomes):
    here = [o.scores for o in outcomes if o.member.learning_rate == rate]
    for name in here[0]:
      spread = SeedStatistics.of([scores[name] for scores in here])
      lines.append([f"{rate:g}", name, *(f"{x:.4g}" for x in (
          spread.median, spread.mean, spread.deviation, spread.low,
          spread.high)), str(spread.count)])
  return markdown.table(["rate", "held out", "median", "mean", "deviation",
                         "95% from", "to", "seeds"], lines)


def to_json(value: Any) -> str:
  """With null for what is no number, which JSON has no word for."""
  def clean(x: Any) -> Any:
    if isinstance(x, Mapping):
      return {key: clean(y) for key, y in x.items()}
    if isinstance(x, (list, tuple)):
      return [clean(y) for y in x]
    return None if isinstance(x, float) and not math.isfinite(x) else x

  return json.dumps(clean(value), indent=1) + "\n"
