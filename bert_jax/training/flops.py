"""FLOPs of a training step."""

from typing import Any


def flops_per_token(experiment: Any) -> float:
  """Multiplications and additions of matrix products, three forward passes.

  Of the masked-LM head counts the share of tokens that are predicted.

  Args:
    experiment: an `Experiment`; `model`, `data` and `objective` are read.
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


def vocabulary_size(experiment: Any) -> int:
  """That of the network, or else what its tokenizer is asked for."""
  return experiment.model.vocab_size or experiment.data.tokenizer.vocab_size
