"""How a run lies on its devices: over a mesh, or a copy a device."""

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec as P

from bert_jax.config import Choice
from bert_jax.objectives.base import Batch, Pairs
from bert_jax.parallel import cost, mesh as mesh_lib, rules
from bert_jax.parallel.cost import Workload
from bert_jax.parallel.mesh import (
    batch_sharding, local_rows, make_mesh, place, share)
from bert_jax.training.step import (
    Recipe, TrainState, check_divisible, on_mesh, on_pmap)


@dataclasses.dataclass(frozen=True)
class Runner:
  """What the loop needs of a layout.

  `shardings` are those of a state as it is saved and evaluated, always over
  a mesh; `spread` turns it into the state that `step` takes, `gather` back.
  `feed` puts this process's `rows` of a batch on its devices. `recipe` is the
  one given, its network placed on the mesh.
  """

  mesh: Mesh
  recipe: Recipe
  shardings: TrainState
  step: Callable[[TrainState, Batch], tuple[TrainState, Pairs]]
  spread: Callable[[TrainState], TrainState]
  gather: Callable[[TrainState], TrainState]
  feed: Callable[[Mapping[str, np.ndarray]], Batch]
  fetch: Callable[[Pairs], Mapping[str, Any]]

  def rows(self, batch_size: int) -> np.ndarray:
    """Positions in the global batch of the rows that this process reads."""
    return local_rows(self.mesh, batch_size)


@dataclasses.dataclass(frozen=True)
class Layout(Choice):
  """Builds a Runner for a recipe."""

  def build(self, recipe: Recipe, shape: TrainState, batch_size: int,
            row: Batch) -> Runner:
    """`shape` is the state's, as jax.eval_shape gives it; `row` is a batch of
    one row."""
    raise NotImplementedError


@dataclasses.dataclass(frozen=True)
class MeshLayout(Layout):
  """One program over data x fsdp x tensor devices.

  What is None is chosen, for the least traffic that fits in memory.
  """

  data: int | None = None
  fsdp: int | None = None
  tensor: int | None = None

  def shapes(self, work: Workload, devices: int,
             slices: int = 1) -> list[tuple[int, int, int]]:
    """What the given sizes leave to choose from."""
    return cost.layouts(work, devices, self.data, self.fsdp, self.tensor,
                        slices)

  def build(self, recipe: Recipe, shape: TrainState, batch_size: int,
            row: Batch) -> Runner:
    devices = self.devices()
    work = Workload(recipe, shape, row, batch_size)
    shapes = self.shapes(work, len(devices), mesh_lib.slices(devices))
    mesh = make_mesh(
        *cost.choose(work, shapes, memory_limit(devices)), devices)
    shardings = rules.shardings(shape, mesh)
    placed = dataclasses.replace(
        recipe, network=rules.PlacedNetwork(recipe.network, mesh))
    same = lambda x: x
    return Runner(
        mesh, placed, shardings,
        on_mesh(placed, shardings, batch_sharding(mesh)), same, same,
        functools.partial(share, mesh), jax.device_get)

  def devices(self) -> Sequence[jax.Device]:
    return jax.devices()


def memory_limit(devices: Sequence[jax.Device]) -> int | None:
  """Bytes that a program may have of a device; None: unknown, as on a CPU."""
  stats = [d.memory_stats() or {} for d in devices
           if d.process_index == jax.process_index()]
  limits = [s["bytes_limit"] for s in stats if "bytes_limit" in s]
  return min(limits) if limits else None


@dataclasses.dataclass(frozen=True)
class PmapLayout(Layout):
  """One program a device, each with a copy of the state."""

  def build(self, recipe: Recipe, shape: TrainState, batch_size: int,
            row: Batch) -> Runner:
    mesh, devices = make_mesh(), jax.local_devices()
    check_divisible(batch_size, recipe.microbatches, jax.device_count())
    split = lambda x: x.reshape(len(devices), -1, *x.shape[1:])
    first = lambda x: np.asarray(x.addressable_shards[0].data[0])
    one = lambda tree: jax.tree.map(first, tree)
    return Runner(
        mesh, recipe, jax.tree.map(lambda _: NamedSharding(mesh, P()), shape),
        on_pmap(recipe),
        spread=functools.partial(_copies, len(devices)),
        gather=lambda state: place(one(state),
                                   NamedSharding(mesh, P())),
        feed=lambda batch: jax.tree.map(split, dict(batch)), fetch=one)


def _copies(devices: int, state: TrainState) -> TrainState:
  """The state once for each local device, stacked as pmap wants it."""
  stack = lambda x: np.broadcast_to(np.asarray(x), (devices, *x.shape))
  return jax.pmap(lambda x: x)(jax.tree.map(stack, state))
