"""Directories as Hugging Face's `transformers` keeps them, in and out."""

import pathlib
import re
from collections.abc import Mapping

import flax.traverse_util
import numpy as np

from bert_jax.config import UserError
from bert_jax.data import tokenizers
from bert_jax.data.tokenizers import LoadedTokenizer
from bert_jax.interop import architectures, names, pickles
from bert_jax.interop.architectures import Architecture
from bert_jax.interop.imported import Imported

_WEIGHTS = ("model.safetensors", "model.safetensors.index.json",
            "pytorch_model.bin", "pytorch_model.bin.index.json")


def read(path: pathlib.Path, tokenizer: str = "") -> Imported:
  """The network, parameters and tokenizer of a directory.

  Args:
    path: with config.json, weights and the tokenizer's files.
    tokenizer: another directory or file to take the tokenizer from.

  Raises:
    UserError: something is missing, surplus, or not to be expressed here.
  """
  tensors = common_tensors(_tensors(path), str(path))
  options = architectures.read_json(path / "config.json")
  found = architectures.read(
      options, {name: x.shape for name, x in tensors.items()},
      str(path / "config.json"))
  return assemble(found, tensors, path, tokenizer)


def assemble(found: Architecture, tensors: dict[str, np.ndarray],
             path: pathlib.Path, tokenizer: str) -> Imported:
  """Architecture, tensors under the table's names, and tokenizer in one."""
  positions = "embeddings.position_embeddings.weight"
  if positions in tensors:
    tensors[positions] = tensors[positions][found.first_position:]
  params = names.to_ours(tensors, found.model, set(found.parts), str(path))
  return Imported(
      found.model, flax.traverse_util.unflatten_dict(params, sep="/"),
      found.objective, _tokenizer(pathlib.Path(tokenizer or path)), str(path))


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
  found: dict[str, np.ndarray] = {}
  for name, tensor in tensors.items():
    common = names.common_name(name)
    if common in found:
      raise UserError(f"{source} holds {common} twice, once as {name}.")
    found[common] = tensor
  return found


def _tensors(path: pathlib.Path) -> dict[str, np.ndarray]:
  """Every tensor of a directory, by its name there."""
  for name in _WEIGHTS:
    if (path / name).is_file():
      break
  else:
    raise UserError(f"{path} holds no weights: none of {', '.join(_WEIGHTS)}.")
  if not name.endswith(".index.json"):
    return _file(path / name)
  shards = sorted(set(architectures.read_json(path / name)["weight_map"]
                      .values()))
  found: dict[str, np.ndarray] = {}
  for shard in shards:
    if pathlib.PurePath(shard).name != shard:
      raise UserError(f"{path / name} names a file outside of its directory: "
                      f"{shard}.")
    if not (path / shard).is_file():
      raise UserError(f"{path / shard} is missing; {name} names "
                      f"{', '.join(shards)}.")
    found |= _file(path / shard)
  return found


def _file(path: pathlib.Path) -> dict[str, np.ndarray]:
  if path.suffix == ".bin":
    return pickles.read(path)
  import safetensors.numpy
  try:
    return safetensors.numpy.load_file(path)
  except safetensors.SafetensorError as error:
    raise UserError(f"{path} is no whole safetensors file: {error}.") from None


def _tokenizer(path: pathlib.Path) -> LoadedTokenizer:
  if path.is_file():
    return tokenizers.WordPieceTokenizer(path=str(path)).build(())
  options = (architectures.read_json(path / "tokenizer_config.json")
             if (path / "tokenizer_config.json").is_file() else {})
  return tokenizers.WordPieceTokenizer(
      path=str(path / "vocab.txt"),
      lowercase=options.get("do_lower_case", True)).build(())
