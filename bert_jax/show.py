"""What an experiment is, before anything is paid for it."""

import dataclasses
import math

import jax
import numpy as np

from bert_jax import config, writers
from bert_jax.data.tokenizers import Vocabulary
from bert_jax.experiment import Experiment, recipe
from bert_jax.training.paths import leaves


def describe(experiment: Experiment, page: Experiment, docstring: str) -> str:
  """The page's words, differences, all options, parameters and FLOPs."""
  parts = [docstring.strip()]
  for title, base in (("Differs from BERT-base as published", Experiment()),
                      ("Differs from the page", page)):
    different = config.changes(base, experiment)
    parts.append("\n  ".join([f"{title}:", *(different or ["nothing"])]))
  parts.append("\n  ".join(["All options:", *(
      f"{k}={v}" for k, v in config.options(experiment).items())]))
  counts = parameter_counts(experiment)
  parts.append(writers.table(
      ["parameters", "number"],
      [[part, f"{count:,}"] for part, count in counts.items()]
      + [["all", f"{sum(counts.values()):,}"]]))
  parts.append(f"Training takes {flops_per_token(experiment):.3g} FLOPs a token "
               "(a forward and twice as much for a backward pass).")
  return "\n\n".join(parts)


def vocabulary_size(experiment: Experiment) -> int:
  """That of the network, or else what its tokenizer is asked for."""
  return experiment.model.vocab_size or experiment.data.tokenizer.vocab_size


def parameter_counts(experiment: Experiment) -> dict[str, int]:
  """The number of parameters of each part, by the head of its path."""
  size, length = vocabulary_size(experiment), experiment.data.length
  model = dataclasses.replace(experiment.model, vocab_size=size)
  objective = experiment.objective
  if objective.label_kind in ("class", "tags") and not objective.labels:
    # The data will tell; two is the least.
    objective = dataclasses.replace(objective, labels=("0", "1"))
  tables = np.arange(size, dtype=np.int32)
  vocabulary = Vocabulary(size, 0, 0, 0, 0, 0, tables > 0, tables, tables)
  tokens, slots = np.zeros((1, length), np.int32), np.zeros((1, 1), np.int32)
  batch = {"input_ids": tokens, "token_type_ids": tokens,
           "position_ids": tokens, "example_ids": tokens,
           "cls_positions": slots, "next_sentence_labels": slots,
           "example_mask": slots.astype(np.float32), "row": slots[0]}
  state = jax.eval_shape(
      recipe(dataclasses.replace(experiment, model=model, objective=objective),
             vocabulary).init, np.int32(0), batch)
  counts: dict[str, int] = {}
  for path, leaf in leaves(state.params).items():
    part = "/".join(path.split("/")[:2])
    counts[part] = counts.get(part, 0) + math.prod(leaf.shape)
  return counts


def flops_per_token(experiment: Experiment) -> float:
  """Multiplications and additions of matrix products, three forward passes.

  Of the masked-LM head counts the share of tokens that are predicted.
  """
  model, length = experiment.model, experiment.data.length
  width, inner = model.hidden_size, model.intermediate_size
  layer = 2 * width * (4 * width + 2 * inner) + 4 * length * width
  head = 0.0
  if hasattr(experiment.objective, "masking"):
    predicted = experiment.objective.masking.predictions_per_row(length)
    decoder = 2 * width * (width + vocabulary_size(experiment))
    head = predicted / length * decoder
  return 3 * (model.num_hidden_layers * layer + head)
