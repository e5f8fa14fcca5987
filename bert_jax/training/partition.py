"""Where arrays lie: the mesh, and tables from parameter paths to its axes."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec as P

from bert_jax.config import UserError
from bert_jax.training.paths import Table, look_up, path_of

AXES = ("data", "fsdp", "tensor")

# Rows go over the first two axes; `tensor` splits heads, feed-forward and
# vocabulary (Megatron-LM), `fsdp` the other dimension of the large matrices.
# The leading axis of what lies below encoder/layers is the layer.
LAYOUT: Table[P] = (
    (r"embeddings/word_embeddings/embedding$", P("tensor", "fsdp")),
    (r"embeddings/(position|token_type)_embeddings/embedding$", P(None, "fsdp")),
    (r"attention/(query|key|value)/kernel$", P(None, "fsdp", "tensor", None)),
    (r"attention/(query|key|value)/bias$", P(None, "tensor", None)),
    (r"attention/output/kernel$", P(None, "tensor", None, "fsdp")),
    (r"layers/intermediate/kernel$", P(None, "fsdp", "tensor")),
    (r"layers/intermediate/bias$", P(None, "tensor")),
    (r"layers/output/kernel$", P(None, "tensor", "fsdp")),
    (r"mlm/bias$", P("tensor")),
    (r"norm/(scale|bias)$|(attention|layers)/output/bias$", P()),
    (r"(pooler|transform)/bias$", P()),
    (r"encoder/pooler/kernel$|mlm/transform/kernel$", P("fsdp", None)),
    # The heads of the tasks are small, and anyone may define one.
    (r"^((?!encoder/|mlm/).)*$", P()),
)


def make_mesh(data: int = -1, fsdp: int = 1, tensor: int = 1,
              devices: Sequence[jax.Device] | None = None) -> Mesh:
  """A mesh of `data x fsdp x tensor` devices; one -1 takes what is left.

  Raises:
    UserError: the product is not the number of devices.
  """
  devices = jax.devices() if devices is None else devices
  shape = [data, fsdp, tensor]
  if -1 in shape:
    shape[shape.index(-1)] = max(1, len(devices) // -math.prod(shape))
  if math.prod(shape) != len(devices):
    raise UserError(
        f"mesh {' x '.join(f'{a}={n}' for a, n in zip(AXES, shape))} takes "
        f"{math.prod(shape)} devices, but there are {len(devices)}.")
  return Mesh(np.asarray(devices).reshape(shape), AXES)


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
  """Arrays that every process has whole, as global ones.

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
  """Global arrays, whole and on the host of every process."""
  if jax.process_count() > 1:
    everywhere = NamedSharding(mesh, P())
    tree = jax.jit(lambda tree: tree, out_shardings=everywhere)(tree)
  return jax.device_get(tree)


def row_devices(mesh: Mesh) -> int:
  """How many parts the rows of a batch are split into."""
  return mesh.shape["data"] * mesh.shape["fsdp"]


def shardings(tree: Any, mesh: Mesh) -> Any:
  """A NamedSharding for every leaf of a state (or of its parameters).

  An optimizer's moments lie as the parameters whose paths theirs end in;
  scalars are everywhere. A dimension that an axis does not divide stays whole.

  Raises:
    ValueError: no rule matches a parameter; names it.
  """

  def place(keys: Any, leaf: Any) -> NamedSharding:
    if not leaf.shape:
      return NamedSharding(mesh, P())
    path = path_of(keys)
    path = path[path.find("encoder/"):] if "encoder/" in path else path
    spec = look_up(LAYOUT, path)
    return NamedSharding(mesh, P(*(
        axis if axis and size % mesh.shape[axis] == 0 else None
        for axis, size in zip(spec, leaf.shape))))

  return jax.tree_util.tree_map_with_path(place, tree)
