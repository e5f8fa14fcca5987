"""What a run is, as its checkpoints keep it, and whether two are the same."""

import ast
import dataclasses
import difflib
import functools
import textwrap
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from bert_jax import config
from bert_jax.config import Page, UserError
from bert_jax.data.tokenizers.base import LoadedTokenizer
from bert_jax.data.tokenizers.choices import deserialize
from bert_jax.experiment import Experiment, Run
from bert_jax.metrics import selection

# What may differ between the start of a run and its resumption. Microbatches
# and layouts change the order of sums, the others nothing of the steps.
RESUMABLE = ("layout", "microbatches", "log_every", "keep_checkpoints",
             "evaluate_every", "save_every", "save_minutes",
             "evaluation_batches", "max_nonfinite_steps", "spike_deviations",
             "patience")


_OTHER_LENGTH = """\
Warm-up and decay of the learning rate are laid over all steps, so that a run
cannot get longer or shorter. Two ways: the same options in another workdir,
from the beginning; or in another workdir with init_from=THIS ONE, which starts
from its parameters, with a warm-up and an optimizer of its own."""


class OtherOptions(UserError):
  """A work directory holds a run with other options."""


@dataclasses.dataclass(frozen=True)
class Progress:
  """What a run needs to resume, beside its state.

  Attributes:
    seconds: used until then.
    tokens: real ones of all steps until then.
    evaluated: the state was, if it was due.
    devices: that it ran on.
    environment: that it ran in.
    detector, stopping, window: states of AnomalyDetector and EarlyStopping,
      and the sums since the last line of the log.
  """

  seconds: float = 0.0
  tokens: float = 0.0
  evaluated: bool = True
  devices: str = ""
  environment: dict[str, str] = dataclasses.field(default_factory=dict)
  detector: dict[str, Any] = dataclasses.field(default_factory=dict)
  stopping: dict[str, Any] = dataclasses.field(default_factory=dict)
  window: dict[str, Any] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Manifest:
  """What a checkpoint holds beside its arrays; all of it is JSON.

  Attributes:
    pages: the config page and those that define choices of the experiment,
      each with all that it builds on, as `config.Page.to_json`.
    changes: of the experiment, from the defaults, but for its tracker.
    serialized_tokenizer: as `LoadedTokenizer.serialize`.
    data_fingerprint: of what the run reads.
    scores: of the evaluation of this state, if there was one.
    rank: how good they are by the experiment's `best`.
    progress: of the run.
    checksums: of every array by its path.
  """

  pages: list[dict[str, Any]]
  changes: list[str]
  serialized_tokenizer: dict[str, Any]
  data_fingerprint: str
  scores: dict[str, float] = dataclasses.field(default_factory=dict)
  rank: float = selection.WORST
  progress: Progress = Progress()
  checksums: dict[str, int] = dataclasses.field(default_factory=dict)

  @classmethod
  def create(cls, experiment: Experiment, page: Page | None,
             tokenizer: LoadedTokenizer, data_fingerprint: str) -> "Manifest":
    """Of a run, before anything is saved.

    Raises:
      UserError: two pages have different choices of one name in it.
    """
    experiment = experiment.untracked()
    # A choice may be from another page: that of the run it starts from.
    pages = [*config.pages_of(experiment), *([page] if page else [])]
    changes = config.changes(Experiment(), experiment)
    unlike = config.changes(experiment,
                            config.override(Experiment(), changes, pages))
    if pages and unlike:
      raise UserError(f"Two pages define choices of one name: {unlike[0]}. "
                      "Rename one.")
    return cls([p.to_json() for p in dict.fromkeys(pages)], changes,
               tokenizer.serialize(), data_fingerprint)

  @classmethod
  def of_run(cls, run: Run, page: Page | None = None) -> "Manifest":
    return cls.create(run.experiment, page, run.prepared.tokenizer,
                      run.prepared.fingerprint)

  @functools.cached_property
  def loaded_pages(self) -> list[Page]:
    return [config.run_page(path="the page in the checkpoint", **page)
            for page in self.pages]

  @functools.cached_property
  def experiment(self) -> Experiment:
    return config.override(Experiment(), self.changes, self.loaded_pages)

  def overridden(self, overrides: Sequence[str]) -> Experiment:
    """The experiment with options changed; its pages' choices may be named."""
    return config.override(self.experiment, overrides, self.loaded_pages)

  @functools.cached_property
  def tokenizer(self) -> LoadedTokenizer:
    return deserialize(self.serialized_tokenizer)

  def to_json(self) -> dict[str, Any]:
    return {field.name: getattr(self, field.name)
            for field in dataclasses.fields(self)} | {
                "progress": dataclasses.asdict(self.progress)}

  @classmethod
  def from_json(cls, values: dict[str, Any]) -> "Manifest":
    """
    Raises:
      TypeError: another version of this code has written it.
    """
    return cls(**values | {"progress": Progress(**values["progress"])})


def order(rank: float, step: int) -> tuple[float, int]:
  """What orders checkpoints: of equally good ones the first is the best, as
  EarlyStopping has it, and of those that have no rank the last."""
  return rank, step if rank == selection.WORST else -step


def check_same_run(old: Manifest, new: Manifest) -> None:
  """
  Args:
    old: of what was begun.
    new: of what would resume it.

  Raises:
    OtherOptions, UserError: they are different runs; says in what.
  """
  # The page first: its choices may have changed under the same names.
  pages = list(page_changes(_text(old.pages), _text(new.pages)))
  if pages:
    raise UserError(
        "The config page defines something else than when this run began:\n  "
        + "\n  ".join(pages) + "\nGive another workdir, or the page as it was.")
  # Not `old.experiment`: the page's choices are those of now.
  was, now = (config.options(config.override(
      Experiment(), manifest.changes, new.loaded_pages))
              for manifest in (old, new))
  differing = {
      key: f"{key}={now[key]} (was {was[key]})" if key in now and key in was
      else f"{key}={now[key]} (was not there)" if key in now
      else f"{key} is not there (was {was[key]})"
      for key in dict.fromkeys([*now, *was])
      if (key not in was or key not in now or was[key] != now[key])
      and key.split(".")[0] not in RESUMABLE}
  if differing:
    ways = (_OTHER_LENGTH if differing.keys() <= {"steps", "epochs", "budget"}
            else textwrap.fill(
                "Leave these as they were, or give another workdir. Only "
                f"{', '.join(RESUMABLE)} and tracker may change.", 80,
                break_on_hyphens=False))
    raise OtherOptions("\n  ".join([
        "This work directory holds a run with other options than these:",
        *differing.values()]) + f"\n{ways}")
  if old.data_fingerprint != new.data_fingerprint:
    raise UserError("This work directory holds a run over other data (the "
                    "fingerprints differ); give another workdir.")


def _text(pages: Iterable[Mapping[str, Any]]) -> str:
  """Of pages, each behind all that it builds on."""
  return "\n".join(_text(page["pages"].values()) + page["source"]
                   for page in pages)


def page_changes(old: str, new: str) -> Iterator[str]:
  """Lines of a diff, where the pages' definitions differ.

  The page's options are compared as options, and its words do not matter.
  """
  if _definitions(old) != _definitions(new):
    yield from difflib.unified_diff(
        old.splitlines(), new.splitlines(), "as it was", "as it is",
        lineterm="", n=1)


def _definitions(page: str) -> list[str]:
  """A page's classes, and the statements that they need: a study's arms, or how
  the experiment is made, which is compared as options, may change. So may
  trackers, which change nothing of a run."""
  body = [statement for statement in ast.parse(page).body
          if not isinstance(statement, (ast.Expr, ast.Import, ast.ImportFrom))]
  needed = [isinstance(statement, ast.ClassDef) and not any(
      ast.unparse(base).endswith("Tracker") for base in statement.bases)
            for statement in body]
  while True:
    read = {name for statement, is_needed in zip(body, needed) if is_needed
            for name in _names(statement, ast.Load)}
    more = [is_needed or not read.isdisjoint(_names(statement, ast.Store))
            for statement, is_needed in zip(body, needed)]
    if more == needed:
      return [ast.dump(statement) for statement, is_needed in zip(body, needed)
              if is_needed]
    needed = more


def _names(statement: ast.stmt, context: type[ast.expr_context]) -> set[str]:
  """That a statement reads (Load) or binds (Store), also inside of it."""
  names = {node.id for node in ast.walk(statement)
           if isinstance(node, ast.Name) and isinstance(node.ctx, context)}
  if context is ast.Store and isinstance(statement, (
      ast.ClassDef, ast.FunctionDef)):
    return {statement.name}
  return names
