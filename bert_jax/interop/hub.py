"""Weights by their name on Hugging Face's hub."""

import pathlib
import re

from bert_jax.config import UserError

# Of what lies there, what is read here; the first kind of weights that is there
# would be enough, but the hub takes patterns, not preferences.
_FILES = ("*.json", "*vocab.txt", "*merges.txt", "*spiece.model",
          "*.safetensors")
_PICKLED = ("pytorch_model*.bin",)


def is_name(source: str) -> bool:
  """Whether it may be ORGANIZATION/NAME, or a NAME without one."""
  return re.fullmatch(r"([\w.-]+/)?[\w.-]+", source) is not None


def download(name: str) -> pathlib.Path:
  """The directory of a model, in the cache of `huggingface_hub`.

  Raises:
    UserError: the package is not there, or the hub does not answer.
  """
  try:
    import huggingface_hub
  except ImportError:
    raise UserError(
        f"{name} is not a directory here. To fetch it from Hugging Face's hub, "
        "install huggingface_hub; or download its files elsewhere and give "
        "their directory.") from None
  try:
    folder = pathlib.Path(huggingface_hub.snapshot_download(
        name, allow_patterns=list(_FILES)))
    if not list(folder.glob("*.safetensors")):
      huggingface_hub.snapshot_download(name, allow_patterns=list(_PICKLED))
  except Exception as error:  # Of its own, of requests, httpx, the network.
    text = (str(error).splitlines() or [""])[0]
    raise UserError(
        f"{name} is not a directory here, and could not be fetched from "
        f"Hugging Face's hub ({type(error).__name__}: {text[:200]}). Check the "
        "name, or download its files elsewhere and give their directory."
    ) from None
  return folder
