"""From parameter paths to axes of the mesh."""

import dataclasses
import math
import re
from collections.abc import Callable, Iterator
from typing import Any

import jax
from jax.sharding import Mesh, NamedSharding, PartitionSpec as P

from bert_jax.objectives.network import (
    Arrays, Dimensions, Network, Placement, with_placement)
from bert_jax.training.param_paths import Rules, leaves, path_of
from bert_jax.training.step import Recipe

# Rows go over the first two axes; `tensor` splits heads, feed-forward and
# vocabulary (Megatron-LM), `fsdp` the other dimension of the large matrices.
# Small tables are everywhere: the vectors looked up in a part of a table go
# over the network, and are more than such a table.
# The leading axis of what lies below `layers` is the layer.
_LAYERS = r"/layers/(block_\w+/)?"
SHARDING_RULES: Rules[P] = (
    (r"embeddings/word_embeddings/embedding$", P("tensor", "fsdp")),
    (r"embeddings/(position|token_type)_embeddings/embedding$", P()),
    (r"embeddings/((cls|mask)_embedding|value_projection)/", P()),
    (r"attention/(query|key|value)/kernel$", P(None, "fsdp", "tensor", None)),
    (r"attention/(query|key|value)/bias$", P(None, "tensor", None)),
    (r"attention/output/kernel$", P(None, "tensor", None, "fsdp")),
    (_LAYERS + "(intermediate|gate)/kernel$", P(None, "fsdp", "tensor")),
    (_LAYERS + "(intermediate|gate)/bias$", P(None, "tensor")),
    (_LAYERS + "output/kernel$", P(None, "tensor", "fsdp")),
    (r"/expert_intermediate/kernel$", P(None, "tensor", "fsdp", None)),
    (r"/expert_output/kernel$", P(None, "tensor", None, "fsdp")),
    (r"/(router|projection|position_bias)/", P()),
    (r"^mlm/bias$", P("tensor")),
    (r"norm/(scale|bias)$|(attention|layers|_of_\d+)/output/bias$", P()),
    (r"(pooler|transform)/bias$", P()),
    (r"(pooler|transform)/kernel$", P("fsdp", None)),
    (r"/lora_[ab]$", P()),
    # The heads of the tasks are small, and anyone may define one.
    (r"^(?!mlm/bias$)[^/]+/[^/]+$", P()),
)


def table_of(recipe: Recipe) -> Rules[P]:
  """The rules of a recipe: those that its choices bring, then the common ones.

  A member of a family may have `sharding`, pairs of a pattern and axes.
  """
  brought = _brought(recipe.objective)
  for model in recipe.networks.values():
    brought = (*brought, *_brought(model))
  return (*((pattern, P(*axes)) for pattern, axes in brought), *SHARDING_RULES)


def _brought(options: Any) -> Rules[Any]:
  """The rules of a choice and of those among its options."""
  rules = tuple(getattr(options, "sharding", ()))
  for field in dataclasses.fields(options):
    value = getattr(options, field.name)
    if dataclasses.is_dataclass(value):
      rules += _brought(value)
  return rules


def spec_of(path: str, table: Rules[P] = SHARDING_RULES) -> P:
  """The axes of a parameter; what no rule matches is on every device."""
  return next((spec for pattern, spec in table if re.search(pattern, path)),
              P())


def without_rule(params: Any, table: Rules[P] = SHARDING_RULES) -> list[str]:
  """The paths of parameters that no rule matches."""
  return [path for path in leaves(params)
          if not any(re.search(pattern, path) for pattern, _ in table)]


def shardings(tree: Any, mesh: Mesh, table: Rules[P] = SHARDING_RULES) -> Any:
  """A NamedSharding for every leaf of a state (or of its parameters).

  An optimizer's moments lie as the parameters whose paths theirs end in; what
  has another number of dimensions, as a count, is everywhere. A dimension that
  an axis does not divide is not split.
  """
  params = leaves(getattr(tree, "params", tree))

  def place(keys: Any, leaf: Any) -> NamedSharding:
    path = next((p for p in _suffixes(path_of(keys)) if p in params), None)
    spec = P()
    if path is not None and len(leaf.shape) == len(params[path].shape):
      spec = spec_of(path, table)
    return NamedSharding(mesh, P(*(
        axis if axis and size % mesh.shape[axis] == 0 else None
        for axis, size in zip(spec, leaf.shape))))

  return jax.tree_util.tree_map_with_path(place, tree)


def _suffixes(path: str) -> Iterator[str]:
  """The path, then without its first part, and so on."""
  parts = path.split("/")
  return ("/".join(parts[i:]) for i in range(len(parts)))


def place(network: Network, mesh: Mesh) -> Network:
  """The network with its rows on the devices that have them in the batch.

  Left alone, the compiler may follow the parameters that fsdp splits instead,
  spread the width of the vectors over the devices and compute all rows on
  each. The network itself knows no mesh: it names places (model.placement),
  and what happens there is decided here.
  """

  def constraint(x: jax.Array, name: str) -> jax.Array:
    # A device looks up its part of the width, for all rows that share the
    # parts; then the parts go to where the rows are. In one step the compiler
    # would copy everything everywhere.
    spec = {"rows": P(("data", "fsdp")), "looked_up_ids": P("data"),
            "looked_up": P("data", None, "fsdp")}[name]
    if name == "looked_up" and x.shape[-1] % mesh.shape["fsdp"]:
      return x
    return jax.lax.with_sharding_constraint(x, NamedSharding(mesh, spec))

  def split(function: Callable[[Arrays], jax.Array], arrays: Arrays,
            dimensions: Dimensions, result: str) -> jax.Array:
    rows, heads = ({x.shape[dimensions[name].index(letter)]
                    for name, x in arrays.items() if letter in dimensions[name]}
                   for letter in "BH")
    axes = {"B": _dividing(mesh, ("data", "fsdp"), rows),
            "H": _dividing(mesh, ("tensor",), heads)}
    spec_of = lambda letters: P(*(axes.get(letter) for letter in letters))
    return jax.shard_map(
        function, mesh=mesh, check_vma=False, out_specs=spec_of(result),
        in_specs=({name: spec_of(dimensions[name]) for name in arrays},))(
            dict(arrays))

  return with_placement(network, Placement(constraint, split,
                                           mesh.devices.flat[0]))


def on_device(network: Network, device: jax.Device) -> Network:
  """The network as one such device computes it, which need not be here."""
  return with_placement(network, Placement(
      lambda x, name: x, lambda function, arrays, *_: function(arrays), device))


def _dividing(mesh: Mesh, axes: tuple[str, ...],
              sizes: set[int]) -> tuple[str, ...] | None:
  """The axes, if their devices divide all sizes."""
  devices = math.prod(mesh.shape[axis] for axis in axes)
  return axes if all(size % devices == 0 for size in sizes) else None
