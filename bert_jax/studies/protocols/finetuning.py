"""Protocols that fine-tune: what a pretrained network is worth to a task."""

import dataclasses
import functools
import hashlib
import json
import math
import pathlib
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

import numpy as np

from bert_jax import config, files
from bert_jax.checkpoints.reading import read_checkpoint
from bert_jax.config import Count, Page, UserError, check_ranges
from bert_jax.data.batches.rows import Rows
from bert_jax.data.labeled.base import LabeledSet
from bert_jax.experiment import Experiment, Run
from bert_jax.parallel import rules
from bert_jax.parallel.mesh import make_mesh, place, row_devices
from bert_jax.reporting.writers import Silent
from bert_jax.runs.evaluation import Evaluator
from bert_jax.runs.observers import Observers
from bert_jax.studies.members import sweep
from bert_jax.studies.members.results import MemberResult, to_json
from bert_jax.studies.members.sweep import Sweep
from bert_jax.studies.protocols.base import Protocol
from bert_jax.studies.protocols.scores import Score

# A network's dropout is part of how it was pretrained; this is the protocol's.
_DROPOUT = "hidden_dropout_prob", "attention_probs_dropout_prob"

# Stands for networks of any length, where only the task counts.
_ANY_NETWORK = Experiment(model=dataclasses.replace(
    Experiment().model, max_position_embeddings=1_000_000))


class FinetuningProtocol(Protocol):
  """Fine-tunes with several seeds, and scores what the task keeps for it.

  Fine-tuning r has the same seed on every network: the same order of examples,
  new head and dropout draws. An item is an example of the evaluation. This
  base of several members is none itself, so it is no dataclass.

  Attributes:
    seeds: number of fine-tunings, each with another seed.
  """

  seeds: int

  split: ClassVar = "evaluation set"

  def __post_init__(self):
    check_ranges(self)

  def task(self, network: Experiment) -> Experiment:
    """Of a pretrained network, all but `init_from`."""
    raise NotImplementedError

  def label_kind(self) -> type[LabeledSet] | None:
    return self.task(_ANY_NETWORK).objective.label_kind

  def measure(self, labeled: LabeledSet) -> str | None:
    """The score that counts; None: the first of those that there are."""
    return labeled.deciding_score

  @functools.cached_property
  def sets(self) -> tuple[LabeledSet, LabeledSet]:
    """To train and to evaluate on."""
    task = self.task(_ANY_NETWORK)
    return task.data.sets(task.objective.label_kind, task.objective.labels)

  def check(self) -> None:
    task = self.task(_ANY_NETWORK)
    sweep.check(task, sweep.grid(task, self.seeds))
    self.sets

  def data(self, run: Run) -> str:
    return digest([labeled.fingerprint() for labeled in self.sets])

  def score(self, run: Run, params: Any, workdir: pathlib.Path) -> Score:
    """As the family's; `params` are read again, as any fine-tuning's are."""
    fitted = self.fit([run.experiment])
    data, network = fitted.data(run), run.experiment
    length = fitted.task(_ANY_NETWORK).data.length
    if length > network.model.max_position_embeddings:
      return Score(fitted.title, data, unscorable=(
          f"rows of {length} tokens do not fit into model."
          f"max_position_embeddings={network.model.max_position_embeddings}"))
    task = dataclasses.replace(fitted.task(network), init_from=str(workdir))
    members = Sweep(task, sweep.grid(task, fitted.seeds),
                    observers=Observers(terminal=lambda *_: Silent()))
    try:
      members.run.shape()
    except KeyError as error:
      return Score(fitted.title, data, unscorable=(
          f"model.inputs={network.model.inputs.choice_name} reads {error} of a "
          "batch, which the task does not have"))
    outcomes = _finetune(members, fitted, data, workdir)
    return fitted.measured(outcomes, members.run.prepared.evaluation_set, data)

  def measured(self, outcomes: Sequence[Mapping[str, Any]], labeled: LabeledSet,
               data: str) -> Score:
    """The score of fine-tunings, as `_outcome` gives them."""
    lost = [not math.isfinite(outcome["value"]) for outcome in outcomes]
    sums = [np.array([outcome[name] for outcome in outcomes], float)
            for name in ("totals", "weights")]
    for array in sums:
      array[lost] = math.nan
    return Score(
        self.title, data, outcomes[0]["measure"], lower_is_better=False,
        values_R=np.array([outcome["value"] for outcome in outcomes]),
        totals_RI=sums[0], weights_RI=sums[1], further={
            **({"diverged": sum(lost)} if any(lost) else {}),
            **_majority(labeled, outcomes[0]["measure"])})


def _majority(labeled: LabeledSet, measure: str) -> dict[str, float]:
  """What the most frequent answer gets, where that is of interest."""
  if measure != "accuracy":
    return {}
  return {"most_frequent_class": float(labeled.counts_C().max())
          / len(labeled)}


def _finetune(members: Sweep, protocol: FinetuningProtocol, data: str,
              workdir: pathlib.Path) -> list[dict[str, Any]]:
  """Trains what is not trained yet of this checkpoint on this data."""
  checkpoint = read_checkpoint(workdir).name
  folder = (workdir / "then" / protocol.title.replace(" ", "_")
            / digest([checkpoint, data])[:16])
  # All that the members come from, but not where it lies.
  members.provenance = {"protocol": protocol.title, "checkpoint": checkpoint,
                        "data": data, "members": list(map(str,
                                                          members.members))}
  paths = {member: folder / f"{member}.json" for member in members.members}
  run, labeled = members.run, members.run.prepared.evaluation_set
  if not all(path.exists() for path in paths.values()):
    print(f"{protocol.title}: {len(paths)} fine-tunings of "
          f"{run.experiment.steps} steps of {run.experiment.batch_size} rows; "
          f"their curves are in {folder}.", file=sys.stderr, flush=True)
  predict = predictor(run, labeled, run.prepared.evaluation)

  def keep(result: MemberResult) -> dict[str, float]:
    outcome = _outcome(protocol, labeled, predict(result.params), result.scores)
    files.write_text(paths[result.member], to_json(outcome))
    return {}

  members.train(folder, None, score_further=keep)
  return [_read(path) for path in paths.values()]


def predictor(run: Run, labeled: LabeledSet,
              rows: Rows) -> Callable[[Any], Any]:
  """From a member's parameters to predictions of examples, compiled once."""
  mesh = make_mesh()
  evaluator = Evaluator(run.recipe, row_devices(mesh) * 8, mesh)
  return lambda params: evaluator.predict(
      place(params, rules.shardings(params, mesh)), rows, labeled)


def _outcome(protocol: FinetuningProtocol, labeled: LabeledSet, outputs: Any,
             scores: Mapping[str, float]) -> dict[str, Any]:
  """Of a fine-tuning; nan of one that diverged."""
  own = labeled.scores(outputs)
  measure = protocol.measure(labeled) or next(iter(own))
  totals_X, weights_X = labeled.score_sums(measure, outputs) or ([], [])
  # Numbers that are none have a most likely class, too.
  value = own[measure] if math.isfinite(scores["loss"]) else math.nan
  return {"measure": measure, "value": value, "totals": list(totals_X),
          "weights": list(weights_X), "scores": own}


def _read(path: pathlib.Path) -> dict[str, Any]:
  outcome = json.loads(path.read_text())
  value = outcome["value"]
  return {**outcome, "value": math.nan if value is None else value}


def digest(texts: Sequence[str]) -> str:
  """Of texts in their order."""
  return hashlib.blake2b("\n".join(texts).encode(), digest_size=16).hexdigest()


def with_dropout(network: Experiment, rate: float) -> Any:
  """The network's options with the protocol's dropout."""
  return dataclasses.replace(network.model, **dict.fromkeys(_DROPOUT, rate))


@dataclasses.dataclass(frozen=True)
class PageProtocol(FinetuningProtocol):
  """Fine-tunes as a page of your own says, as --then my_task.py.

  Its version is a digest of the page, so that another text is another
  protocol. All of `model`, dropout included, is the pretrained network's, and
  the page's own `seed` is that of the first fine-tuning.

  Attributes:
    page: the page's file.
  """

  seeds: Count = 3
  page: str = ""

  places: ClassVar = ("page",)

  @property
  def named(self) -> str:
    if not self.page:
      return f"page@{self.version}"
    text = json.dumps([self.version, self._page.to_json()])
    return f"{pathlib.Path(self.page).name}@{digest([text])[:8]}"

  @functools.cached_property
  def _page(self) -> Page:
    if not self.page:
      raise UserError("protocol=page: give the page itself, as my_task.py.")
    return config.load_page(self.page)

  def task(self, network: Experiment) -> Experiment:
    experiment = self._page.experiment
    if experiment.best:
      raise UserError(
          f"{self.page}: best={experiment.best} chooses a checkpoint on the "
          "examples that the score uses; set best= and patience=none.")
    if experiment.from_scratch:
      raise UserError(
          f"{self.page}: from_scratch=true would give every network the same "
          "score; set from_scratch=false.")
    return dataclasses.replace(experiment, model=network.model)
