"""Protocols of tasks that ship: code words, and those of GLUE."""

import dataclasses
import pathlib
import warnings
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np

from bert_jax.config import Count, UserError, check_ranges, nearest
from bert_jax.data.labeled import glue
from bert_jax.data.labeled.base import LabeledSet
from bert_jax.data.labeled.texts import ClassificationSet
from bert_jax.data.sources import CodeWordsData, GlueData, TextData
from bert_jax.experiment import Experiment, Run
from bert_jax.objectives.classification import Classification, Tagging
from bert_jax.objectives.regression import Regression
from bert_jax.studies.protocols.base import Protocol
from bert_jax.studies.protocols.finetuning import (
    FinetuningProtocol, digest, with_dropout)
from bert_jax.studies.protocols.scores import Score
from bert_jax.training.optimizers import AdamW
from bert_jax.training.schedules import LinearSchedule

# Evaluations are at the end alone: none decides anything.
_AT_THE_END = 1_000_000_000


@dataclasses.dataclass(frozen=True)
class _TaskProtocol(FinetuningProtocol):
  """
  Attributes:
    seeds: number of fine-tunings, each with another seed.
    length: tokens of a row; fewer where a compared network has fewer positions.
    rate: peak learning rate: linear warm-up over a tenth of the steps, then
      linear decay to 0.
  """

  seeds: Count = 3
  length: Count = 64
  rate: float = 1e-4

  def fit(self, experiments: Sequence[Experiment]) -> "_TaskProtocol":
    positions = [e.model.max_position_embeddings for e in experiments]
    length = min([self.length, *positions])
    return self if length == self.length else dataclasses.replace(
        self, length=length)

  def _made(self, network: Experiment, dropout: float,
            **options: Any) -> Experiment:
    return Experiment(
        model=with_dropout(network, dropout), optimizer=AdamW(),
        schedule=LinearSchedule(self.rate, warmup_fraction=0.1),
        evaluate_every=_AT_THE_END, save_every=_AT_THE_END, log_every=25,
        **options)


@dataclasses.dataclass(frozen=True)
class CodeWordsProtocol(_TaskProtocol):
  """Fine-tuning: which words of the embedded text are code? Entity F1.

  The task of the quickstart: 250 steps of 32 rows of four examples, without
  dropout. What is scored is the part that a pretraining on the embedded text
  with data.held_out_percent=15 has not read.
  """

  rate: float = 2e-3

  held_out_percent: ClassVar = 15.0

  def task(self, network: Experiment) -> Experiment:
    return self._made(
        network, 0.0, objective=Tagging(), steps=250, batch_size=32,
        data=CodeWordsData(length=self.length, examples_per_row=4,
                           held_out_percent=self.held_out_percent))

  def score(self, run: Run, params: Any, workdir: pathlib.Path) -> Score:
    read = run.experiment.data
    if isinstance(read, TextData) and read.text == "embedded" and (
        read.held_out_percent < self.held_out_percent):
      warnings.warn(
          f"{workdir}: data.held_out_percent={read.held_out_percent:g}, so the "
          "network has read some of the text that code_words scores, without "
          f"the marks; {self.held_out_percent:g} keeps all of it out.",
          stacklevel=2)
    return super().score(run, params, workdir)


@dataclasses.dataclass(frozen=True)
class _GlueTask(_TaskProtocol):
  """Trains on the training set, scores the dev set by GLUE's first metric.

  Rows hold several short examples, 32 examples a step on average; dropout is
  .1, whatever the network was pretrained with.

  Attributes:
    epochs: number of passes over the training set.
    folder: the folder that has a folder for each task of GLUE, or "tfds".
  """

  epochs: float = 3.0
  folder: str = "glue"

  places: ClassVar = ("folder",)
  split: ClassVar = "dev set"
  task_name: ClassVar[str]

  def measure(self, labeled: LabeledSet) -> str:
    return glue.TASKS[self.task_name].metrics[0]

  def task(self, network: Experiment) -> Experiment:
    classes = glue.TASKS[self.task_name].kind is ClassificationSet
    return self._made(
        network, 0.1, objective=Classification() if classes else Regression(),
        data=GlueData(length=self.length, examples_per_row=16,
                      folder=self.folder, task=self.task_name),
        epochs=self.epochs, examples_per_batch=32)

  def check(self) -> None:
    if self.task_name not in glue.present(self.folder):
      task = glue.TASKS[self.task_name]
      raise UserError(
          f"{self.choice_name}: no {task.train} and {task.dev} in "
          f"{pathlib.Path(self.folder, task.folder or task.name)}; name the "
          "folder that GLUE's tasks lie in, as \"" + self.choice_name
          + " folder=/data/glue\", or folder=tfds.")
    super().check()


@dataclasses.dataclass(frozen=True)
class Sst2Protocol(_GlueTask):
  """SST-2: sentiment of 67,000 phrases; accuracy. One epoch."""

  epochs: float = 1.0

  task_name: ClassVar = "SST-2"


@dataclasses.dataclass(frozen=True)
class RteProtocol(_GlueTask):
  """RTE: does a sentence follow from a text? Accuracy. Ten epochs."""

  length: Count = 256
  epochs: float = 10.0

  task_name: ClassVar = "RTE"


@dataclasses.dataclass(frozen=True)
class ColaProtocol(_GlueTask):
  """CoLA: is a sentence grammatical? Matthews correlation. Three epochs."""

  task_name: ClassVar = "CoLA"


@dataclasses.dataclass(frozen=True)
class MrpcProtocol(_GlueTask):
  """MRPC: do two sentences say the same? F1. Ten epochs."""

  length: Count = 128
  epochs: float = 10.0

  task_name: ClassVar = "MRPC"


@dataclasses.dataclass(frozen=True)
class StsbProtocol(_GlueTask):
  """STS-B: how alike are two sentences? Pearson correlation. Ten epochs."""

  length: Count = 128
  epochs: float = 10.0

  task_name: ClassVar = "STS-B"


@dataclasses.dataclass(frozen=True)
class QqpProtocol(_GlueTask):
  """QQP: are two questions the same? F1. One epoch."""

  length: Count = 128
  epochs: float = 1.0

  task_name: ClassVar = "QQP"


@dataclasses.dataclass(frozen=True)
class MnliProtocol(_GlueTask):
  """MNLI, its matched part: entailment; accuracy. One epoch."""

  length: Count = 128
  epochs: float = 1.0

  task_name: ClassVar = "MNLI"


@dataclasses.dataclass(frozen=True)
class QnliProtocol(_GlueTask):
  """QNLI: does a sentence answer a question? Accuracy. One epoch."""

  length: Count = 128
  epochs: float = 1.0

  task_name: ClassVar = "QNLI"


_OF_GLUE = (ColaProtocol, Sst2Protocol, MrpcProtocol, StsbProtocol,
            QqpProtocol, MnliProtocol, QnliProtocol, RteProtocol)


@dataclasses.dataclass(frozen=True)
class GlueProtocol(Protocol):
  """The mean over GLUE's tasks but WNLI, each by its own protocol.

  Fine-tuning r of the mean is that of each task.

  Attributes:
    seeds: number of fine-tunings of each task, each with another seed.
    rate: peak learning rate of all tasks.
    tasks: protocols of the tasks; fewer give another title.
    folder: the folder that has a folder for each task of GLUE, or "tfds".
  """

  seeds: Count = 3
  rate: float = 1e-4
  tasks: tuple[str, ...] = tuple(p.choice_name for p in _OF_GLUE)
  folder: str = "glue"

  places: ClassVar = ("folder",)
  split: ClassVar = "dev set"

  def __post_init__(self):
    check_ranges(self)
    for name in self.tasks or ("",):
      if name not in _BY_NAME:
        raise UserError(f"tasks={name}" + nearest(name, _BY_NAME))

  def label_kind(self) -> type[LabeledSet]:
    return ClassificationSet  # Most of them.

  def _protocols(self, experiments: Sequence[Experiment]) -> list[_GlueTask]:
    return [_BY_NAME[name](seeds=self.seeds, rate=self.rate,
                           folder=self.folder).fit(experiments)
            for name in self.tasks]

  def check(self) -> None:
    for protocol in self._protocols(()):
      protocol.check()

  def data(self, run: Run) -> str:
    return digest([p.data(run) for p in self._protocols([run.experiment])])

  def score(self, run: Run, params: Any, workdir: pathlib.Path) -> Score:
    scores = {p.choice_name: p.score(run, params, workdir)
              for p in self._protocols([run.experiment])}
    data = digest([score.data for score in scores.values()])
    reasons = [f"{name}: {score.unscorable}"
               for name, score in scores.items() if score.unscorable]
    if reasons:
      return Score(self.title, data, unscorable="; ".join(reasons))
    return Score(
        self.title, data, "mean over tasks", lower_is_better=False,
        values_R=np.mean([score.values_R for score in scores.values()], 0),
        further={name: score.value for name, score in scores.items()})


_BY_NAME = {p.choice_name: p for p in _OF_GLUE}
