"""What `sentence-transformers` keeps beside a network: how it makes one vector
of a text, and of how many tokens at most."""

import dataclasses
import json
import logging
import pathlib
from collections.abc import Mapping
from typing import Any

from bert_jax import files
from bert_jax.config import UserError
from bert_jax.interop.hf_config import read_json
from bert_jax.objectives.embedding import Similarity

_MODULES, _PROMPTS = "modules.json", "config_sentence_transformers.json"
_LENGTH = "sentence_bert_config.json"
# Names of the module that is the network; all but the first are of 2019.
_NETWORKS = "Transformer", "BERT", "RoBERTa", "XLMRoBERTa", "CamemBERT"
_POOLINGS = {"mean": "mean", "mean_tokens": "mean", "cls": "cls",
             "cls_token": "cls"}
_TYPE = "sentence_transformers.models."
_LOG = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class SentenceModel:
  """A directory as its modules.json describes it.

  Attributes:
    network: the directory of the network and its tokenizer.
    objective: pools and normalizes as the modules do.
    length: tokens of a text at most, special ones included; None: as many as
      the network has positions for.
    lowercase: whether text is lower-cased before the tokenizer gets it.
  """

  network: pathlib.Path
  objective: Similarity
  length: int | None
  lowercase: bool


def read(path: pathlib.Path) -> SentenceModel | None:
  """None for a directory without a modules.json.

  Raises:
    UserError: a module, or a way of pooling, that is not known here.
  """
  if not (path / _MODULES).is_file():
    return None
  modules = _modules(path)
  names = [name for name, _ in modules]
  unknown = [f"{name} ({place.name})" for name, place in modules
             if name not in (*_NETWORKS, "Pooling", "Normalize")]
  if unknown or len(names) < 2 or names[0] not in _NETWORKS or (
      names[1:] not in (["Pooling"], ["Pooling", "Normalize"])):
    raise UserError(
        f"{path / _MODULES}: the modules are {', '.join(names)}. Read are a "
        "Transformer, a Pooling and at most a Normalize, in this order; "
        "without the others the vectors would not be those of this model."
        + f" Not known: {', '.join(unknown)}." * bool(unknown))
  network = modules[0][1]
  options = next((read_json(file) for file in sorted(
      network.glob("sentence_*_config.json"))), {})
  _report_prompt(path)
  return SentenceModel(
      network, Similarity(pooling=_pooling(modules[1][1] / "config.json"),
                          normalize="Normalize" in names),
      options.get("max_seq_length"), bool(options.get("do_lower_case")))


def _modules(path: pathlib.Path) -> list[tuple[str, pathlib.Path]]:
  """Name and directory of each module."""
  try:
    return [(module["type"].rpartition(".")[2], path / module["path"])
            for module in json.loads(files.read_text(path / _MODULES))]
  except (ValueError, KeyError, TypeError, AttributeError) as error:
    if isinstance(error, UserError):
      raise
    raise UserError(f"{path / _MODULES} is no list of modules: {error!r}."
                    ) from None


def _pooling(config: pathlib.Path) -> str:
  options = read_json(config)
  modes = options.get("pooling_mode")
  if modes is None:  # A mean is the default of the module.
    modes = [key.removeprefix("pooling_mode_") for key, on in (
        {"pooling_mode_mean_tokens": True} | options).items()
             if key.startswith("pooling_mode_") and on]
  modes = [modes] if isinstance(modes, str) else list(modes)
  if len(modes) != 1 or modes[0] not in _POOLINGS:
    raise UserError(f"{config}: pooling by {' and '.join(modes) or 'nothing'}; "
                    "known here are cls and mean, one of them.")
  return _POOLINGS[modes[0]]


def _report_prompt(path: pathlib.Path) -> None:
  options = (read_json(path / _PROMPTS) if (path / _PROMPTS).is_file() else {})
  prompt = (options.get("prompts") or {}).get(
      options.get("default_prompt_name"))
  if prompt:
    _LOG.warning("%s: sentence-transformers puts %r before every text of this "
                 "model. Here, give texts that begin so.", path, prompt)


def written(objective: Similarity, width: int,
            length: int) -> Mapping[str, bytes]:
  """The files from which `sentence-transformers` makes the same vectors.

  Args:
    width: of a vector.
    length: tokens of a text at most.
  """
  modules = ["Transformer", "Pooling", *["Normalize"] * objective.normalize]
  paths = ["", *(f"{i}_{name}" for i, name in enumerate(modules) if i)]
  content: dict[str, Any] = {
      _MODULES: [{"idx": i, "name": str(i), "path": path, "type": _TYPE + name}
                 for i, (name, path) in enumerate(zip(modules, paths))],
      _LENGTH: {"max_seq_length": length, "do_lower_case": False},
      f"{paths[1]}/config.json": {
          "word_embedding_dimension": width,
          **{f"pooling_mode_{mode}": _POOLINGS[mode] == objective.pooling
             for mode in ("cls_token", "mean_tokens")}}}
  return {name: (json.dumps(value, indent=2) + "\n").encode()
          for name, value in content.items()}
