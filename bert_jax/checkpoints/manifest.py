"""What a run is, as its checkpoints keep it, and whether two are the same."""

import ast
import dataclasses
import difflib
from collections.abc import Iterator
from typing import Any

from bert_jax import config
from bert_jax.config import UserError
from bert_jax.data.tokenizers.base import LoadedTokenizer
from bert_jax.data.tokenizers.choices import deserialize
from bert_jax.experiment import Experiment

# What may differ between the start of a run and its resumption. Microbatches
# and layouts change the order of sums, the others nothing of the steps.
RESUMABLE = ("layout", "microbatches", "log_every", "keep_checkpoints",
             "evaluate_every", "save_every", "save_minutes",
             "evaluation_batches", "max_nonfinite_steps", "spike_deviations",
             "patience")


@dataclasses.dataclass(frozen=True)
class Manifest:
  """What a checkpoint holds beside its arrays."""

  experiment: Experiment
  page: str  # the source of the config page; it may define choices
  tokenizer: LoadedTokenizer
  data_fingerprint: str

  def to_json(self) -> dict[str, Any]:
    return {"page": self.page,
            "changes": config.changes(Experiment(), self.experiment),
            "tokenizer": self.tokenizer.serialize(),
            "data_fingerprint": self.data_fingerprint}

  @classmethod
  def from_json(cls, facts: dict[str, Any]) -> "Manifest":
    if facts["page"]:
      config.run_page(facts["page"], "the page in the checkpoint")
    return cls(config.override(Experiment(), facts["changes"]), facts["page"],
               deserialize(facts["tokenizer"]), facts["data_fingerprint"])


def check_same_run(old: dict[str, Any], new: Manifest) -> None:
  """
  Args:
    old: `to_json` of what was begun.
    new: what would go on.

  Raises:
    UserError: they are different runs; says in what.
  """
  # The page first: its choices may have changed under the same names.
  pages = list(_page_changes(old["page"], new.page))
  if pages:
    raise UserError(
        "The config page defines something else than when this run began:\n  "
        + "\n  ".join(pages) + "\nGive another workdir, or the page as it was.")
  was, now = (config.options(experiment) for experiment in (
      config.override(Experiment(), old["changes"]), new.experiment))
  differing = [
      f"{key}={now[key]} (was {was[key]})" if key in now and key in was
      else f"{key}={now[key]} (was not there)" if key in now
      else f"{key} is not there (was {was[key]})"
      for key in dict.fromkeys([*now, *was])
      if (key not in was or key not in now or was[key] != now[key])
      and key.split(".")[0] not in RESUMABLE]
  if differing:
    raise UserError(
        "This work directory holds another run, which the following would "
        f"change:\n  {chr(10).join(differing)}\nGive another workdir, or "
        "leave these as they were.")
  if old["data_fingerprint"] != new.data_fingerprint:
    raise UserError("This work directory holds a run over other data (the "
                    "fingerprints differ); give another workdir.")


def _page_changes(old: str, new: str) -> Iterator[str]:
  """Lines of a diff, where the pages' definitions differ.

  The page's options are compared as options, and its words do not matter.
  """
  if _definitions(old) != _definitions(new):
    yield from difflib.unified_diff(
        old.splitlines(), new.splitlines(), "as it was", "as it is",
        lineterm="", n=1)


def _definitions(page: str) -> list[str]:
  """A page's statements but for words, imports, and the experiment."""
  return [ast.dump(statement) for statement in ast.parse(page).body
          if not isinstance(statement, (ast.Expr, ast.Import, ast.ImportFrom))
          and not _binds_experiment(statement)]


def _binds_experiment(statement: ast.stmt) -> bool:
  return isinstance(statement, ast.Assign) and any(
      isinstance(t, ast.Name) and t.id == "experiment"
      for t in statement.targets)
