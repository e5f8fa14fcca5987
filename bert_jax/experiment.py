"""The composition root: what a config page builds."""

import dataclasses
import functools

import numpy as np

from bert_jax.config import UserError, check_ranges
from bert_jax.data import arrays as arrays
from bert_jax.data.base import Data, Datasets
from bert_jax.data.sources import TextData
from bert_jax.data.tokenizers.base import LoadedTokenizer
from bert_jax.data.tokenizers.vocabulary import Vocabulary
from bert_jax.model.bert import BertConfig
from bert_jax.objectives.base import Objective
from bert_jax.objectives.mlm import MlmNsp
from bert_jax.objectives.network import network
from bert_jax.parallel.cost import Workload
from bert_jax.parallel.layouts import Layout, MeshLayout
from bert_jax.reporting.trackers import TensorboardTracker, Tracker
from bert_jax.training import numerics, programs
from bert_jax.training.adapters import Adapter, NoAdapter
from bert_jax.training.budget import Budget
from bert_jax.training.finetuning import Finetuning
from bert_jax.training.optimizers import BertAdam, Optimizer
from bert_jax.training.param_rates import Rates
from bert_jax.training.schedules import LinearSchedule, Schedule
from bert_jax.training.step import Recipe, TrainState


@dataclasses.dataclass(frozen=True)
class Experiment:
  """Every option of a run. Defaults: BERT-base as published, on embedded text.

  Attributes:
    model: the encoder.
    finetuning: which parameters are frozen, learn slowly, or are new.
    tracker: where numbers go beside the terminal and metrics.jsonl; changes
      nothing of a run.
    steps: number of training steps (updates), unless `epochs` or `budget` is
      set.
    epochs: number of passes over the training rows, in place of `steps`; None:
      `steps` holds.
    budget: what the run may use, in place of `steps`: a time, FLOPs or tokens,
      as 20min, 2h, 3e15flops or 2e6tokens; schedule, evaluations and saves fit
      inside; "": `steps` holds.
    batch_size: rows of the global batch, over all devices.
    examples_per_batch: mean number of examples in a batch, in place of
      `batch_size`, where several share a row; None: `batch_size` holds.
    microbatches: number of parts of a batch that are computed one after
      another, with accumulated gradients: less memory, the same updates; None:
      chosen with the layout, so that a batch fits in the devices' memory.
    seed: seed of data order, initial values, masks and dropout.
    log_every: number of steps that a logged training metric is the mean of.
      Where output is lines instead of a bar, one is printed every 10 s.
    evaluate_every: steps between evaluations; the last step always has one.
    save_every: steps between checkpoints; the last step always has one.
    save_minutes: minutes between checkpoints, beside those of `save_every`;
      None: time makes no checkpoint.
    evaluation_batches: most batches of the held-out set that an evaluation
      reads; None: all.
    keep_checkpoints: number of the latest checkpoints that are kept.
    max_nonfinite_steps: stop after this many consecutive steps whose loss or
      gradients are not finite; fewer are skipped.
    spike_deviations: where the loss is this many standard deviations above its
      running mean, the run rolls back to the last checkpoint and skips that
      batch; 0: never.
    best: metric whose best checkpoint is kept and used, as "accuracy" or
      "loss"; "": the last checkpoint is used.
    patience: early stopping: stop after this many consecutive evaluations
      without improvement of `best`; the schedule stays that of all steps;
      None: never.
    init_from: work directory of a run whose network, tokenizer and parameters
      this run starts from, and whose head, where the labels have the same
      names; "": all parameters are new.
    from_scratch: whether only network and tokenizer of `init_from` are used,
      with newly initialized parameters: the baseline that a pretraining has to
      beat.
  """

  model: BertConfig = BertConfig()
  objective: Objective = MlmNsp()
  data: Data = TextData()
  optimizer: Optimizer = BertAdam()
  schedule: Schedule = LinearSchedule()
  adapter: Adapter = NoAdapter()
  finetuning: Finetuning = Finetuning()
  layout: Layout = MeshLayout()
  tracker: Tracker = TensorboardTracker()
  steps: int = 1_000_000
  epochs: float | None = None
  budget: str = ""
  batch_size: int = 256
  examples_per_batch: int | None = None
  microbatches: int | None = None
  seed: int = 0
  evaluate_every: int = 10_000
  evaluation_batches: int | None = None
  save_every: int = 10_000
  save_minutes: float | None = None
  log_every: int = 100
  keep_checkpoints: int = 3
  max_nonfinite_steps: int = 10
  spike_deviations: float = 0.0
  best: str = ""
  patience: int | None = None
  init_from: str = ""
  from_scratch: bool = False

  def __post_init__(self):
    check_ranges(self)
    for name in ("steps", "batch_size", "examples_per_batch", "microbatches",
                 "evaluate_every", "evaluation_batches", "save_every",
                 "log_every", "keep_checkpoints", "max_nonfinite_steps"):
      value = getattr(self, name)
      if value is not None and value < 1:
        raise UserError(f"{name}={value}: at least 1.")
    if self.epochs is not None and not self.epochs > 0:
      raise UserError(f"epochs={self.epochs}: more than 0.")
    if self.patience is not None and (self.patience < 1 or not self.best):
      raise UserError(f"patience={self.patience} and best={self.best}: "
                      "expected at least 1 evaluation, and the metric that has "
                      "to get better, as in best=accuracy.")
    if self.budget:
      Budget.parse(self.budget)
      if self.epochs is not None:
        raise UserError(f"budget={self.budget} and epochs={self.epochs}: the "
                        "length of a run is given by one of them.")
    self.data.check_pairs(self.objective.pair_labels)
    if self.data.length > self.model.max_position_embeddings:
      raise UserError(
          f"data.length={self.data.length} is more than the network's "
          "model.max_position_embeddings="
          f"{self.model.max_position_embeddings} positions.")

  def untracked(self) -> "Experiment":
    """The same for any tracker: what runs are compared and resumed by."""
    return dataclasses.replace(self, tracker=Experiment.tracker)


@dataclasses.dataclass(frozen=True, eq=False)
class Run:
  """An experiment put together; its own options are complete now.

  Except for the steps of a time budget, which have to be measured.
  """

  experiment: Experiment
  prepared: Datasets
  recipe: Recipe

  def shape(self) -> TrainState:
    """Shapes and types of the state."""
    return self._shape

  @functools.cached_property
  def _shape(self) -> TrainState:
    return numerics.eval_shape(self.recipe.init, self.seed(), self.row())

  def seed(self) -> np.ndarray:
    return np.int32(self.experiment.seed)

  def row(self) -> dict[str, np.ndarray]:
    """A batch of one empty row."""
    row = self.prepared.train.empty()
    return {key: value[None] for key, value in row.items()} | {
        "row": np.zeros(1, np.int32)}

  def with_seed(self, seed: int) -> "Run":
    """What `compose` would give with another seed; nothing is read again."""
    prepared = dataclasses.replace(self.prepared,
                                   train=self.prepared.train.with_seed(seed))
    return dataclasses.replace(
        self, prepared=prepared,
        experiment=dataclasses.replace(self.experiment, seed=seed))

  def with_steps(self, steps: int) -> "Run":
    experiment = dataclasses.replace(self.experiment, steps=steps)
    return Run(experiment, self.prepared, recipe(
        experiment, self.recipe.vocabulary))


def compose(experiment: Experiment,
            tokenizer: LoadedTokenizer | None = None) -> Run:
  """Prepares the data and builds all that the experiment names.

  Args:
    experiment: options that the data decides (vocabulary, labels, steps of
      an epoch) may be open.
    tokenizer: the one that the parameters were trained with, if any.
  """
  objective = experiment.objective
  prepared = experiment.data.prepare(
      experiment.seed, tokenizer, objective.label_kind, objective.labels)
  objective = objective.tokenized(prepared.tokenizer)
  if prepared.train_set is not None:
    objective = objective.complete(prepared.train_set)
  experiment.data.check_train(prepared)
  objective.check_row(experiment.model, prepared.train.keys,
                      prepared.train.sizes,
                      f"data={experiment.data.choice_name}")
  vocabulary = prepared.tokenizer.vocabulary
  model = _with_vocabulary(experiment.model, vocabulary)
  complete = dataclasses.replace(experiment, objective=objective, model=model)
  complete = dataclasses.replace(
      complete, batch_size=_batch_size(complete, prepared))
  complete = dataclasses.replace(complete, steps=_steps(complete, prepared))
  return Run(complete, prepared, recipe(complete, vocabulary))


@programs.once(lambda of, vocabulary: (
    of.model, of.objective, of.adapter, of.finetuning, of.optimizer,
    of.schedule, of.steps, of.microbatches,
    *(np.asarray(x).tobytes() for x in vars(vocabulary).values())))
def recipe(experiment: Experiment, vocabulary: Vocabulary) -> Recipe:
  """The recipe of a complete experiment."""
  schedule = experiment.schedule.build(experiment.steps)
  model, objective = experiment.model, experiment.objective
  layers = layer_counts(experiment)
  rates = Rates(experiment.adapter.tables(layers)
                + experiment.finetuning.tables(layers, objective.frozen))
  return Recipe(experiment.adapter.adapt(network(model, objective)), objective,
                model, vocabulary, experiment.optimizer.build(), schedule,
                experiment.microbatches, rates)


def layer_counts(experiment: Experiment) -> dict[str, int]:
  """How many layers with parameters of their own each trained network has."""
  networks = experiment.objective.trained_networks(experiment.model)
  return {name: model.parameter_layers for name, model in networks.items()}


def workload(experiment: Experiment) -> Workload:
  """What a step of the experiment does, its data unseen."""
  model, objective = _sized_model(experiment), experiment.objective
  if "labels" in vars(objective) and not objective.labels:
    # The data will tell; two is the least.
    objective = dataclasses.replace(objective, labels=("0", "1"))
  ids = np.arange(model.vocab_size or 0, dtype=np.int32)
  vocabulary = Vocabulary(len(ids), 0, 0, 0, 0, 0, ids > 0, ids, ids)
  row = {key: value[None] for key, value in objective.empty_row(
      experiment.data.length, experiment.data.examples_per_row,
      vocabulary, model).items()} | {"row": np.zeros(1, np.int32)}
  complete = recipe(dataclasses.replace(experiment, model=model,
                                        objective=objective), vocabulary)
  shape = numerics.eval_shape(complete.init, np.int32(0), row)
  return Workload(complete, shape, row, experiment.batch_size)


def step_flops(experiment: Experiment) -> int:
  """Multiplications and additions of a step, as counted from its program."""
  sketch = Experiment(
      _sized_model(experiment), **{name: getattr(experiment, name) for name in (
          "objective", "optimizer", "adapter", "finetuning", "batch_size",
          "microbatches")}, steps=1,
      data=Data(experiment.data.length, experiment.data.examples_per_row))
  try:
    return _sketched_flops(sketch)
  except TypeError:  # A page's choice that has no hash.
    return workload(sketch).flops


@functools.lru_cache(64)
def _sketched_flops(sketch: Experiment) -> int:
  return workload(sketch).flops


def _sized_model(experiment: Experiment) -> BertConfig:
  return dataclasses.replace(
      experiment.model, vocab_size=experiment.model.vocab_size
      or experiment.data.vocabulary_size() or None)


def _with_vocabulary(model: BertConfig, vocabulary: Vocabulary) -> BertConfig:
  size = model.vocab_size or vocabulary.size or None  # None: it is no text.
  if size and size < vocabulary.size:
    raise UserError(
        f"model.vocab_size={size} is smaller than the tokenizer's "
        f"{vocabulary.size}: its last tokens would have no embedding.")
  return dataclasses.replace(model, vocab_size=size)


def _batch_size(experiment: Experiment, prepared: Datasets) -> int:
  if experiment.examples_per_batch is None:
    return experiment.batch_size
  rows = prepared.train
  in_a_row = len(rows.plan(0)[0]) / len(rows)
  return max(1, round(experiment.examples_per_batch / in_a_row))


def _steps(experiment: Experiment, prepared: Datasets) -> int:
  rows = prepared.train
  if experiment.epochs is not None:
    return max(1, round(experiment.epochs * len(rows) / experiment.batch_size))
  if experiment.budget:
    budget = Budget.parse(experiment.budget)
    if budget.unit != "seconds":
      flops = workload(experiment).flops if budget.unit == "flops" else 0
      return budget.steps(rows, experiment.batch_size, flops)
  return experiment.steps
