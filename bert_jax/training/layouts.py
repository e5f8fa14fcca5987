"""How a run lies on its devices: over a mesh, or a copy a device."""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec as P

from bert_jax.config import Choice
from bert_jax.objectives.objective import Batch, Pairs
from bert_jax.training import partition
from bert_jax.training.step import (
    Recipe, TrainState, check_divisible, on_mesh, on_pmap)


@dataclasses.dataclass(frozen=True)
class Runner:
  """What the loop needs of a layout.

  `shardings` are those of a state as it is saved and evaluated, always over
  a mesh; `spread` turns it into the state that `step` takes, `gather` back.
  `feed` puts this process's `rows` of a batch on its devices.
  """

  mesh: Mesh
  shardings: TrainState
  step: Callable[[TrainState, Batch], tuple[TrainState, Pairs]]
  spread: Callable[[TrainState], TrainState]
  gather: Callable[[TrainState], TrainState]
  feed: Callable[[Mapping[str, np.ndarray]], Batch]
  fetch: Callable[[Pairs], Mapping[str, Any]]

  def rows(self, batch_size: int) -> np.ndarray:
    """Positions in the global batch of the rows that this process reads."""
    return partition.local_rows(self.mesh, batch_size)


@dataclasses.dataclass(frozen=True)
class Layout(Choice):
  """Builds a Runner for a recipe."""

  def mesh(self) -> Mesh:
    raise NotImplementedError

  def build(self, recipe: Recipe, shape: TrainState,
            batch_size: int) -> Runner:
    """`shape` is the state's, as jax.eval_shape gives it."""
    raise NotImplementedError


@dataclasses.dataclass(frozen=True)
class MeshLayout(Layout):
  """One program over data x fsdp x tensor devices; -1 takes what is left."""

  data: int = -1
  fsdp: int = 1
  tensor: int = 1

  def mesh(self) -> Mesh:
    return partition.make_mesh(self.data, self.fsdp, self.tensor)

  def build(self, recipe: Recipe, shape: TrainState,
            batch_size: int) -> Runner:
    mesh = self.mesh()
    check_divisible(batch_size, recipe.microbatches,
                    partition.row_devices(mesh))
    shardings = partition.shardings(shape, mesh)
    same = lambda x: x
    return Runner(
        mesh, shardings,
        on_mesh(recipe, shardings, partition.batch_sharding(mesh)), same, same,
        functools.partial(partition.share, mesh), jax.device_get)


@dataclasses.dataclass(frozen=True)
class PmapLayout(Layout):
  """One program a device, each with a copy of the state."""

  def mesh(self) -> Mesh:
    return partition.make_mesh()

  def build(self, recipe: Recipe, shape: TrainState,
            batch_size: int) -> Runner:
    mesh, devices = self.mesh(), jax.local_devices()
    check_divisible(batch_size, recipe.microbatches, jax.device_count())
    split = lambda x: x.reshape(len(devices), -1, *x.shape[1:])
    first = lambda x: np.asarray(x.addressable_shards[0].data[0])
    one = lambda tree: jax.tree.map(first, tree)
    return Runner(
        mesh, jax.tree.map(lambda _: NamedSharding(mesh, P()), shape),
        on_pmap(recipe),
        spread=functools.partial(_copies, len(devices)),
        gather=lambda state: partition.place(one(state),
                                             NamedSharding(mesh, P())),
        feed=lambda batch: jax.tree.map(split, dict(batch)), fetch=one)


def _copies(devices: int, state: TrainState) -> TrainState:
  """The state once for each local device, stacked as pmap wants it."""
  stack = lambda x: np.broadcast_to(np.asarray(x), (devices, *x.shape))
  return jax.pmap(lambda x: x)(jax.tree.map(stack, state))
