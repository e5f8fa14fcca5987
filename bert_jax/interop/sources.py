"""Where weights and tokenizers come from: which reader is for what."""

import dataclasses
import pathlib

import flax.traverse_util

from bert_jax.config import UserError
from bert_jax.data import directories, tokenizers, wordpiece
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
    # Before there was `transformers`, weights for PyTorch lay beside it too.
    if any((path / name).is_file() for name in huggingface.WEIGHTS):
      return huggingface.read(path, "bert_config.json")
    return tensorflow.read(path)
  raise UserError(f"{path} is no directory with a config.json (Hugging "
                  "Face's) or a bert_config.json (Google's).")


def _tokenizer(path: pathlib.Path) -> LoadedTokenizer:
  """
  Where only a vocabulary is there, as Google ships it, nothing says whether
  text is lower-cased but the vocabulary: it has capitals or it has none.
  """
  if (path / "bert_config.json").is_file() and not any(
      (path / name).is_file() for name in (
          "tokenizer.json", "tokenizer_config.json")):
    path = path / "vocab.txt"
  if path.suffix != ".txt":
    return directories.from_directory(path)
  lower = tokenizers.WordPieceTokenizer(path=str(path))
  found = lower.build(())
  if wordpiece.has_capitals(found.pieces):
    return dataclasses.replace(lower, lowercase=False).build(())
  return found
