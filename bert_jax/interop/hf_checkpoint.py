"""Directories as Hugging Face's `transformers` keeps them, in and out."""

import json
import pathlib
import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from bert_jax.config import UserError
from bert_jax.files import write_bytes
from bert_jax.interop import hf_config, parameter_map, torch_pickle
from bert_jax.interop.family import Family
from bert_jax.interop.hf_config import Architecture
from bert_jax.model.bert import BertConfig
from bert_jax.objectives.base import Objective


Params = Mapping[str, np.ndarray]  # by their paths

_POSITIONS = "encoder/embeddings/position_embeddings/embedding"
# No parameters: what can be counted.
_BUFFERS = r"(^|\.)(position_ids|token_type_ids|inv_freq)$"
WEIGHTS = ("model.safetensors", "model.safetensors.index.json",
           "pytorch_model.bin", "pytorch_model.bin.index.json")
_NOT_FETCHED = b"version https://git-lfs"


def read(path: pathlib.Path,
         config: str = "config.json") -> tuple[Architecture, Params]:
  """The network of a directory with a configuration and weights, and its
  parameters.

  Raises:
    UserError: something is missing, surplus, or not to be expressed here.
  """
  return fitted(_tensors(path), hf_config.read_json(path / config),
                path / config)


def fitted(tensors: Mapping[str, np.ndarray], options: Mapping[str, Any],
           config: pathlib.Path) -> tuple[Architecture, Params]:
  """Tensors as what a configuration asks for.

  Args:
    config: the file of the options, named in errors.
  """
  source = str(config.parent)
  family = hf_config.family_of(options, str(config))
  tensors = common_tensors(tensors, family, source)
  architecture = hf_config.read(
      options, {name: x.shape for name, x in tensors.items()}, str(config))
  return architecture, params_of(tensors, architecture, source)


def params_of(tensors: Mapping[str, np.ndarray], architecture: Architecture,
              source: str) -> dict[str, np.ndarray]:
  """Our parameters of tensors under their common names.

  Raises:
    UserError: as `parameter_map.to_ours`.
  """
  tensors = dict(tensors)
  for entry in architecture.entries:
    if entry.path == _POSITIONS and entry.name in tensors:
      tensors[entry.name] = tensors[entry.name][architecture.first_position:]
  return parameter_map.to_ours(
      {name: x for name, x in tensors.items()
       if name not in _unused(architecture)}, architecture.entries,
      architecture.model, source, architecture.family.tied)


def _unused(architecture: Architecture) -> set[str]:
  """What old RoBERTa classifiers keep beside the pooler that they use."""
  used = {entry.path: entry.name for entry in architecture.entries}
  return {entry.name for entry in architecture.family.spare
          if used.get(entry.path, entry.name) != entry.name}


def common_tensors(tensors: Mapping[str, np.ndarray], family: Family,
                   source: str) -> dict[str, np.ndarray]:
  """Tensors under the names of the family's entries.

  Raises:
    UserError: two of them are the same one.
  """
  renamed: dict[str, np.ndarray] = {}
  for name, tensor in tensors.items():
    common = family.common_name(name)
    if re.search(_BUFFERS, common):
      continue
    if common in renamed:
      raise UserError(f"{source} holds {common} twice, once as {name}.")
    renamed[common] = tensor
  return renamed


def _tensors(path: pathlib.Path) -> dict[str, np.ndarray]:
  """Every tensor of a directory, by its name there."""
  for name in WEIGHTS:
    if (path / name).is_file():
      break
  else:
    raise UserError(f"{path} holds no weights: none of {', '.join(WEIGHTS)}.")
  if not name.endswith(".index.json"):
    return _file(path / name)
  index = hf_config.read_json(path / name)
  if "weight_map" not in index:
    raise UserError(f"{path / name} has no weight_map and names no files.")
  shards = sorted(set(index["weight_map"].values()))
  tensors: dict[str, np.ndarray] = {}
  for shard in shards:
    if pathlib.PurePath(shard).name != shard:
      raise UserError(f"{path / name} names a file outside of its directory: "
                      f"{shard}.")
    if not (path / shard).is_file():
      raise UserError(f"{path / shard} is missing; {name} names "
                      f"{', '.join(shards)}.")
    tensors |= _file(path / shard)
  return tensors


def _file(path: pathlib.Path) -> dict[str, np.ndarray]:
  with path.open("rb") as file:
    if file.read(len(_NOT_FETCHED)) == _NOT_FETCHED:
      raise UserError(f"{path} is what git keeps in place of a large file; "
                      "fetch that with `git lfs pull`.")
  if path.suffix == ".bin":
    return torch_pickle.read(path)
  import safetensors.numpy
  try:
    return safetensors.numpy.load_file(path)
  except safetensors.SafetensorError as error:
    raise UserError(f"{path} is not a complete safetensors file: {error}."
                    ) from None


def write(directory: pathlib.Path, options: Mapping[str, Any],
          tensors: Mapping[str, np.ndarray],
          files: Mapping[str, bytes]) -> None:
  """A directory that `AutoModel` loads.

  Args:
    directory: does not exist or is empty.
    options, tensors: see `written`.
    files: what else belongs there.

  Raises:
    UserError: there is something already.
  """
  import safetensors.numpy
  if directory.exists() and (not directory.is_dir()
                             or any(directory.iterdir())):
    raise UserError(f"{directory} is not empty; give another directory.")
  directory.mkdir(parents=True, exist_ok=True)
  content = {
      **files,
      "config.json": (json.dumps(options, indent=2) + "\n").encode(),
      # Without a word of who wrote it, some programs refuse to read it.
      "model.safetensors": safetensors.numpy.save(dict(tensors),
                                                  {"format": "pt"})}
  for name, data in content.items():
    (directory / name).parent.mkdir(exist_ok=True)
    write_bytes(directory / name, data)


def written(family: Family, model: BertConfig, objective: Objective,
            params: Params, pad_id: int
            ) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
  """What config.json says, and the tensors under the names of its class.

  Args:
    family: whose names they get.
    pad_id: of the tokenizer.

  Raises:
    UserError: the network is none that they can express.
  """
  parts = {parameter_map.part_of(path) for path in params}
  options, ending = hf_config.write(family, model, objective, parts, pad_id)
  # A head has the pooler of the encoder, or one of its own.
  head = [entry for entry in family.classes[ending]
          if entry not in family.spare]
  own = {entry.path for entry in head}
  inner = [*family.encoder, *(entry for entry in family.spare
                              if entry.path not in own)]
  tensors = parameter_map.to_theirs(params, [*inner, *head], model,
                                    family.title)
  first = family.first(options, "")
  table = next((entry.name for entry in inner if entry.path == _POSITIONS), "")
  if table in tensors:
    tensors[table] = np.pad(tensors[table], ((first, 0), (0, 0)))
  inside = {name for entry in inner
            for name in entry.names(model.parameter_layers)}
  prefix = f"{family.inside}." if ending != "Model" else ""
  return options, {prefix + name if name in inside else name: tensor
                   for name, tensor in tensors.items()}
