"""Where weights come from: which reader a name or a directory is for."""

import pathlib

from bert_jax.config import UserError
from bert_jax.interop import huggingface
from bert_jax.interop.imported import Imported


def read(source: str, tokenizer: str = "") -> Imported:
  """
  Args:
    source: a directory of Hugging Face's or Google's.
    tokenizer: another directory or file to take the tokenizer from.

  Raises:
    UserError: it is neither.
  """
  path = pathlib.Path(source).expanduser()
  if (path / "config.json").is_file():
    return huggingface.read(path, tokenizer)
  raise UserError(f"{source} is no directory with a config.json.")
