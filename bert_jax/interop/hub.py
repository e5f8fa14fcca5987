"""Weights by their name on Hugging Face's hub, both ways."""

import contextlib
import pathlib
import re
from collections.abc import Iterator

from bert_jax.config import UserError

# Of what lies there, what is read here; the first kind of weights that is there
# would be enough, but the hub takes patterns, not preferences.
_FILES = ("*.json", "*vocab.txt", "*merges.txt", "*spiece.model",
          "*.safetensors")
_PICKLED = ("pytorch_model*.bin",)
# Before the name of what was downloaded, in what is recorded of it.
_ORIGIN = "the hub's "
_LOGIN = ("`hf auth login`, or HF_TOKEN set to a token that may write (the "
          "hub's settings make them)")


def is_name(source: str) -> bool:
  """Whether it may be ORGANIZATION/NAME, or a NAME without one."""
  return re.fullmatch(r"([\w.-]+/)?[\w.-]+", source) is not None


def check_name(name: str, what: str, owned: bool = False) -> None:
  """
  Args:
    what: is named so, for the message.
    owned: it must be OWNER/NAME; else a NAME alone will do.

  Raises:
    UserError: the hub takes no such name.
  """
  from huggingface_hub.utils import HFValidationError, validate_repo_id
  with contextlib.suppress(HFValidationError):
    validate_repo_id(name)
    if "/" in name or not owned:
      return
  parts = [re.sub(r"[^A-Za-z0-9_.-]+|--+|\.\.+", "-", part).strip("-.")
           for part in name.split("/")[-2:]]
  raise UserError(
      f"{what} {name}: expected OWNER/NAME, of letters, digits, '-', '_' and "
      "'.' (neither first nor last, nor twice in a row), at most 96 of them; "
      f"as {'/'.join(['OWNER', *parts][-2:])}.")


def origin(name: str) -> str:
  """What a downloaded model is recorded to come from."""
  return _ORIGIN + name


def name_in(record: str) -> str:
  """The name of a record that ends in an `origin`; "": it does not."""
  return record.partition(_ORIGIN)[2]


def download(name: str) -> pathlib.Path:
  """The directory of a model, in the cache of `huggingface_hub`.

  Raises:
    UserError: the hub does not answer, or not with a model.
  """
  import huggingface_hub
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


def address(name: str, revision: str = "") -> str:
  """Where a model is, or will be; HF_ENDPOINT names another hub."""
  from huggingface_hub import constants
  return (f"{constants.ENDPOINT}/{name}"
          + (f"/tree/{revision}" if revision else ""))


def check_login() -> None:
  """
  Raises:
    UserError: there is no token; nothing was asked of the hub.
  """
  import huggingface_hub
  if not huggingface_hub.get_token():
    raise UserError(f"Nobody is logged in to the hub: {_LOGIN}.")


def upload(folder: pathlib.Path, name: str, private: bool = False,
           revision: str = "") -> None:
  """Puts the files of a folder into a model's repository, in one commit.

  The repository is made if it is not there; other files in it stay.

  Args:
    name: as `check_name` takes it.
    private: of the repository; False: as its owner's are, or as it is.
    revision: a branch, which is made if it is not there; "": main.

  Raises:
    UserError: the hub refuses, does not answer, or has the repository public
      where private is asked for.
  """
  import huggingface_hub
  api = huggingface_hub.HfApi(token=huggingface_hub.get_token())
  with _explaining(name):
    api.create_repo(name, private=private or None, exist_ok=True)
    if private and not api.model_info(name).private:
      raise UserError(f"{name} is there already, and public: nothing was "
                      "uploaded. Give another name, or make it private in its "
                      "settings on the hub.")
    if revision:
      api.create_branch(name, branch=revision, exist_ok=True)
    api.upload_folder(repo_id=name, folder_path=folder,
                      revision=revision or None,
                      commit_message="Export by bert_jax")


@contextlib.contextmanager
def _explaining(name: str) -> Iterator[None]:
  """Turns what an upload raises into a UserError."""
  try:
    yield
  except UserError:
    raise
  except Exception as error:  # Of its own, of requests, httpx, the network.
    answer = _answer(error)
    text = f"{error} {answer}" if answer is not error else str(error)
    raise UserError(
        f"{address(name)} was not uploaded. {_way_out(answer, name)} "
        f"({type(answer).__name__}: {' '.join(text.split())[:400]})") from None


def _answer(error: BaseException) -> BaseException:
  """Of what led to an error, that with the hub's response, or the first."""
  while getattr(error, "response", None) is None and error.__cause__:
    error = error.__cause__
  return error


def _way_out(error: BaseException, name: str) -> str:
  status = getattr(getattr(error, "response", None), "status_code", 0)
  if status == 401:
    return f"The token is not accepted; log in again: {_LOGIN}."
  if status == 403:
    return (f"The token may not write to {name.partition('/')[0]}; take a name "
            f"of your own, or another token: {_LOGIN}.")
  if status == 429 or status >= 500:
    return "The hub has too much to do; try again later."
  if status or isinstance(error, ValueError):  # As of the card's header.
    return "The hub refuses it."
  return "The hub does not answer; check the network, and HF_ENDPOINT if set."
