"""Results of the members of a sweep."""

import dataclasses
import json
import math
import pathlib
import shutil
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from bert_jax.checkpoints import environment
from bert_jax.checkpoints.manager import CheckpointManager
from bert_jax.checkpoints.manifest import Manifest, Progress
from bert_jax.config import Page, UserError
from bert_jax.experiment import Experiment, Run
from bert_jax.files import write_text
from bert_jax.reporting import markdown
from bert_jax.reporting.statistics import SeedStatistics
from bert_jax.runs.record import Recorder
from bert_jax.studies import budgets
from bert_jax.training.step import TrainState

Scores = Mapping[str, float]


@dataclasses.dataclass(frozen=True)
class Member:
  """What sets a run apart from the others of its sweep."""

  seed: int
  learning_rate: float

  def __str__(self) -> str:
    # All digits: members of other rates have other names.
    return f"seed{self.seed}_rate{self.learning_rate!r}"

  @property
  def numbers(self) -> dict[str, float]:
    """The options in which it may differ, beside the seed."""
    return {"schedule.learning_rate": self.learning_rate}

  def configure(self, experiment: Experiment) -> Experiment:
    """The run by itself."""
    schedule = dataclasses.replace(experiment.schedule,
                                   learning_rate=self.learning_rate)
    return dataclasses.replace(experiment, seed=self.seed, schedule=schedule)


@dataclasses.dataclass(frozen=True, eq=False)
class MemberResult:
  """A member at the evaluation that counts.

  That is the last one or, where the experiment names what is `best`, the best
  until its `patience` ended it.

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


def save(result: MemberResult, run: Run, workdir: pathlib.Path,
         page: Page | None = None) -> None:
  """Makes a member's work directory, to predict with or to start from.

  Args:
    run: the member by itself.
    workdir: of checkpoints that are there nothing is left.
    page: the config page; it may define choices.
  """
  shutil.rmtree(workdir / "checkpoints", ignore_errors=True)
  workdir.mkdir(parents=True, exist_ok=True)
  state = TrainState(np.int32(result.step), run.seed(),
                     jax.tree.map(jnp.asarray, result.params), ())
  tokens = budgets.tokens(run.with_steps(result.step))
  with Recorder(workdir) as recorder:
    recorder.begin(run.experiment, page)
    recorder.composed(run)
    with CheckpointManager(workdir) as checkpoints:
      checkpoints.save(state, Manifest.of_run(run, page), result.scores,
                       Progress(result.seconds, tokens,
                                devices=shared_devices()))
    recorder.reached(result.step, tokens, result.seconds)


def shared_devices() -> str:
  """What a member runs on."""
  return (f"{jax.device_count()} x {jax.devices()[0].device_kind}, shared with "
          "other members of a program")


def write(path: pathlib.Path, results: Sequence[MemberResult],
          provenance: Mapping[str, Any]) -> None:
  """Writes results, without parameters.

  Args:
    provenance: what they come from; `read` checks it.
  """
  write_text(path, to_json(dict(provenance) | {
      "environment": environment.rounding(),
      "results": [
          {"member": dataclasses.asdict(r.member), "step": r.step,
           "scores": dict(r.scores), "seconds": r.seconds} for r in results]}))


def read(path: pathlib.Path,
         provenance: Mapping[str, Any]) -> list[MemberResult]:
  """What `write` wrote.

  Raises:
    UserError: they come from something else.
  """
  saved = json.loads(path.read_text())
  for name, value in provenance.items():
    if saved[name] != value:
      raise UserError(f"{path} is of other {name}; give another workdir.")
  environment.warn(saved["environment"])
  number = lambda x: math.nan if x is None else x
  return [MemberResult(Member(**r["member"]), r["step"],
                       {name: number(x) for name, x in r["scores"].items()},
                       r["seconds"]) for r in saved["results"]]


def table(results: Sequence[MemberResult]) -> str:
  """The statistics of every score over the seeds of each rate."""
  lines = []
  for rate in dict.fromkeys(r.member.learning_rate for r in results):
    here = [r.scores for r in results if r.member.learning_rate == rate]
    for name in _distinct(here):
      spread = SeedStatistics.of([scores[name] for scores in here])
      lines.append([repr(rate), name, *(f"{x:.3g}" for x in (
          spread.median, spread.mean, spread.deviation, spread.low,
          spread.high)), str(spread.count)])
  return markdown.table(["rate", "held out", "median", "mean", "deviation",
                         "95% from", "to", "seeds"], lines)


def _distinct(all_scores: Sequence[Scores]) -> list[str]:
  """Names of scores without those of the only part of a loss, which is it."""
  return [name for name in all_scores[0]
          if name == "loss" or not name.endswith("_loss")
          or any(scores[name] != scores["loss"] for scores in all_scores)]


def to_json(value: Any) -> str:
  """With null for what is not finite, which JSON cannot say."""
  def clean(x: Any) -> Any:
    if isinstance(x, Mapping):
      return {key: clean(y) for key, y in x.items()}
    if isinstance(x, (list, tuple)):
      return [clean(y) for y in x]
    return None if isinstance(x, float) and not math.isfinite(x) else x

  return json.dumps(clean(value), indent=1) + "\n"
