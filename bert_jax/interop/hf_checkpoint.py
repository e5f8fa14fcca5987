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
from bert_jax.interop.hf_config import Architecture
from bert_jax.model.bert import BertConfig
from bert_jax.objectives.base import Objective


Params = Mapping[str, np.ndarray]  # by their paths

_POSITIONS = "embeddings.position_embeddings.weight"
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
  tensors = common_tensors(_tensors(path), str(path))
  return fitted(tensors, hf_config.read_json(path / config),
                path / config)


def fitted(tensors: Mapping[str, np.ndarray], options: Mapping[str, Any],
           config: pathlib.Path) -> tuple[Architecture, Params]:
  """Tensors under the table's names as what a configuration asks for.

  Args:
    config: the file of the options, named in errors.
  """
  architecture = hf_config.read(
      options, {name: x.shape for name, x in tensors.items()}, str(config))
  if _POSITIONS in tensors:
    tensors = dict(tensors)
    tensors[_POSITIONS] = tensors[_POSITIONS][architecture.first_position:]
  return architecture, parameter_map.to_ours(
      tensors, architecture.model, set(architecture.parts), str(config.parent))


def common_tensors(tensors: Mapping[str, np.ndarray],
                   source: str) -> dict[str, np.ndarray]:
  """Tensors under the table's names.

  Raises:
    UserError: two of them are the same one.
  """
  if any(name.startswith("classifier.dense.") for name in tensors):
    # Old RoBERTa classifiers also keep the pooler that they do not use.
    tensors = {name: x for name, x in tensors.items()
               if not re.match(r"(\w+\.)?pooler\.", name)}
  renamed: dict[str, np.ndarray] = {}
  for name, tensor in tensors.items():
    common = parameter_map.common_name(name)
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


def written(model: BertConfig, objective: Objective, params: Params,
            first_position: int | None = None
            ) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
  """What config.json says, and the tensors under the names of its class.

  Args:
    first_position: RoBERTa, which counts positions from there, behind the id
      of padding; None: BERT.

  Raises:
    UserError: the network is none that they can express.
  """
  tensors = parameter_map.to_theirs(params, model)
  options, prefix = hf_config.write(
      model, objective, parameter_map.parts(tensors),
      first_position is not None)
  unused = first_position or 0
  options["max_position_embeddings"] += unused
  tensors[_POSITIONS] = np.pad(tensors[_POSITIONS], ((unused, 0), (0, 0)))
  architecture = options["architectures"][0]
  return options, {
      parameter_map.their_name(name, architecture, prefix): tensor
      for name, tensor in tensors.items()}
