"""The README of an exported network, written from what its run recorded.

What is unknown is "not recorded".
"""

from collections.abc import Sequence

from bert_jax import config
from bert_jax.checkpoints.reading import Checkpoint
from bert_jax.experiment import Experiment, step_flops
from bert_jax.interop import card_header
from bert_jax.interop.card_details import CardDetails, CardScore
from bert_jax.interop.card_header import UNKNOWN
from bert_jax.reporting import markdown


def write(saved: Checkpoint, details: CardDetails, scores: Sequence[CardScore],
          architecture: str, name: str) -> str:
  """
  Args:
    saved: the network.
    details: by the user.
    scores: of this checkpoint, by protocols.
    architecture: the class of `transformers`.
    name: of the model; with an owner, on the hub.
  """
  experiment = saved.manifest.experiment
  title = name.rpartition("/")[2]
  return "\n\n".join([
      card_header.header(saved, details, scores, architecture, title),
      f"# {title}",
      _summary(saved, architecture),
      "## Use\n\n" + _use(architecture, name),
      "## Training\n\n" + markdown.table(
          ["", ""], _training(saved, details), numbers=False),
      "## Scores\n\n" + _scores(saved, scores),
      "## Known limits\n\n" + "\n".join(_limits(saved, details)),
      "## Options\n\nDifferent from BERT-base as published:\n\n```\n"
      + "\n".join(config.changes(Experiment(), experiment)) + "\n```"]) + "\n"


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


def _use(architecture: str, name: str) -> str:
  auto = "AutoModel" + next(
      (ending for ending in (
          "ForPreTraining", "ForMaskedLM", "ForNextSentencePrediction",
          "ForSequenceClassification", "ForTokenClassification",
          "ForQuestionAnswering", "ForMultipleChoice")
       if architecture.endswith(ending)), "")
  path = f'"{name}"' if "/" in name else "PATH"
  return (f"```python\nfrom transformers import {auto}, AutoTokenizer\n\n"
          f"tokenizer = AutoTokenizer.from_pretrained({path})\n"
          f"model = {auto}.from_pretrained({path})\n"
          "outputs = model(**tokenizer(\"a text\", return_tensors=\"pt\"))\n"
          "```")


def _training(saved: Checkpoint, details: CardDetails) -> list[list[str]]:
  experiment, progress = saved.manifest.experiment, saved.manifest.progress
  optimizer, schedule = experiment.optimizer, experiment.schedule
  data = ", ".join(filter(None, [details.data, *details.dataset_names]))
  rows = [["data", data or UNKNOWN],
          ["license of the data", details.data_license or UNKNOWN]]
  if not saved.step:  # Imported: how it was trained is unknown.
    return [*rows, ["came from", saved.manifest.data_fingerprint],
            *([what, UNKNOWN] for what in ("steps", "tokens", "FLOPs",
                                           "devices", "hours"))]
  start = experiment.init_from or "random parameters"
  if experiment.init_from and experiment.from_scratch:
    start = f"random parameters, with the tokenizer of {start}"
  elif experiment.init_from and details.base_model:
    start = f"{details.base_model}, as {start}"
  positions = saved.step * experiment.batch_size * experiment.data.length
  padding = f"; how many of them were padding: {UNKNOWN}"
  return rows + [
      ["started from", start], *_teacher(experiment),
      ["steps", f"{saved.step:,} of {experiment.batch_size} rows of "
                f"{experiment.data.length} tokens"],
      ["tokens", (f"{progress.tokens:.4g}; " if progress.tokens else "")
       + f"{positions:.4g}, padding counted"
       + ("" if progress.tokens else padding)],
      ["FLOPs", f"{saved.step * step_flops(experiment):.3g} of matrix "
       "products, padding counted, in these steps"],
      ["devices", progress.devices],
      ["hours", f"{progress.seconds / 3600:.2f} by the clock"],
      ["optimizer", f"{optimizer.choice_name}, peak rate "
       f"{schedule.learning_rate:g}, {schedule.choice_name} schedule"],
      ["seed", str(experiment.seed)],
      ["fingerprint of the data", saved.manifest.data_fingerprint]]


def _teacher(experiment: Experiment) -> list[list[str]]:
  """A row for the network that this one learned from, if any."""
  objective = experiment.objective
  if not objective.teacher:
    return []
  teacher = objective.networks(experiment.model)["teacher"]
  return [["teacher", f"{objective.teacher}: {teacher.num_hidden_layers} layers "
           f"of {teacher.hidden_size}, frozen"]]


def _scores(saved: Checkpoint, scores: Sequence[CardScore]) -> str:
  parts = [_held_out(saved)] if saved.manifest.scores else []
  if scores:
    parts.append(_by_protocol(saved, scores))
  return "\n\n".join(parts) or f"Scores: {UNKNOWN}."


def _held_out(saved: Checkpoint) -> str:
  experiment = saved.manifest.experiment
  options = config.options(experiment)
  held = [f"{key}={options[key]}" for key in (
      "data", "data.text", "data.evaluation_text", "data.train",
      "data.evaluation",
      "data.held_out_percent") if key in options and options[key]]
  part = (f"the first {experiment.evaluation_batches} batches of it"
          if experiment.evaluation_batches else "every example once")
  return markdown.table(
      ["held out", "value"],
      [[n, f"{v:.6g}"] for n, v in saved.manifest.scores.items()]) + (
          f"\n\nProtocol: {card_header.selection(experiment)}; {part}; "
          f"{', '.join(held)}. One seed: {experiment.seed}, so how much the "
          "scores vary with the seed is unknown.")


def _by_protocol(saved: Checkpoint, scores: Sequence[CardScore]) -> str:
  rows = [[score.protocol, score.measure, f"{score.value:.6g}",
           "-" if score.deviation is None else f"{score.deviation:.2g}",
           str(score.seeds), score.split or UNKNOWN,
           f"{score.items:,}" if score.items else "-", score.data[:8] or "-"]
          for score in scores]
  meanings = dict.fromkeys(
      f"* {score.protocol.partition(' ')[0]}: {score.meaning}"
      for score in scores if score.meaning)
  return "\n\n".join(filter(None, [
      markdown.table(
          ["protocol", "measure", "score", "standard deviation", "seeds",
           "scored on", "items", "data"], rows, numbers=False),
      "\n".join(meanings),
      "Seeds are those of fine-tunings; the network itself is one, of seed "
      f"{saved.manifest.experiment.seed}."]))


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
