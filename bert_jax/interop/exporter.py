"""A run's network for other programs."""

import dataclasses
import pathlib
import re
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from bert_jax.checkpoints.manifest import Manifest
from bert_jax.checkpoints.reading import latest_manifest, read_checkpoint
from bert_jax.config import UserError, nearest
from bert_jax.experiment import Experiment
from bert_jax.interop import (
    card_header, hf_checkpoint, hub, model_card, sentence_transformers)
from bert_jax.interop.card_details import CardDetails, CardScore
from bert_jax.interop.families import FAMILIES
from bert_jax.model.bert import BertConfig
from bert_jax.objectives.base import Objective
from bert_jax.objectives.embedding import Similarity
from bert_jax.objectives.mlm import Mlm
from bert_jax.training.param_paths import leaves


@dataclasses.dataclass(frozen=True)
class Exported:
  """What was written.

  Attributes:
    architecture: the class of `transformers` that it is for.
    card_problems: a line for each thing that the card lacks or gives away.
  """

  architecture: str
  card_problems: list[str]


def export(workdir: str | pathlib.Path, directory: str | pathlib.Path,
           details: CardDetails = CardDetails(), family: str = "auto",
           scores: Sequence[CardScore] = (), name: str = "",
           network: str = "encoder") -> Exported:
  """Writes a directory that `transformers` loads, and of an objective that
  compares vectors, `sentence-transformers`.

  Args:
    details: for the model card.
    family: whose names the network gets, a model_type; "auto": of RoBERTa
      where the tokenizer is RoBERTa's, of BERT, and of the others, the first
      that can express it.
    network: of the objective's: "generator", with its masked-LM head, where it
      trains one.
    scores: of the run, by protocols; those of this checkpoint are shown.
    name: on the hub, as OWNER/NAME; "": the title is the directory's name.

  Raises:
    UserError: no checkpoint, a network that the family cannot express, or a
      directory that is not empty.
  """
  workdir, directory = pathlib.Path(workdir), pathlib.Path(directory)
  saved = read_checkpoint(workdir)
  details = dataclasses.replace(details, base_model=details.base_model
                                or _base_model(saved.manifest))
  experiment, tokenizer = saved.manifest.experiment, saved.manifest.tokenizer
  part = _part(experiment, {
      path: x for path, x in leaves(saved.params).items()
      if not re.search(experiment.objective.training_only, path)}, network)
  options, tensors = _written(
      family, part, tokenizer.vocabulary.pair_separators == 2,
      tokenizer.vocabulary.pad_id)
  architecture = options["architectures"][0]
  of_sentences = {}
  if isinstance(part.objective, Similarity):
    of_sentences = sentence_transformers.written(
        part.objective, part.model.hidden_size, experiment.data.length)
  card = model_card.write(
      saved, details, [s for s in scores if s.checkpoint == saved.name],
      architecture, name or directory.name)
  hf_checkpoint.write(
      directory, options, tensors,
      tokenizer.directory(part.model.max_position_embeddings) | of_sentences
      | {"README.md": card.encode()})
  return Exported(architecture, card_header.problems(saved, details, scores))


class _Part(NamedTuple):
  """A network of a run, as if it were the run's only one."""

  model: BertConfig
  objective: Objective
  params: hf_checkpoint.Params


def _part(experiment: Experiment, params: hf_checkpoint.Params,
          name: str) -> _Part:
  """
  Raises:
    UserError: the objective trains no such network.
  """
  objective, heads = experiment.objective, experiment.objective.other_heads
  networks = objective.networks(experiment.model)
  if name not in networks:
    raise UserError(f"objective={objective.choice_name} trains no {name}"
                    + nearest(name, networks))
  first = {path: path.partition("/")[0] for path in params}
  if name == "encoder":
    others = {*networks, *heads} - {name}
    return _Part(networks[name], objective, {
        path: x for path, x in params.items() if first[path] not in others})
  # What it shares with the encoder lies there alone.
  shared = {path: x for path, x in params.items() if path.startswith(
      "encoder/embeddings/") and "/projection/" not in path}
  own = {path.replace(name, "encoder", 1) if first[path] == name else path: x
         for path, x in params.items() if first[path] in (name, *heads)}
  return _Part(networks[name], Mlm(), shared | own)


def _written(name: str, part: _Part, roberta: bool, pad_id: int
             ) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
  """As hf_checkpoint.written, of a family or of the first that can."""
  if name != "auto":
    return hf_checkpoint.written(FAMILIES[name], *part, pad_id)
  errors = []
  first = FAMILIES["roberta" if roberta else "bert"]
  for family in (first, *FAMILIES.values()):
    try:
      return hf_checkpoint.written(family, *part, pad_id)
    except UserError as error:
      errors.append(error)
  raise errors[0]


def _base_model(manifest: Manifest) -> str:
  """The hub's model that a network comes from; "": none, or it is unknown."""
  seen = set()
  while not hub.name_in(manifest.data_fingerprint):
    experiment = manifest.experiment
    source = "" if experiment.from_scratch else experiment.init_from
    if not source or source in seen:
      return ""
    seen.add(source)
    try:
      manifest = latest_manifest(source)
    except UserError:  # It is not here.
      return ""
  return hub.name_in(manifest.data_fingerprint)
