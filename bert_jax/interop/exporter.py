"""A run's network for other programs."""

import dataclasses
import pathlib
from collections.abc import Sequence

from bert_jax.checkpoints.manifest import Manifest
from bert_jax.checkpoints.reading import latest_manifest, read_checkpoint
from bert_jax.config import UserError
from bert_jax.interop import (
    card_header, hf_checkpoint, hub, model_card, sentence_transformers)
from bert_jax.interop.card_details import CardDetails, CardScore
from bert_jax.interop.families import FAMILIES
from bert_jax.interop.family import Family
from bert_jax.model.bert import BertConfig
from bert_jax.objectives.embedding import Similarity
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
           scores: Sequence[CardScore] = (), name: str = "") -> Exported:
  """Writes a directory that `transformers` loads, and of an objective that
  compares vectors, `sentence-transformers`.

  Args:
    details: for the model card.
    family: whose names the network gets, a model_type; "auto": of RoBERTa
      where the tokenizer is RoBERTa's, of BERT, and of the others, the first
      that can express it.
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
  networks = experiment.objective.networks(experiment.model)
  model = networks.pop("encoder")
  options, tensors = hf_checkpoint.written(
      _family(family, model, tokenizer.vocabulary.pair_separators == 2), model,
      experiment.objective,
      {path: x for path, x in leaves(saved.params).items()
       if path.partition("/")[0] not in networks},
      tokenizer.vocabulary.pad_id)
  architecture = options["architectures"][0]
  of_sentences = {}
  if isinstance(experiment.objective, Similarity):
    of_sentences = sentence_transformers.written(
        experiment.objective, model.hidden_size, experiment.data.length)
  card = model_card.write(
      saved, details, [s for s in scores if s.checkpoint == saved.name],
      architecture, name or directory.name)
  hf_checkpoint.write(
      directory, options, tensors,
      tokenizer.directory(model.max_position_embeddings) | of_sentences
      | {"README.md": card.encode()})
  return Exported(architecture, card_header.problems(saved, details, scores))


def _family(name: str, model: BertConfig, roberta: bool) -> Family:
  """Whose names the network gets; `roberta`: its tokenizer is RoBERTa's."""
  if name != "auto":
    return FAMILIES[name]
  first = FAMILIES["roberta" if roberta else "bert"]
  return next((family for family in (first, *FAMILIES.values())
               if not family.lacking(model)), first)


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
