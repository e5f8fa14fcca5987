"""What was imported, and the work directory that it becomes."""

import dataclasses
import pathlib
from typing import Any

import jax
import jax.numpy as jnp

from bert_jax import checkpoint
from bert_jax.checkpoint import Checkpoints
from bert_jax.config import UserError
from bert_jax.data.datasets import (
    Data, SquadData, TableData, TextData)
from bert_jax.data.tokenizers import LoadedTokenizer
from bert_jax.experiment import Experiment
from bert_jax.facts import Facts
from bert_jax.model.encoder import Bert
from bert_jax.objectives.objective import Objective
from bert_jax.training.step import TrainState


@dataclasses.dataclass(frozen=True, eq=False)
class Imported:
  """A network from elsewhere."""

  model: Bert
  params: Any
  objective: Objective  # that its heads are for; Similarity if it has none
  tokenizer: LoadedTokenizer
  source: str

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
    UserError: there is a run already, or it cannot be written.
  """
  workdir = pathlib.Path(workdir)
  if (workdir / "checkpoints").is_dir() and checkpoint.history(workdir):
    raise UserError(f"{workdir} holds a run already; give another workdir.")
  experiment = Experiment(
      model=imported.model, objective=imported.objective,
      data=_data(imported.objective, imported.model.max_position_embeddings))
  facts = Facts(experiment, "", imported.tokenizer,
                f"imported from {imported.source}")
  zero = jnp.zeros((), jnp.int32)
  state = TrainState(zero, zero, jax.tree.map(jnp.asarray, imported.params), ())
  with Checkpoints(workdir) as checkpoints:
    checkpoints.save(state, facts, {}, {"seconds": 0.0})
  return experiment


def _data(objective: Objective, positions: int) -> Data:
  """What such a network reads, but for the files."""
  kinds = {None: TextData, "span": SquadData}
  kind = kinds.get(objective.label_kind, TableData)
  return kind(length=min(kind.length, positions))
