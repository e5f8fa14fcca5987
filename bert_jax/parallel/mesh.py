"""Where arrays lie: the mesh, and tables from parameter paths to its axes."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jax.experimental import mesh_utils
from jax.sharding import Mesh, NamedSharding, PartitionSpec as P

from bert_jax.config import UserError
from bert_jax.training import numerics

AXES = ("data", "fsdp", "tensor")


def make_mesh(data: int | None = None, fsdp: int = 1, tensor: int = 1,
              devices: Sequence[jax.Device] | None = None) -> Mesh:
  """A mesh of `data x fsdp x tensor` devices; no data: all that are left.

  Neighbors on a mesh axis are neighbors on a TPU's network. Where the
  devices lie in several slices, the data axis goes over the slow network
  between them, and only that.

  Raises:
    UserError: the product is not the number of devices, or the slices do not
      divide `data`.
  """
  devices = jax.devices() if devices is None else devices
  if data is None:
    data = max(1, len(devices) // (fsdp * tensor))
  shape = (data, fsdp, tensor)
  given = " x ".join(f"{axis}={size}" for axis, size in zip(AXES, shape))
  if math.prod(shape) != len(devices):
    raise UserError(f"mesh {given} takes {math.prod(shape)} devices, but there "
                    f"are {len(devices)}.")
  count = slices(devices)
  if data % count:
    raise UserError(
        f"mesh {given}: the {len(devices)} devices lie in {count} slices, and "
        "only the data axis may go over the network between them: data must "
        f"be a multiple of {count}.")
  if count == 1:
    laid = mesh_utils.create_device_mesh(shape, devices,
                                         allow_split_physical_axes=True)
  else:
    laid = mesh_utils.create_hybrid_device_mesh(
        (data // count, fsdp, tensor), (count, 1, 1), devices,
        allow_split_physical_axes=True)
  return Mesh(laid, AXES)


def slices(devices: Sequence[jax.Device]) -> int:
  """How many groups of devices only a slow network joins."""
  return len({getattr(device, "slice_index", 0) for device in devices})


def batch_sharding(mesh: Mesh) -> NamedSharding:
  """Rows over the data and fsdp axes."""
  return NamedSharding(mesh, P(("data", "fsdp")))


def local_rows(mesh: Mesh, batch_size: int) -> np.ndarray:
  """Positions of the global batch that this process's devices hold, ascending.

  Two processes hold the same ones where the tensor axis goes over both.
  """
  parts = batch_sharding(mesh).addressable_devices_indices_map((batch_size,))
  return np.unique(np.concatenate([
      np.arange(batch_size)[part] for part in parts.values()]))


def share(mesh: Mesh, batch: Mapping[str, np.ndarray]
          ) -> dict[str, jax.Array]:
  """The global batch, from this process's `local_rows` of it."""
  sharding, parts = batch_sharding(mesh), row_devices(mesh)
  local = local_rows(mesh, parts)  # as if each part were one row

  def spread(rows: np.ndarray) -> jax.Array:
    size = len(rows) // len(local)

    def part(index: tuple[slice, ...]) -> np.ndarray:
      start = size * np.searchsorted(local, (index[0].start or 0) // size)
      return rows[start:start + size]

    return jax.make_array_from_callback((parts * size, *rows.shape[1:]),
                                        sharding, part)

  return {key: spread(rows) for key, rows in batch.items()}


def place(tree: Any, placed: Any) -> Any:
  """Arrays that every process has in full, as global ones.

  Args:
    tree: arrays on the host.
    placed: a sharding for each, or one for all.
  """
  if isinstance(placed, NamedSharding):
    placed = jax.tree.map(lambda _: placed, tree)
  return jax.tree.map(
      lambda x, sharding: jax.make_array_from_callback(
          np.shape(x), sharding, lambda index: np.asarray(x)[index]),
      tree, placed)


def collect(tree: Any, mesh: Mesh) -> Any:
  """Global arrays, in full and on the host of every process."""
  if jax.process_count() > 1:
    everywhere = NamedSharding(mesh, P())
    tree = numerics.jit(lambda tree: tree, out_shardings=everywhere)(tree)
  return jax.device_get(tree)


def row_devices(mesh: Mesh) -> int:
  """How many parts the rows of a batch are split into."""
  return mesh.shape["data"] * mesh.shape["fsdp"]
