"""Scores of a run's network on other data, and predictions for a file."""

import dataclasses
from collections.abc import Callable, Sequence

from bert_jax import config, distributed
from bert_jax.checkpoints import environment, reading as checkpoints
from bert_jax.checkpoints.reading import Checkpoint
from bert_jax.config import UserError
from bert_jax.data.batches.rows import Rows
from bert_jax.data.base import Data
from bert_jax.data.sources import SquadData, TableData
from bert_jax.experiment import Experiment
from bert_jax.runs.evaluation import check_overrides, load
from bert_jax.runs.heads import rename_head


def of_workdir(workdir: str, overrides: Sequence[str] = (),
               say: Callable[[str], None] = lambda text: None
               ) -> dict[str, float]:
  """Scores of a run's network on its held-out data, or on what `overrides`
  name, as in data.evaluation=test.tsv.

  Args:
    say: gets the options that differ from the run's, as one text.

  Raises:
    UserError: an override cannot apply to a finished run.
  """
  saved = checkpoints.read_checkpoint(workdir)
  experiment = saved.manifest.overridden(overrides)
  _say_differences(saved.manifest.experiment, experiment, say)
  objective = experiment.objective
  saved = rename_head(saved, objective)
  prepared = _only_evaluated(experiment.data).prepare(
      experiment.seed, saved.manifest.tokenizer, objective.label_kind,
      objective.labels)
  if not len(prepared.evaluation):
    raise UserError(
        "No text is held out to evaluate on; data.evaluation_text=FILE names "
        "one, and data.text=FILE data.held_out_percent=100 takes all of it.")
  _agree(saved, experiment, prepared.evaluation)
  evaluator, params = load(saved, experiment, prepared.evaluation)
  return evaluator.evaluate(params, prepared.evaluation,
                            prepared.evaluation_set,
                            experiment.evaluation_batches)


def _only_evaluated(data: Data) -> Data:
  """An imported network knows no training set, and none is needed here."""
  if isinstance(data, (TableData, SquadData)) and not data.train:
    if not data.evaluation:
      raise UserError("data.evaluation: name the file to evaluate on, as in "
                      "data.evaluation=test.tsv.")
    return dataclasses.replace(data, train=data.evaluation)
  return data


def predict_file(workdir: str, source: str, output: str,
                 overrides: Sequence[str] = (),
                 say: Callable[[str], None] = lambda text: None) -> int:
  """Writes a file's rows with labels and probabilities beside them.

  Args:
    say: gets the options that differ from the run's, as one text.

  Returns:
    The number of examples.

  Raises:
    UserError: the network predicts no labels, or an override cannot apply to a
      finished run.
  """
  saved = checkpoints.read_checkpoint(workdir)
  trained = saved.manifest.experiment
  experiment = configure(trained, overrides)
  if experiment.objective.label_kind is None:
    raise UserError(
        f"{workdir} predicts no labels: it was trained on text, with objective="
        f"{experiment.objective.choice_name}. Fine-tune it first:\n  bert-jax "
        f"finetune PAGE --workdir NEW init_from={workdir}\nThen predict with "
        "NEW.")
  _say_differences(configure(trained, ()), experiment, say)
  saved = rename_head(saved, experiment.objective)
  labeled = experiment.data.unlabeled(
      source, experiment.objective.label_kind, experiment.objective.labels)
  if distributed.first():
    labeled.check_output(output)
  rows = labeled.rows(
      saved.manifest.tokenizer, experiment.data.length,
      experiment.data.examples_per_row, seed=0, shuffle=False)
  _agree(saved, experiment, rows)
  evaluator, params = load(saved, experiment, rows)
  predictions = evaluator.predict(params, rows, labeled)
  if distributed.first():
    labeled.write(output, predictions)
  return len(labeled)


def configure(trained: Experiment, overrides: Sequence[str]) -> Experiment:
  """The experiment to predict with.

  Every record gets an answer: that bad ones were skipped in training does not
  hold here, unless `overrides` say so.
  """
  return config.override(trained, [
      *(f"{option}=error" for option in config.options(trained)
        if option.endswith(".bad_records")), *overrides])


def _say_differences(trained: Experiment, experiment: Experiment,
                     say: Callable[[str], None]) -> None:
  check_overrides(trained, experiment)
  if different := config.described_changes(trained, experiment):
    say("\n  ".join(["differs from the run:", *different]))


def _agree(saved: Checkpoint, experiment: Experiment, rows: Rows) -> None:
  distributed.assert_equal({
      **config.options(experiment), **environment.process(),
      "checkpoint": str(saved.step),
      "data": rows.fingerprint
  })
