"""What the hub itself reads of a model card: its header."""

import math
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

from bert_jax import config
from bert_jax.checkpoints.reading import Checkpoint
from bert_jax.experiment import Experiment
from bert_jax.interop.card_details import CardDetails, CardScore
from bert_jax.interop.hf_config import TASKS

if TYPE_CHECKING:
  from huggingface_hub import EvalResult

UNKNOWN = "not recorded"


def header(saved: Checkpoint, details: CardDetails, scores: Sequence[CardScore],
           architecture: str, name: str) -> str:
  """YAML between lines of dashes.

  Args:
    scores: of this checkpoint.
    architecture: the class of `transformers`.
    name: of the model.
  """
  from huggingface_hub import ModelCardData
  results = _held_out(saved, details, architecture) + _by_protocol(scores)
  fields = {}
  if not architecture.endswith("ForNextSentencePrediction"):  # It has no name.
    fields["pipeline_tag"] = _use(saved, architecture)
  if details.base_model and saved.step:  # Else it is that model.
    fields["base_model_relation"] = "finetune"
  if results:
    fields |= {"model_name": name, "eval_results": results}
  data = ModelCardData(
      license=details.license.lower() or None,
      language=details.language or None, library_name="transformers",
      tags=["bert", "bert-jax"], base_model=details.base_model or None,
      datasets=details.dataset_names or None, **fields)
  return f"---\n{data.to_yaml()}\n---"


def problems(saved: Checkpoint, details: CardDetails,
             scores: Sequence[CardScore]) -> list[str]:
  """What a card lacks, and what it shows that its author may not know of.

  Args:
    scores: of any checkpoint of the run.
  """
  experiment, lines = saved.manifest.experiment, []
  if not details.license:
    lines.append("license: none given (--license apache-2.0, or another "
                 "identifier of SPDX)")
  if not details.language:
    lines.append("language: none given (--language en)")
  if not (details.dataset_names or details.data):
    lines.append("datasets: none given (--datasets, by their names on the hub; "
                 "--data, in words)")
  if not details.base_model and (
      not saved.step or experiment.init_from and not experiment.from_scratch):
    came_from = experiment.init_from or saved.manifest.data_fingerprint
    lines.append(f"base_model: none known ({came_from}: not imported from the "
                 "hub, or not here; --base-model)")
  others = sum(score.checkpoint != saved.name for score in scores)
  if others:
    lines.append(f"scores: {others} of RUN/scores are of another checkpoint "
                 "and left out; `bert-jax score RUN` scores this one")
  paths = [change for change in config.changes(Experiment(), experiment)
           if re.search(r"[=,]~?/", change)]
  if paths:
    lines.append("options: they name places on this machine: "
                 + ", ".join(paths))
  return lines


def _use(saved: Checkpoint, architecture: str) -> str:
  """What the hub says that such a network is for."""
  task = TASKS.get(saved.manifest.experiment.objective.label_kind)
  return task.use if task else (
      "feature-extraction" if architecture.endswith("Model") else "fill-mask")


def _held_out(saved: Checkpoint, details: CardDetails,
              architecture: str) -> list["EvalResult"]:
  """The scores of the run's own evaluation."""
  from huggingface_hub import EvalResult
  experiment = saved.manifest.experiment
  data = [*details.dataset_names, experiment.data.choice_name]
  return [EvalResult(
      task_type=_use(saved, architecture), dataset_type=data[0],
      dataset_name=details.data or data[0], dataset_split="held out",
      metric_type=name, metric_value=value,
      metric_name=f"{name}, one seed, {selection(experiment)}")
          for name, value in saved.manifest.scores.items()
          if math.isfinite(value)]


def selection(experiment: Experiment) -> str:
  """How the step was chosen that the scores are of."""
  return (f"of the step with the best {experiment.best}, selected on the same "
          "set" if experiment.best else "of the last step, not selected")


def _by_protocol(scores: Sequence[CardScore]) -> list["EvalResult"]:
  from huggingface_hub import EvalResult
  results = []
  for score in scores:
    named, _, options = score.protocol.partition(" ")
    task = TASKS.get(score.kind)
    if math.isfinite(score.value):
      results.append(EvalResult(
          task_type=task.use if task else "fill-mask", dataset_type=named,
          dataset_name=score.protocol, dataset_config=options or None,
          dataset_split=score.split or None,
          dataset_revision=score.data or None,
          metric_type=score.measure, metric_value=score.value,
          metric_name=f"{score.measure} by {score.protocol}, seeds: "
          f"{score.seeds}"))
  return results
