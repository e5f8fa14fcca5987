"""Where arrays lie: the mesh, and tables from parameter paths to its axes."""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax
import numpy as np
from jax.experimental import mesh_utils
from jax.sharding import Mesh, NamedSharding, PartitionSpec as P

from bert_jax.config import UserError
from bert_jax.model.encoder import Embeddings, Layer, Table as Lookup
from bert_jax.objectives.network import Network
from bert_jax.objectives.objective import Batch
from bert_jax.training.paths import Table, look_up, path_of

AXES = ("data", "fsdp", "tensor")

# Rows go over the first two axes; `tensor` splits heads, feed-forward and
# vocabulary (Megatron-LM), `fsdp` the other dimension of the large matrices.
# Small tables are everywhere: the vectors looked up in a part of a table go
# over the network, and are more than such a table.
# The leading axis of what lies below encoder/layers is the layer.
LAYOUT: Table[P] = (
    (r"embeddings/word_embeddings/embedding$", P("tensor", "fsdp")),
    (r"embeddings/(position|token_type)_embeddings/embedding$", P()),
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
    (r"/lora_[ab]$", P()),
    # The heads of the tasks are small, and anyone may define one.
    (r"^((?!encoder/|mlm/).)*$", P()),
)


def make_mesh(data: int | None = None, fsdp: int = 1, tensor: int = 1,
              devices: Sequence[jax.Device] | None = None) -> Mesh:
  """A mesh of `data x fsdp x tensor` devices; no data: all that are left.

  Neighbours on a mesh axis are neighbours on a TPU's network. Where the
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
  said = " x ".join(f"{axis}={size}" for axis, size in zip(AXES, shape))
  if math.prod(shape) != len(devices):
    raise UserError(f"mesh {said} takes {math.prod(shape)} devices, but there "
                    f"are {len(devices)}.")
  count = slices(devices)
  if data % count:
    raise UserError(
        f"mesh {said}: the {len(devices)} devices lie in {count} slices, and "
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
    UserError: no rule matches a parameter; names it.
  """

  def place(keys: Any, leaf: Any) -> NamedSharding:
    if not leaf.shape:
      return NamedSharding(mesh, P())
    path = path_of(keys)
    path = path[path.find("encoder/"):] if "encoder/" in path else path
    try:
      spec = look_up(LAYOUT, path)
    except ValueError:
      raise UserError(
          f"No rule says how the parameter {path!r} lies on several devices. "
          "Those that a page defines are best made in its objective's "
          "`logits`, outside of the encoder (they are copied to every device "
          "then); for one inside of it, add a line to LAYOUT in "
          "bert_jax/training/partition.py.") from None
    return NamedSharding(mesh, P(*(
        axis if axis and size % mesh.shape[axis] == 0 else None
        for axis, size in zip(spec, leaf.shape))))

  return jax.tree_util.tree_map_with_path(place, tree)


@dataclasses.dataclass(frozen=True, eq=False)
class PlacedNetwork:
  """A network whose rows stay on the devices that have them in the batch.

  Left alone, the compiler may follow the parameters that fsdp splits instead,
  spread the width of the vectors over the devices and compute all rows on
  each. The network itself knows no mesh: its modules' results are placed from
  outside.
  """

  network: Network
  mesh: Mesh

  @property
  def objective(self) -> Any:
    return self.network.objective

  def init(self, *arguments: Any) -> Any:
    return self.network.init(*arguments)

  def apply(self, variables: Any, batch: Batch,
            keys_B: jax.Array | None = None) -> Any:
    with nn.intercept_methods(self._place):
      return self.network.apply(variables, batch, keys_B)

  def _place(self, method: Any, arguments: Any, options: Any,
             context: nn.module.InterceptorContext) -> Any:
    """Runs a method of a module and places what it gives."""
    keep = lambda x: self._constrain(x, ("data", "fsdp"))
    match context.module, context.method_name:
      case Lookup(), "__call__" if self._split(context.module.path):
        # Each device looks up its part of the width, for all rows that share
        # the parts; then the parts go to where the rows are. In one step the
        # compiler would copy everything everywhere.
        ids_BL, = arguments
        x_BLD = method(self._constrain(ids_BL, "data"))
        if x_BLD.shape[-1] % self.mesh.shape["fsdp"] == 0:
          x_BLD = self._constrain(x_BLD, "data", None, "fsdp")
        return keep(x_BLD)
      case Embeddings(), "__call__":
        return keep(method(*arguments, **options))
      case Layer(), "__call__" | "keep":
        return jax.tree.map(keep, method(*arguments, **options))
    return method(*arguments, **options)

  def _split(self, path: Sequence[str]) -> bool:
    """Whether fsdp splits the table there."""
    return "fsdp" in look_up(LAYOUT, "/".join((*path, "embedding")))

  def _constrain(self, x: jax.Array, *axes: Any) -> jax.Array:
    return jax.lax.with_sharding_constraint(x, NamedSharding(self.mesh,
                                                             P(*axes)))
