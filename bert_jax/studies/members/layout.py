"""Members of a sweep as a layout of the training loop: states and batches lead
with a `member` axis, which lies over the devices."""

import copy
import functools
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec as P

from bert_jax.data.batches import loader
from bert_jax.experiment import Run, recipe
from bert_jax.objectives.base import Batch, Means
from bert_jax.parallel import cost
from bert_jax.parallel.cost import Workload
from bert_jax.parallel.layouts import Runner, memory_limit, overwritten
from bert_jax.runs.evaluation import Outputs, predict_batch, scores
from bert_jax.training import numerics
from bert_jax.training.step import Recipe, TrainState, train_step

AXIS = "member"


def make_mesh(members: int,
              devices: Sequence[jax.Device] | None = None) -> Mesh:
  """A mesh of one axis: all devices, or as many as there are members."""
  devices = jax.devices() if devices is None else devices
  return Mesh(np.asarray(devices[:members]), (AXIS,))


def room(work: Workload, devices: Sequence[jax.Device]) -> int:
  """How many members of a step's work the devices hold at once, at least one
  each. A CPU computes them one after another in any case."""
  limit = memory_limit(devices)
  if limit is None:
    return len(devices)
  return len(devices) * max(1, limit // cost.price(work, (1, 1, 1)).memory)


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


def with_numbers(options: Any, numbers: Mapping[str, Any]) -> Any:
  """A tree of dataclasses with these options, by their dotted keys.

  Nothing is checked: the numbers may be traced.
  """
  for key, number in numbers.items():
    options = _with_number(options, key.split("."), number)
  return options


def _with_number(options: Any, path: Sequence[str], number: Any) -> Any:
  name, *rest = path
  changed = copy.copy(options)
  object.__setattr__(changed, name, _with_number(
      getattr(options, name), rest, number) if rest else number)
  return changed


class MemberProgram:
  """The step and the evaluation of members that differ in seed and numbers;
  each is compiled once for all groups of a size."""

  def __init__(self, run: Run, mesh: Mesh):
    self._mesh = mesh

    def own(numbers: Mapping[str, jax.Array]) -> Recipe:
      return recipe(with_numbers(run.experiment, numbers),
                    run.recipe.vocabulary)

    def step(member: tuple[TrainState, Batch, Mapping[str, jax.Array]],
             _: Any) -> tuple[TrainState, Means]:
      state, batch, numbers = member
      return train_step(own(numbers), state, batch)

    def predict(member: tuple[Any, Mapping[str, jax.Array]],
                batch: Batch) -> Outputs:
      params, numbers = member
      return predict_batch(own(numbers), params, batch)

    self.step = numerics.jit(lambda states, batches, numbers: each(step, mesh)(
        (states, batches, numbers), ()), donate_argnums=overwritten())
    self._evaluate = numerics.jit(lambda params, numbers, batch: each(
        predict, mesh)((params, numbers), batch))

  def runner(self, run: Run, numbers: Sequence[Mapping[str, float]]) -> Runner:
    """Of a group, each member with its numbers."""
    numbers = self._put(numbers)
    return Runner(
        self._mesh, run.recipe, NamedSharding(self._mesh, P(AXIS)),
        step=lambda states, batches: self.step(states, batches, numbers),
        put=functools.partial(put, self._mesh))

  def evaluate(self, params: Any, run: Run,
               numbers: Sequence[Mapping[str, float]]
               ) -> list[Mapping[str, float]]:
    """The scores of each member on the held-out data."""
    prepared, placed = run.prepared, self._put(numbers)
    batches = itertools.islice(loader.evaluation_batches(
        prepared.evaluation, run.experiment.batch_size),
                               run.experiment.evaluation_batches)
    outputs = jax.device_get([
        self._evaluate(params, placed, batch) for batch in batches])
    labeled = (prepared.evaluation_set
               if run.experiment.evaluation_batches is None else None)
    return [scores(jax.tree.map(lambda x: x[i], outputs), labeled)
            for i in range(len(numbers))]

  def _put(self, numbers: Sequence[Mapping[str, float]]) -> Any:
    return put(self._mesh, stack([
        {key: np.float32(number) for key, number in own.items()}
        for own in numbers]))


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
