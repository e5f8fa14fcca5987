"""Where weights come from: which reader a name or a directory is for."""

import pathlib

import flax.traverse_util

from bert_jax.config import UserError
from bert_jax.data import directories, tokenizers
from bert_jax.data.loaded import LoadedTokenizer
from bert_jax.interop import hub, huggingface, tensorflow
from bert_jax.interop.architectures import Architecture
from bert_jax.interop.huggingface import Params
from bert_jax.interop.imported import Imported


def read(source: str, tokenizer: str = "") -> Imported:
  """
  Args:
    source: a directory of Hugging Face's or Google's, or a name on the hub.
    tokenizer: another directory or file to take the tokenizer from.

  Raises:
    UserError: it is neither, or not whole.
  """
  path = pathlib.Path(source).expanduser()
  if not path.is_dir() and hub.is_name(source):
    path = hub.download(source)
  found, params = network(path)
  return Imported(
      found.model, flax.traverse_util.unflatten_dict(params, sep="/"),
      found.objective, _tokenizer(pathlib.Path(tokenizer or path)), source)


def network(path: pathlib.Path) -> tuple[Architecture, Params]:
  """The network of a directory, and its parameters by their paths."""
  if (path / "config.json").is_file():
    return huggingface.read(path)
  if (path / "bert_config.json").is_file():
    return tensorflow.read(path)
  raise UserError(f"{path} is no directory with a config.json (Hugging "
                  "Face's) or a bert_config.json (Google's).")


def _tokenizer(path: pathlib.Path) -> LoadedTokenizer:
  if path.suffix == ".txt":
    return tokenizers.WordPieceTokenizer(path=str(path)).build(())
  return directories.from_directory(path)
