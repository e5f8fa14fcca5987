"""Many runs of one recipe as one program: states and batches lead with a
`member` axis, which lies over the devices."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
import optax
from jax.sharding import Mesh, NamedSharding, PartitionSpec as P

from bert_jax.objectives.base import Batch, Pairs
from bert_jax.training.step import (
    Recipe, TrainState, evaluation_step, train_step)

AXIS = "member"


def make_mesh(members: int,
              devices: Sequence[jax.Device] | None = None) -> Mesh:
  """A mesh of one axis: all devices, or as many as there are members."""
  devices = jax.devices() if devices is None else devices
  return Mesh(np.asarray(devices[:members]), (AXIS,))


def sharding(mesh: Mesh) -> NamedSharding:
  """Members over the devices."""
  return NamedSharding(mesh, P(AXIS))


def places(members: int, mesh: Mesh) -> np.ndarray:
  """The member at each place of the leading axis.

  The last one stands several times where the devices do not divide them.
  """
  return np.minimum(np.arange(-(-members // mesh.size) * mesh.size),
                    members - 1)


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


def on_members(
    recipe: Recipe, schedule: Callable[[jax.Array], optax.Schedule], mesh: Mesh
) -> Callable[[TrainState, jax.Array, Batch], tuple[TrainState, Pairs]]:
  """The step of all members: (states, peak rates, batches) to (states, pairs).

  Args:
    recipe: what the members share.
    schedule: makes the schedule of a peak learning rate, which is an array.
    mesh: of `make_mesh`.
  """

  def one(member: tuple[TrainState, jax.Array, Batch], _: Any):
    state, peak, batch = member
    return train_step(dataclasses.replace(recipe, schedule=schedule(peak)),
                      state, batch)

  step = each(one, mesh)
  return jax.jit(lambda states, peaks, batches: step(
      (states, peaks, batches), ()), donate_argnums=0)


def evaluation_on_members(recipe: Recipe, mesh: Mesh) -> Callable[
    [Any, Batch], tuple[Pairs, jax.Array]]:
  """Pairs and predictions of every member on one batch: (params, batch)."""

  def one(params: Any, batch: Batch):
    pairs, logits = evaluation_step(recipe, params, batch)
    return pairs, recipe.network.objective.predictions(logits)

  return jax.jit(each(one, mesh))
