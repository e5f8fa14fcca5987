"""Members of a sweep as a layout of the training loop: states and batches lead
with a `member` axis, which lies over the devices."""

import dataclasses
import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec as P

from bert_jax.data.batches import loader
from bert_jax.experiment import Run
from bert_jax.objectives.base import Batch, Means
from bert_jax.parallel.layouts import Runner
from bert_jax.runs.evaluation import predict_batch, scores
from bert_jax.training import numerics
from bert_jax.training.step import TrainState, train_step

AXIS = "member"


def make_mesh(members: int,
              devices: Sequence[jax.Device] | None = None) -> Mesh:
  """A mesh of one axis: all devices, or as many as there are members."""
  devices = jax.devices() if devices is None else devices
  return Mesh(np.asarray(devices[:members]), (AXIS,))


def put(mesh: Mesh, members: Any) -> Any:
  """Arrays that lead with members, over the devices.

  The last member is repeated where the devices do not divide them.
  """

  def place(x: np.ndarray) -> jax.Array:
    places = np.arange(-(-len(x) // mesh.size) * mesh.size)
    return jax.device_put(x[np.minimum(places, len(x) - 1)],
                          NamedSharding(mesh, P(AXIS)))

  return jax.tree.map(place, members)


def stack(trees: Sequence[Any]) -> Any:
  """A tree for each member as one, on the host."""
  return jax.tree.map(lambda *leaves: np.stack(leaves), *trees)


def each(function: Callable[[Any, Any], Any],
         mesh: Mesh) -> Callable[[Any, Any], Any]:
  """`function(member, shared)` for all members; `shared` is the same for each.

  Nothing goes between devices. Of several members on one device, a CPU takes
  one after another: it has no use for larger products, and side by side they
  crowd out its caches. Other devices compute them side by side.
  """
  in_turn = mesh.devices.flat[0].platform == "cpu"

  def local(members: Any, shared: Any) -> Any:
    one = lambda member: function(member, shared)
    return jax.lax.map(one, members) if in_turn else jax.vmap(one)(members)

  return jax.shard_map(local, mesh=mesh, in_specs=(P(AXIS), P()),
                       out_specs=P(AXIS), check_vma=False)


class MemberProgram:
  """The step and the evaluation of members that share a recipe; each is
  compiled once for all groups of a size."""

  def __init__(self, run: Run, mesh: Mesh):
    self._mesh, recipe = mesh, run.recipe
    schedule, steps = run.experiment.schedule, run.experiment.steps

    def step(member: tuple[TrainState, Batch, jax.Array],
             _: Any) -> tuple[TrainState, Means]:
      state, batch, rate = member
      own = dataclasses.replace(schedule, learning_rate=rate).build(steps)
      return train_step(dataclasses.replace(recipe, schedule=own), state,
                        batch)

    self.step = numerics.jit(lambda states, batches, rates: each(step, mesh)(
        (states, batches, rates), ()), donate_argnums=0)
    self._evaluate = numerics.jit(each(functools.partial(predict_batch, recipe),
                                  mesh))

  def runner(self, run: Run, rates: Sequence[float]) -> Runner:
    """Of a group, each member with its learning rate."""
    rates = put(self._mesh, np.asarray(rates, np.float32))
    return Runner(
        self._mesh, run.recipe, NamedSharding(self._mesh, P(AXIS)),
        step=lambda states, batches: self.step(states, batches, rates),
        put=functools.partial(put, self._mesh))

  def evaluate(self, params: Any, run: Run,
               members: int) -> list[Mapping[str, float]]:
    """The scores of each member on the held-out data."""
    prepared = run.prepared
    outputs = jax.device_get([
        self._evaluate(params, batch) for batch in loader.evaluation_batches(
            prepared.evaluation, run.experiment.batch_size)])
    return [scores(jax.tree.map(lambda x: x[i], outputs),
                   prepared.evaluation_set) for i in range(members)]


def batches(run: Run, seeds: Sequence[int],
            start: int) -> Iterator[Mapping[str, np.ndarray]]:
  """Of every step after `start` the batch of each seed, stacked."""
  experiment = run.experiment
  # Batches depend on the seed alone; members may share it.
  unique = list(dict.fromkeys(seeds))
  of_seeds = [loader.batches(
      run.with_seed(seed).prepared.train, experiment.batch_size, start,
      experiment.steps) for seed in unique]
  for step_batches in zip(*of_seeds, strict=True):
    yield stack([step_batches[unique.index(seed)] for seed in seeds])
