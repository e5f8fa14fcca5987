"""The README of an exported network, written from what its run recorded.

What is unknown is "not recorded".
"""

import dataclasses
import json

from bert_jax import config
from bert_jax.checkpoints.reading import Checkpoint
from bert_jax.experiment import Experiment, workload
from bert_jax.interop.hf_config import TASKS
from bert_jax.reporting import markdown

UNKNOWN = "not recorded"


def _detail(meaning: str) -> str:
  return dataclasses.field(default="", metadata={"help": meaning})


@dataclasses.dataclass(frozen=True)
class CardDetails:
  """What only the user knows; "" is "not recorded"."""

  data: str = _detail("what the network was trained on")
  data_license: str = _detail("of that")
  license: str = _detail("of the weights, in the hub's words: apache-2.0")
  language: str = _detail("as in en")
  limits: str = _detail("known ones, beside those the run shows")


def write(saved: Checkpoint, details: CardDetails,
          architecture: str, name: str) -> str:
  """
  Args:
    saved: the network.
    details: by the user.
    architecture: the class of `transformers`.
    name: the title.
  """
  experiment = saved.manifest.experiment
  return "\n\n".join([
      _header(saved, details, architecture),
      f"# {name}",
      _summary(saved, architecture),
      "## Use\n\n" + _use(architecture, experiment),
      "## Training\n\n" + markdown.table(
          ["", ""], _training(saved, details)),
      "## Scores\n\n" + _scores(saved),
      "## Known limits\n\n" + "\n".join(_limits(saved, details)),
      "## Options\n\nDifferent from BERT-base as published:\n\n```\n"
      + "\n".join(config.changes(Experiment(), experiment)) + "\n```"]) + "\n"


def _header(saved: Checkpoint, details: CardDetails, architecture: str) -> str:
  """YAML between lines of dashes; JSON's strings are YAML's."""
  fields = {"library_name": "transformers", "tags": ["bert", "bert-jax"]}
  if details.license:
    fields["license"] = details.license
  if details.language:
    fields["language"] = details.language
  task = TASKS.get(saved.manifest.experiment.objective.label_kind)
  use = task.use if task else (
      "feature-extraction" if architecture.endswith("Model") else "fill-mask")
  if not architecture.endswith("ForNextSentencePrediction"):  # It has no name.
    fields["pipeline_tag"] = use
  if task and saved.manifest.scores:
    fields["model-index"] = [{
        "name": "bert-jax", "results": [{
            "task": {"type": use},
            "dataset": {"name": details.data or UNKNOWN,
                        "type": details.data or UNKNOWN},
            "metrics": [{"type": name, "value": value}
                        for name, value in saved.manifest.scores.items()]}]}]
  return "\n".join(["---", *(f"{k}: {json.dumps(v, ensure_ascii=False)}"
                             for k, v in fields.items()), "---"])


def _summary(saved: Checkpoint, architecture: str) -> str:
  model = saved.manifest.experiment.model
  objective = saved.manifest.experiment.objective
  labels = (f" Labels: {', '.join(objective.labels)}." if objective.labels
            else "")
  return (f"`{architecture}`: {model.num_hidden_layers} layers of "
          f"{model.hidden_size}, {model.num_attention_heads} heads, "
          f"{model.max_position_embeddings} positions, "
          f"{model.vocab_size} pieces; exported from step {saved.step} of a "
          f"run of bert_jax with objective={objective.choice_name}.{labels}")


def _use(architecture: str, experiment: Experiment) -> str:
  auto = "AutoModel" + next(
      (ending for ending in (
          "ForPreTraining", "ForMaskedLM", "ForNextSentencePrediction",
          "ForSequenceClassification", "ForTokenClassification",
          "ForQuestionAnswering", "ForMultipleChoice")
       if architecture.endswith(ending)), "")
  return (f"```python\nfrom transformers import {auto}, AutoTokenizer\n\n"
          f"tokenizer = AutoTokenizer.from_pretrained(PATH)\n"
          f"model = {auto}.from_pretrained(PATH)\n"
          "outputs = model(**tokenizer(\"a text\", return_tensors=\"pt\"))\n"
          "```")


def _training(saved: Checkpoint, details: CardDetails) -> list[list[str]]:
  experiment = saved.manifest.experiment
  optimizer, schedule = experiment.optimizer, experiment.schedule
  rows = [
      ["data", details.data or UNKNOWN],
      ["license of the data", details.data_license or UNKNOWN],
      ["started from", experiment.init_from or "random parameters"]]
  if not saved.step:  # Imported: how it was trained is unknown.
    return [*rows[:2], ["came from", saved.manifest.data_fingerprint],
            *([what, UNKNOWN] for what in ("steps", "tokens", "FLOPs",
                                           "devices", "hours"))]
  positions = saved.step * experiment.batch_size * experiment.data.length
  return rows + [
      ["steps", f"{saved.step:,} of {experiment.batch_size} rows of "
                f"{experiment.data.length} tokens"],
      ["tokens", f"{positions:.4g}, padding counted; how many of them were "
       f"padding: {UNKNOWN}"],
      ["FLOPs", f"{saved.step * workload(experiment).flops:.3g} of matrix "
       "products, padding counted"],
      ["devices", saved.manifest.progress.devices],
      ["hours", f"{saved.manifest.progress.seconds / 3600:.2f} by the clock"],
      ["optimizer", f"{optimizer.choice_name}, peak rate "
       f"{schedule.learning_rate:g}, {schedule.choice_name} schedule"],
      ["seed", str(experiment.seed)],
      ["fingerprint of the data", saved.manifest.data_fingerprint]]


def _scores(saved: Checkpoint) -> str:
  if not saved.manifest.scores:
    return f"Scores: {UNKNOWN}."
  experiment = saved.manifest.experiment
  options = config.options(experiment)
  held = [f"{key}={options[key]}" for key in (
      "data", "data.text", "data.evaluation_text", "data.train",
      "data.evaluation",
      "data.held_out_percent") if key in options and options[key]]
  selected = (f"of the step with the best {experiment.best}, selected on the "
              "same set" if experiment.best else "of the last step, not "
              "selected")
  part = (f"the first {experiment.evaluation_batches} batches of it"
          if experiment.evaluation_batches else "every example once")
  return markdown.table(
      ["held out", "value"],
      [[n, f"{v:.6g}"] for n, v in saved.manifest.scores.items()]) + (
          f"\n\nProtocol: {selected}; {part}; {', '.join(held)}. One seed: "
          f"{experiment.seed}, so how much the scores vary with the seed is "
          "unknown.")


def _limits(saved: Checkpoint, details: CardDetails) -> list[str]:
  experiment, limits = saved.manifest.experiment, []
  if details.limits:
    limits.append(f"* {details.limits}")
  positions = experiment.model.max_position_embeddings
  limits.append(f"* Texts of more than {positions} tokens are truncated.")
  if saved.step and experiment.data.length < positions:
    limits.append(f"* Trained on rows of {experiment.data.length} tokens; "
                  "later positions were not trained in this run.")
  if not experiment.objective.label_kind:
    limits.append("* Not fine-tuned for any task.")
  limits.append("* Biases that the network has from its training data: "
                + UNKNOWN + ".")
  return limits
