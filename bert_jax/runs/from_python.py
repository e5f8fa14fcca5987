"""Pages and runs as notebooks handle them."""

import dataclasses
import functools
import pathlib
import signal
from typing import Any

from bert_jax import config
from bert_jax.checkpoints.reading import (
    Checkpoint, read_checkpoint, resolve_experiment)
from bert_jax.experiment import Experiment
from bert_jax.reporting import plots
from bert_jax.runs import record
from bert_jax.runs.loop import Stopped
from bert_jax.runs.record import Record
from bert_jax.runs.train import train as train_experiment


@dataclasses.dataclass(frozen=True, eq=False)
class RunPage:
  """A config page with overrides.

  Attributes:
    name: as it was given.
    page: as it was loaded.
    experiment: with the overrides.
  """

  name: str
  page: config.Page
  experiment: Experiment

  def changes(self) -> list[str]:
    """What differs from the page, as overrides."""
    return config.changes(self.page.experiment, self.experiment)

  def __repr__(self) -> str:
    summary = self.page.docstring.partition("\n")[0]
    return "\n  ".join([f"{self.name}: {summary}", *self.changes()])


def page(name: str, *overrides: str) -> RunPage:
  """A config page: a file, or a name that `bert-jax pages` lists.

  Args:
    overrides: as "model.norm=rms".

  Raises:
    UserError: there is no such page, option or value.
  """
  loaded = config.load_page(name)
  # Choices of all pages and cells may be named, not the page's alone.
  return RunPage(name, loaded, resolve_experiment(
      loaded.experiment, overrides))


@dataclasses.dataclass(frozen=True, eq=False)
class TrainedRun:
  """A run by its work directory, finished or not."""

  folder: pathlib.Path

  @property
  def record(self) -> Record:
    """What it is and how far, as run.json says."""
    return record.read_begun(self.folder)

  @functools.cached_property
  def checkpoint(self) -> Checkpoint:
    """Its best, or else its latest."""
    return read_checkpoint(self.folder)

  @property
  def params(self) -> Any:
    """Dictionaries of arrays, on the host."""
    return self.checkpoint.params

  @property
  def scores(self) -> dict[str, float]:
    """Of the checkpoint, on held-out data."""
    return dict(self.checkpoint.manifest.scores)

  def curves(self) -> Any:
    """A figure of losses and scores over the steps."""
    return plots.run_curves(self.folder / "metrics.jsonl")

  def __repr__(self) -> str:
    about = self.record
    return "\n  ".join([
        f"{self.folder}: {about.state}, step {about.step:,} of "
        f"{about.steps:,}, {about.tokens:,.0f} tokens, {about.seconds:,.0f} s",
        *(f"{name} {value:.4g}" for name, value in self.scores.items())])


def run(workdir: str | pathlib.Path) -> TrainedRun:
  """A run by its work directory.

  Raises:
    UserError: no run was begun there.
  """
  opened = TrainedRun(pathlib.Path(workdir).expanduser())
  opened.record  # Raises, if there is none.
  return opened


def train(page: RunPage | Experiment | str, workdir: str | pathlib.Path,
          *overrides: str) -> TrainedRun:
  """Trains in a work directory, from its latest checkpoint.

  The same call resumes what was interrupted, and returns at once what is done.

  Args:
    page: what `page` gives or takes, or an experiment.
    workdir: gets checkpoints, metrics and a picture of the curves.
    overrides: further ones.

  Raises:
    UserError: it cannot be run, or another run was begun there.
    Stopped: it was interrupted and has saved.
  """
  if isinstance(page, str):
    page = RunPage(page, loaded := config.load_page(page), loaded.experiment)
  source = page.page if isinstance(page, RunPage) else None
  experiment = page.experiment if isinstance(page, RunPage) else page
  folder = pathlib.Path(workdir).expanduser()
  try:
    train_experiment(resolve_experiment(experiment, overrides), folder, source)
  except KeyboardInterrupt:  # While it compiles, reads or restores.
    raise Stopped("Interrupted. The same call resumes from what was saved, or "
                  "starts again.", signal.SIGINT) from None
  return TrainedRun(folder)
