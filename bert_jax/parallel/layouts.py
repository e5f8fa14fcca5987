"""How a run lies on its devices: over a mesh, or a copy on each device."""

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding, PartitionSpec as P

from bert_jax.config import Choice, Count
from bert_jax.objectives.base import Batch, Means
from bert_jax.parallel import mesh as mesh_lib, plans, rules
from bert_jax.parallel.cost import Workload
from bert_jax.parallel.mesh import (
    AXES, batch_sharding, local_rows, make_mesh, share)
from bert_jax.training import numerics
from bert_jax.training.step import (
    Recipe, TrainState, check_divisible, train_step)


Step = Callable[[TrainState, Batch], tuple[TrainState, Means]]
# Sums are split into parts that libtpu fuses with matrix products. One sum of
# all gradients of a layer has no product left beside it, so that at most two
# matrices of BERT-base share one; smaller sums gain nothing, as each has a
# latency of its own. docs/results.md has what is predicted of it.
OVERLAP = {"xla_enable_async_all_reduce": "true",
           "xla_tpu_enable_async_collective_fusion_fuse_all_reduce": "true",
           "xla_jf_crs_combiner_threshold_in_bytes": "5000000"}
AXIS = "device"  # of pmap


@dataclasses.dataclass(frozen=True)
class Runner:
  """A recipe on its devices, as the loop sees it.

  Attributes:
    mesh: of the devices.
    recipe: the one given, its network placed on the mesh.
    shardings: of a state over the mesh: global arrays, whatever the layout.
    step: one update; the state given to it is donated.
    put: this process's `rows` of a batch, onto its devices.
  """

  mesh: Mesh
  recipe: Recipe
  shardings: TrainState
  step: Step
  put: Callable[[Mapping[str, np.ndarray]], Batch]

  def rows(self, batch_size: int) -> np.ndarray:
    """Positions in the global batch of the rows that this process reads."""
    return local_rows(self.mesh, batch_size)


@dataclasses.dataclass(frozen=True)
class Layout(Choice):
  """How a step is distributed over the devices."""

  def build(self, recipe: Recipe, shape: TrainState, batch_size: int,
            row: Batch) -> Runner:
    """`shape` is the state's, as jax.eval_shape gives it; `row` is a batch of
    one row."""
    raise NotImplementedError


@dataclasses.dataclass(frozen=True)
class MeshLayout(Layout):
  """One program over a mesh of data x fsdp x tensor devices.

  What is None is chosen, for the least traffic that fits in memory.

  Attributes:
    data: size of the mesh's axis for data parallelism: groups of fsdp x tensor
      devices that share the rows of a batch; None: chosen.
    fsdp: size of the axis for fully sharded data parallelism: devices that
      share rows, parameters and optimizer state; None: chosen.
    tensor: size of the axis for tensor parallelism: devices that share heads,
      feed-forward width and vocabulary; None: chosen.
    overlap: whether TPUs v5e sum gradients over devices while they compute
      others, in place of afterwards. Other chips do as their compiler likes.
  """

  data: Count | None = None
  fsdp: Count | None = None
  tensor: Count | None = None
  overlap: bool = True

  def shapes(self, work: Workload, devices: int,
             slices: int = 1) -> list[tuple[int, int, int]]:
    """What the given sizes leave to choose from."""
    return plans.layouts(work, devices, self.data, self.fsdp, self.tensor,
                         slices)

  def build(self, recipe: Recipe, shape: TrainState, batch_size: int,
            row: Batch) -> Runner:
    devices = self.devices()
    return self.build_on(devices, memory_limit(devices),
                         Workload(recipe, shape, row, batch_size))

  def build_on(self, devices: Sequence[jax.Device], memory: int | None,
               work: Workload) -> Runner:
    """On devices that need not be here.

    Args:
      memory: bytes of each that a program may have; None: unknown.
    """
    recipe, shape = work.recipe, work.state
    work = work.on(devices[0])
    shapes = lambda work: self.shapes(work, len(devices),
                                      mesh_lib.slices(devices))
    chosen, sizes = plans.choose(work, shapes, memory)
    recipe = dataclasses.replace(recipe, microbatches=chosen.recipe.parts)
    mesh = make_mesh(*sizes, devices)
    shardings = rules.shardings(shape, mesh, rules.table_of(recipe))
    placed = dataclasses.replace(
        recipe, network=rules.place(recipe.network, mesh))
    everywhere, rows = NamedSharding(mesh, P()), batch_sharding(mesh)
    step = numerics.jit(functools.partial(train_step, placed),
                        in_shardings=(shardings, rows),
                        out_shardings=(shardings, everywhere),
                        donate_argnums=overwritten(devices[0].platform),
                        compiler_options=self.compiler_options(devices))
    return Runner(mesh, placed, shardings, step,
                  functools.partial(share, mesh))

  def devices(self) -> Sequence[jax.Device]:
    return jax.devices()

  def compiler_options(self, devices: Sequence[jax.Device]
                       ) -> dict[str, str] | None:
    """Of the step; libtpu refuses to compile these for other chips than v5e,
    and older versions were not tried."""
    known = (devices[0].device_kind in ("TPU v5 lite", "TPU v5e")
             and jax.__version_info__ >= (0, 10))
    return OVERLAP if self.overlap and known and len(devices) > 1 else None


def overwritten(platform: str | None = None) -> tuple[int, ...]:
  """Which argument of a step its result may overwrite: the state.

  Args:
    platform: of its devices; None: of those that are here.

  On a CPU jaxlib 0.7.2 then computes wrong gradients, without an error: after
  300 steps a loss was .06 higher. 0.10.2 gives the same bits either way.
  """
  wrong = jax.__version_info__ < (0, 10) and (
      platform or jax.default_backend()) == "cpu"
  return () if wrong else (0,)


def memory_limit(devices: Sequence[jax.Device]) -> int | None:
  """Bytes that a program may have of a device; None: unknown, as on a CPU."""
  stats = [d.memory_stats() or {} for d in devices
           if d.process_index == jax.process_index()]
  limits = [s["bytes_limit"] for s in stats if "bytes_limit" in s]
  return min(limits) if limits else None


@dataclasses.dataclass(frozen=True)
class ShardMapLayout(Layout):
  """Data parallelism by `jax.shard_map`, a copy of the state a device."""

  def build(self, recipe: Recipe, shape: TrainState, batch_size: int,
            row: Batch) -> Runner:
    mesh = make_mesh()
    check_divisible(batch_size, recipe.parts, jax.device_count())
    # Sums over the devices are the same on each, which is not checked.
    step = numerics.jit(jax.shard_map(
        functools.partial(train_step, recipe, axis="data"), mesh=mesh,
        in_specs=(P(), P("data")), out_specs=P(), check_vma=False),
        donate_argnums=overwritten())
    return Runner(mesh, recipe, _copies(shape, mesh), step,
                  functools.partial(share, mesh))


@dataclasses.dataclass(frozen=True)
class PmapLayout(Layout):
  """Data parallelism by `jax.pmap`, a copy of the state a device."""

  def build(self, recipe: Recipe, shape: TrainState, batch_size: int,
            row: Batch) -> Runner:
    check_divisible(batch_size, recipe.parts, jax.device_count())
    # In the order that pmap has.
    mesh = Mesh(np.asarray(jax.devices()).reshape(-1, 1, 1), AXES)
    mapped = numerics.fixed_settings()(jax.pmap(
        functools.partial(train_step, recipe, axis=AXIS), axis_name=AXIS,
        in_axes=(None, 0), out_axes=None, donate_argnums=overwritten()))

    def step(state: TrainState, batch: Batch) -> tuple[TrainState, Means]:
      new, sums = mapped(state, batch)
      # What pmap gives is of this process; a state is of all.
      return multihost_utils.host_local_array_to_global_array(
          new, mesh, P()), sums

    split = lambda x: x.reshape(jax.local_device_count(), -1, *x.shape[1:])
    return Runner(mesh, recipe, _copies(shape, mesh), step,
                  lambda rows: jax.tree.map(split, dict(rows)))


def _copies(shape: TrainState, mesh: Mesh) -> TrainState:
  """Shardings of a state that every device has in full."""
  return jax.tree.map(lambda _: NamedSharding(mesh, P()), shape)
