"""BERT for research in JAX: from raw text to a solved task.

  import bert_jax as bj

  page = bj.page("quickstart", "model.norm=rms", "steps=200")
  run = bj.train(page, "runs/rms")
  bert = bj.load("runs/rms")
  bert.embed(["a text"])
  bj.compare("runs/base_*", "runs/rms_*")

All names are loaded when they are first used; importing this imports no jax.
What it does at once is to have the process keep its memory, on a CPU.
"""

import importlib
from typing import TYPE_CHECKING, Any

from bert_jax import memory

if TYPE_CHECKING:
  from bert_jax.analysis.asking import Bert, Outputs
  from bert_jax.config import Choice, UserError
  from bert_jax.config.cells import choice
  from bert_jax.data.base import Data
  from bert_jax.data.pretraining.formats import Format
  from bert_jax.experiment import Experiment
  from bert_jax.interop.card_details import CardDetails
  from bert_jax.interop.exporter import export
  from bert_jax.model.attention import Attention
  from bert_jax.model.bert import BertConfig
  from bert_jax.model.feed_forward import FeedForward
  from bert_jax.model.inputs import Inputs
  from bert_jax.model.norms import Norm
  from bert_jax.model.positions import Positions
  from bert_jax.model.stack import Stack
  from bert_jax.model.visibility import Locality
  from bert_jax.objectives.base import Objective
  from bert_jax.objectives.masking import Masking
  from bert_jax.reporting.trackers import Tracker
  from bert_jax.runs.from_python import RunPage, TrainedRun, page, run, train
  from bert_jax.studies.comparing import Report, compare
  from bert_jax.studies.protocols.base import Protocol
  from bert_jax.studies.study import Study
  from bert_jax.training.adapters import Adapter
  from bert_jax.training.optimizers import Optimizer
  from bert_jax.training.schedules import Schedule

# Where each name lives. The families are what a page or a cell derives from.
_HOMES = {
    "analysis.asking": ("Bert", "Outputs"),
    "config": ("Choice", "UserError"),
    "config.cells": ("choice",),
    "data.base": ("Data",),
    "data.pretraining.formats": ("Format",),
    "experiment": ("Experiment",),
    "interop.card_details": ("CardDetails",),
    "interop.exporter": ("export",),
    "model.attention": ("Attention",),
    "model.bert": ("BertConfig",),
    "model.feed_forward": ("FeedForward",),
    "model.inputs": ("Inputs",),
    "model.norms": ("Norm",),
    "model.positions": ("Positions",),
    "model.stack": ("Stack",),
    "model.visibility": ("Locality",),
    "objectives.base": ("Objective",),
    "objectives.masking": ("Masking",),
    "reporting.trackers": ("Tracker",),
    "runs.from_python": ("RunPage", "TrainedRun", "page", "run", "train"),
    "studies.comparing": ("Report", "compare"),
    "studies.protocols.base": ("Protocol",),
    "studies.study": ("Study",),
    "training.adapters": ("Adapter",),
    "training.optimizers": ("Optimizer",),
    "training.schedules": ("Schedule",),
}
_MODULES = {name: f"{__name__}.{home}" for home, names in _HOMES.items()
            for name in names}
__all__ = [
    "Adapter", "Attention", "Bert", "BertConfig", "CardDetails", "Choice",
    "Data", "Experiment", "FeedForward", "Format", "Inputs", "Locality",
    "Masking", "Norm", "Objective", "Optimizer", "Outputs", "Positions",
    "Protocol", "Report", "RunPage", "Schedule", "Stack", "Study", "Tracker",
    "TrainedRun", "UserError", "choice", "compare", "export",
    "import_weights", "load", "page", "run", "train"]

memory.keep()


def load(source: str) -> "Bert":
  """A trained network, to ask it.

  Args:
    source: a run's work directory, a directory of Hugging Face's or Google's,
      or the name of a model of the hub.

  Raises:
    UserError: there is none, or it cannot be read.
  """
  from bert_jax.analysis.asking import Bert
  from bert_jax.interop import importer
  return Bert(importer.checkpoint(source), str(source))


def import_weights(source: str, workdir: str, tokenizer: str = "") -> "Bert":
  """A network from elsewhere in a work directory, which `init_from` takes.

  The same call reads it once.

  Args:
    source: a directory of Hugging Face's or Google's, or the name of a model
      of the hub.
    workdir: gets it as that of a run.
    tokenizer: another directory or file to take the tokenizer from.

  Raises:
    UserError: there is none, it cannot be read, or `workdir` holds another run.
  """
  from bert_jax.analysis.asking import Bert
  from bert_jax.interop import importer
  return Bert(importer.import_weights(source, workdir, tokenizer), source)


if not TYPE_CHECKING:  # Else a checker takes any name for one of these.
  def __getattr__(name: str) -> Any:
    if name not in _MODULES:
      raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(_MODULES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
  return __all__
