"""A run's network for other programs."""

import pathlib
from typing import Literal

from bert_jax.checkpoints.reading import read_checkpoint
from bert_jax.interop import (
    hf_checkpoint, model_card, sentence_transformers)
from bert_jax.interop.model_card import CardDetails
from bert_jax.objectives.embedding import Similarity
from bert_jax.training.param_paths import leaves

Family = Literal["auto", "bert", "roberta"]


def export(workdir: str | pathlib.Path, directory: str | pathlib.Path,
           details: CardDetails = CardDetails(),
           family: Family = "auto") -> str:
  """Writes a directory that `transformers` loads, and of an objective that
  compares vectors, `sentence-transformers`.

  Args:
    details: for the model card.
    family: what the network is called; "auto": RoBERTa where the tokenizer is
      RoBERTa's, else BERT.

  Returns:
    The class of `transformers` that it is for.

  Raises:
    UserError: no checkpoint, a network that Hugging Face's BERT cannot
      express, or a directory that is not empty.
  """
  workdir, directory = pathlib.Path(workdir), pathlib.Path(directory)
  saved = read_checkpoint(workdir)
  experiment, tokenizer = saved.manifest.experiment, saved.manifest.tokenizer
  networks = experiment.objective.networks(experiment.model)
  model = networks.pop("encoder")
  roberta = (tokenizer.vocabulary.pair_separators == 2 if family == "auto"
             else family == "roberta")
  pad = tokenizer.vocabulary.pad_id
  options, tensors = hf_checkpoint.written(
      model, experiment.objective,
      {path: x for path, x in leaves(saved.params).items()
       if path.partition("/")[0] not in networks},
      pad + 1 if roberta else None)
  options["pad_token_id"] = pad
  architecture = options["architectures"][0]
  of_sentences = {}
  if isinstance(experiment.objective, Similarity):
    of_sentences = sentence_transformers.written(
        experiment.objective, model.hidden_size, experiment.data.length)
  hf_checkpoint.write(
        directory, options, tensors,
        tokenizer.directory(model.max_position_embeddings) | of_sentences
        | {"README.md": model_card.write(saved, details, architecture,
                                         directory.name).encode()})
  return architecture
