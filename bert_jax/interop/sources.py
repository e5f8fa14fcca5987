"""Where weights come from: which reader a name or a directory is for."""

import pathlib

from bert_jax.config import UserError
from bert_jax.interop import hub, huggingface, tensorflow
from bert_jax.interop.imported import Imported


def read(source: str, tokenizer: str = "") -> Imported:
  """
  Args:
    source: a directory of Hugging Face's or Google's, or a name on the hub.
    tokenizer: another directory or file to take the tokenizer from.

  Raises:
    UserError: it is neither.
  """
  path = pathlib.Path(source).expanduser()
  if not path.is_dir() and hub.is_name(source):
    path = hub.download(source)
  if (path / "config.json").is_file():
    return huggingface.read(path, tokenizer)
  if (path / "bert_config.json").is_file():
    return tensorflow.read(path, tokenizer)
  raise UserError(f"{source} is no directory with a config.json (Hugging "
                  "Face's) or a bert_config.json (Google's).")
