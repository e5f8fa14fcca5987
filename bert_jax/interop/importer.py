"""Reads weights and tokenizers of other programs into a work directory."""

import dataclasses
import pathlib
from typing import Any

import flax.traverse_util
import jax
import jax.numpy as jnp

from bert_jax.checkpoints.manager import CheckpointManager
from bert_jax.checkpoints.manifest import Manifest
from bert_jax.checkpoints.owner import Owner
from bert_jax.checkpoints.reading import (
    Checkpoint, read_checkpoint, read_manifests)
from bert_jax.config import UserError
from bert_jax.data.base import Data
from bert_jax.data.labeled.windows import SpanOptions
from bert_jax.data.sources import reader_of
from bert_jax.data.tokenizers import choices, hf_directory, wordpiece
from bert_jax.data.tokenizers.base import LoadedTokenizer
from bert_jax.experiment import Experiment
from bert_jax.interop import (
    hf_checkpoint, hf_config, hub, sentence_transformers, tf_checkpoint)
from bert_jax.interop.hf_checkpoint import Params
from bert_jax.interop.hf_config import Architecture
from bert_jax.model.bert import BertConfig
from bert_jax.objectives.base import Objective
from bert_jax.training.step import TrainState


@dataclasses.dataclass(frozen=True, eq=False)
class Imported:
  """A network from elsewhere."""

  model: BertConfig
  params: Any
  objective: Objective  # that its heads are for; Similarity if it has none
  tokenizer: LoadedTokenizer
  source: str
  length: int  # tokens that it reads at most, as it says itself

  @property
  def parameters(self) -> int:
    return sum(x.size for x in jax.tree.leaves(self.params))

  def __post_init__(self):
    size = self.tokenizer.vocabulary.size
    if size > self.model.vocab_size:
      raise UserError(
          f"The tokenizer has {size} pieces, but the network of {self.source} "
          f"only {self.model.vocab_size} word vectors; give the tokenizer that "
          "it was trained with (--tokenizer).")


def save(imported: Imported, workdir: str | pathlib.Path) -> Experiment:
  """Writes a work directory that holds the network as its step 0.

  Raises:
    UserError: it already holds a run, or cannot be written.
  """
  workdir = pathlib.Path(workdir)
  with Owner(workdir) as owner:
    owner.take()
    return _save(imported, workdir)


def _save(imported: Imported, workdir: pathlib.Path) -> Experiment:
  if (workdir / "checkpoints").is_dir() and read_manifests(workdir):
    raise UserError(f"{workdir} already holds a run; give another workdir.")
  manifest = _manifest(imported)
  zero = jnp.zeros((), jnp.int32)
  state = TrainState(zero, zero, jax.tree.map(jnp.asarray, imported.params), ())
  with CheckpointManager(workdir) as checkpoints:
    checkpoints.save(state, manifest)
  return manifest.experiment


def import_weights(source: str, workdir: str | pathlib.Path,
                   tokenizer: str = "") -> Checkpoint:
  """Reads a network from elsewhere into a work directory, unless it is there.

  Args:
    source, tokenizer: as of `read`.
    workdir: that `init_from` then names.

  Raises:
    UserError: as `read` and `save`.
  """
  workdir = pathlib.Path(workdir).expanduser()
  there = (read_manifests(workdir).values()
           if (workdir / "checkpoints").is_dir() else ())
  origins = _origin(source), _origin(hub.origin(source))
  if not any(saved.data_fingerprint in origins for saved in there):
    save(read(source, tokenizer), workdir)
  return read_checkpoint(workdir)


def checkpoint(source: str | pathlib.Path) -> Checkpoint:
  """What a network is used by: of a run, or read from elsewhere.

  Args:
    source: a work directory, or as of `read`.

  Raises:
    UserError: as `read_checkpoint` and `read`.
  """
  if (pathlib.Path(source).expanduser() / "checkpoints").is_dir():
    return read_checkpoint(pathlib.Path(source).expanduser())
  imported = read(str(source))
  return Checkpoint(jax.device_get(imported.params), _manifest(imported), 0)


def _manifest(imported: Imported) -> Manifest:
  return Manifest.create(
      Experiment(model=imported.model, objective=imported.objective,
                 data=_data(imported.objective, imported.length)),
      None, imported.tokenizer, _origin(imported.source))


def _origin(source: str) -> str:
  """In place of a fingerprint of data."""
  return f"imported from {source}"


def _data(objective: Objective, length: int) -> Data:
  """What such a network reads, but for the files."""
  reader = reader_of(objective.label_kind)
  # Questions are asked of windows, for which the positions need not all serve.
  return reader(length=min(length, reader.length)
                if issubclass(reader, SpanOptions) else length)


def read(source: str, tokenizer: str = "") -> Imported:
  """
  Args:
    source: a directory of Hugging Face's or Google's, or a name on the hub.
    tokenizer: another directory or file to take the tokenizer from.

  Raises:
    UserError: it is neither, or incomplete.
  """
  path = pathlib.Path(source).expanduser()
  if not path.is_dir() and hub.is_name(source):
    path, source = hub.download(source), hub.origin(source)
  sentences = sentence_transformers.read(path)
  if sentences:
    path = sentences.network
  architecture, params = network(path)
  loaded = _tokenizer(pathlib.Path(tokenizer or path))
  objective, model = architecture.objective, architecture.model
  if sentences:
    _check_case(sentences.lowercase, loaded, source)
    objective = sentences.objective
    params = {name: x for name, x in params.items()
              if name.startswith("encoder/")}
  return Imported(model, flax.traverse_util.unflatten_dict(params, sep="/"),
                  objective, loaded, source, _length(
                      path, model.max_position_embeddings,
                      sentences and sentences.length))


def _length(path: pathlib.Path, positions: int, declared: int | None) -> int:
  """Tokens of a text at most."""
  config = path / "tokenizer_config.json"
  if declared is None and config.is_file():
    # Where nobody said it, it is about 1e30.
    declared = hf_config.read_json(config).get("model_max_length")
  return min(positions, int(declared or positions))


def _check_case(lowercase: bool, tokenizer: LoadedTokenizer,
                source: str) -> None:
  upper, lower = tokenizer.encode(["A", "a"])
  if lowercase and upper != lower:
    raise UserError(f"{source}: sentence-transformers lower-cases the text of "
                    "this model (do_lower_case), its tokenizer does not; give "
                    "one that does (--tokenizer).")


def network(path: pathlib.Path) -> tuple[Architecture, Params]:
  """The network of a directory, and its parameters by their paths."""
  if (path / "config.json").is_file():
    return hf_checkpoint.read(path)
  if (path / "bert_config.json").is_file():
    # Before there was `transformers`, weights for PyTorch lay beside it too.
    if any((path / name).is_file() for name in hf_checkpoint.WEIGHTS):
      return hf_checkpoint.read(path, "bert_config.json")
    return tf_checkpoint.read(path)
  raise UserError(f"{path} is not a directory with a config.json (Hugging "
                  "Face's) or a bert_config.json (Google's).")


def _tokenizer(path: pathlib.Path) -> LoadedTokenizer:
  """
  Where there is only a vocabulary, as Google ships it, its capitals decide
  whether text is lower-cased.
  """
  if (path / "bert_config.json").is_file() and not any(
      (path / name).is_file() for name in (
          "tokenizer.json", "tokenizer_config.json")):
    path = path / "vocab.txt"
  if path.suffix != ".txt":
    return hf_directory.from_directory(path)
  uncased = choices.WordPieceTokenizer(path=str(path))
  tokenizer = uncased.build(())
  if wordpiece.has_capitals(tokenizer.pieces):
    return dataclasses.replace(uncased, lowercase=False).build(())
  return tokenizer
