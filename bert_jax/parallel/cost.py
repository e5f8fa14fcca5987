"""What a layout costs before it is paid for: bytes a device, bytes sent.

Shapes and numbers in, numbers out; nothing here asks for a device.
"""

import collections
import dataclasses
import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AbstractMesh

from bert_jax.objectives.base import Batch, part_totals
from bert_jax.parallel import rules
from bert_jax.parallel.mesh import AXES
from bert_jax.training import numerics
from bert_jax.training.flops import count_flops
from bert_jax.training.param_paths import leaves
from bert_jax.training.step import (
    Recipe, TrainState, row_keys, train_step)


@dataclasses.dataclass(frozen=True)
class Plan:
  """A layout and its price.

  Attributes:
    data, fsdp, tensor: devices along each axis.
    parameters, optimizer, gradients, activations: bytes that a device holds.
    traffic: bytes that a device sends in a step.
  """

  data: int
  fsdp: int
  tensor: int
  parameters: int
  optimizer: int
  gradients: int
  activations: int
  traffic: int

  @property
  def shape(self) -> tuple[int, int, int]:
    return self.data, self.fsdp, self.tensor

  @property
  def memory(self) -> int:
    return (self.parameters + self.optimizer + self.gradients
            + self.activations)

  def fits(self, limit: int | None) -> bool:
    """Whether it is within `limit` bytes a device; None: unknown, so yes."""
    return limit is None or self.memory <= limit


@dataclasses.dataclass(frozen=True, eq=False)
class Workload:
  """What a step does, however it is laid out.

  Attributes:
    state: shapes and types of the state.
    row: a batch of any number of rows, arrays or shapes.
    batch_size: rows of the global batch.
    device: one of those that compute; None: those that are here.
  """

  recipe: Recipe
  state: TrainState
  row: Batch
  batch_size: int
  device: jax.Device | None = None

  def in_parts(self, parts: int) -> "Workload":
    """The same step with its batch in this number of microbatches."""
    other = dataclasses.replace(self, recipe=dataclasses.replace(
        self.recipe, microbatches=parts))
    # Traced once: it does not depend on the number of microbatches.
    vars(other).update((name, getattr(self, name)) for name in (
        "trained", "forward", "saved"))
    return other

  def on(self, device: jax.Device) -> "Workload":
    """The same step on such devices, which need not be here: what is kept for
    the backward pass differs between platforms."""
    return self if device == self.device else dataclasses.replace(
        self, device=device)

  @functools.cached_property
  def trained(self) -> Any:
    """Shapes and types of the parameters that have gradients."""
    return numerics.eval_shape(self.recipe.rates.trained, self.state.params)

  @functools.cached_property
  def flops(self) -> int:
    """Multiplications and additions of a step's matrix products, padding and
    the optimizer's own included."""
    batch = self.rows(self.batch_size)
    return count_flops(functools.partial(train_step, self.recipe), self.state,
                       batch)

  @property
  def flops_per_token(self) -> float:
    """The same for each position of the batch, also those of padding."""
    length = np.shape(self.row["example_ids"])[-1]
    return self.flops / (self.batch_size * length)

  @functools.cached_property
  def forward(self) -> tuple[dict[str, int], dict[int, int]]:
    """How often the loss takes each parameter, by path, and how many logits
    vectors of each size a row has."""
    params, batch, keys_B = self._arguments(1)
    jaxpr, (_, outputs) = numerics.fixed_settings()(
        jax.make_jaxpr(self._loss, return_shape=True))(params, batch, keys_B)
    taken = collections.Counter(id(v) for equation in jaxpr.jaxpr.eqns
                                for v in equation.invars)
    uses = {path: max(1, taken[id(v)]) for path, v
            in zip(leaves(params), jaxpr.jaxpr.invars)}
    vectors: dict[int, int] = collections.Counter()
    for leaf in jax.tree.leaves(outputs):
      if leaf.ndim > 1:
        vectors[leaf.shape[-1]] += math.prod(leaf.shape[:-1])
    return uses, vectors

  @functools.cached_property
  def saved(self) -> list[tuple[int, tuple[int, ...]]]:
    """What the backward pass keeps of a row: bytes, and the dimensions behind
    the one that counts the rows.

    The residuals of `jax.vjp`, of whatever network: what depends on the
    number of rows. This is before the compiler fuses and recomputes, so the
    machine needs somewhat less.
    """
    one, two = (jax.tree.leaves(numerics.eval_shape(
        self._residuals, self.trained, *self._arguments(rows)))
                for rows in (2, 3))
    sizes = []
    for a, b in zip(one, two, strict=True):
      differing = [i for i, (m, n) in enumerate(zip(a.shape, b.shape))
                   if m != n]
      if differing:
        sizes.append(((b.size - a.size) * b.dtype.itemsize,
                      b.shape[differing[0] + 1:]))
    return sizes

  def _residuals(self, trained: Any, params: Any, *rest: Any) -> Any:
    join = self.recipe.rates.join
    return jax.vjp(lambda part: self._loss(join(params, part), *rest), trained,
                   has_aux=True)[1]

  def _loss(self, params: Any, batch: Batch, keys_B: jax.Array) -> Any:
    network = self.recipe.network
    if self.device is not None:
      network = rules.on_device(network, self.device)
    outputs = network.apply(params, batch, keys_B)
    totals = part_totals(self.recipe.objective, outputs, batch)
    return sum(totals.values()), outputs

  def _arguments(self, rows: int) -> tuple[Any, Batch, jax.Array]:
    """Shapes of what `_loss` takes."""
    batch = self.rows(rows)

    def corrupted(batch: Batch) -> tuple[Batch, jax.Array]:
      keys_B = row_keys(numerics.key(0), batch["row"])
      return self.recipe.inputs(batch, keys_B, np.int32(0)), keys_B

    return self.state.params, *numerics.eval_shape(corrupted, batch)

  def rows(self, rows: int) -> Batch:
    """Shapes of a batch of `rows` rows."""
    return {k: jax.ShapeDtypeStruct((rows, *np.shape(x)[1:]), x.dtype)
            for k, x in self.row.items()}


def price(work: Workload, shape: tuple[int, int, int]) -> Plan:
  """What a layout holds and sends."""
  mesh = AbstractMesh(shape, AXES)
  data, fsdp, tensor = shape
  table = rules.table_of(work.recipe)
  placed = rules.shardings(work.state, mesh, table)
  parameters = _bytes(work.state.params, placed.params)
  rows = work.batch_size // (work.recipe.parts * data * fsdp)
  # A dimension that the tensor axis splits in a parameter is split in what is
  # computed with it: heads, feed-forward width, vocabulary.
  split = {size for leaf, sharding in zip(jax.tree.leaves(work.state.params),
                                          jax.tree.leaves(placed.params))
           for size, axis in zip(leaf.shape, sharding.spec)
           if axis == "tensor"}
  activations = rows * sum(
      size // (tensor if split & set(dimensions) else 1)
      for size, dimensions in work.saved)
  gradients = _bytes(work.trained, rules.shardings(
      work.trained, mesh, table))
  return Plan(
      *shape, parameters, _bytes(work.state.opt_state, placed.opt_state),
      # The sum over microbatches, and the part that is added to it.
      gradients * (1 if work.recipe.parts == 1 else 2),
      activations, round(traffic(work, shape)))


def _bytes(tree: Any, placed: Any) -> int:
  """The bytes that a device holds of a tree."""
  return sum(math.prod(sharding.shard_shape(leaf.shape)) * leaf.dtype.itemsize
             for leaf, sharding in zip(jax.tree.leaves(tree),
                                       jax.tree.leaves(placed)))


def traffic(work: Workload, shape: tuple[int, int, int]) -> float:
  """Bytes that a device sends in a step, by rings.

  Per microbatch and parameter, as XLA partitions this step:
  * gradients, but of what is frozen: reduce-scatter over fsdp where the
    parameter is split by it, and all-reduce over what is left of data x fsdp;
  * products with what fsdp splits: gathered, forward and backward;
  * products with what tensor splits (Megatron-LM): an all-reduce of the
    tokens' vectors, of a product's output forward or of its input's gradient
    backward (queries, keys and values each their own);
  * tables: looked up where their parts lie; the vectors go over fsdp there and
    back, over tensor they are summed.
  A parameter that is taken twice, as the table that is the decoder too, pays
  for each; the decoder's gradient is an all-reduce over fsdp, too. Matrices
  travel in the network's `dtype`. Not counted: the few bytes of losses and
  metrics.
  """
  data, fsdp, tensor = shape
  axes = dict(zip(AXES, shape))
  uses, vectors = work.forward
  computed = jnp.dtype(work.recipe.model.dtype).itemsize
  tokens = (work.batch_size // (work.recipe.parts * data * fsdp)
            * work.row["example_ids"].shape[1])
  total, trained = 0.0, leaves(work.trained)
  table_of_rules = rules.table_of(work.recipe)
  for path, leaf in leaves(work.state.params).items():
    differentiated = path in trained
    split_axes = {axis: size for axis, size in zip(
        rules.spec_of(path, table_of_rules), leaf.shape)
        if axis and size % axes[axis] == 0}
    over = {axis: axes[axis] if axis in split_axes else 1
            for axis in ("fsdp", "tensor")}
    width = split_axes["fsdp"] if "fsdp" in split_axes else leaf.shape[-1]
    table = path.endswith("embedding")
    products = uses[path] - table
    matrix = path.endswith(("kernel", "embedding"))
    elements = leaf.size // over["tensor"]
    # Products.
    size = elements * (computed if matrix else leaf.dtype.itemsize)
    total += products * (
        2 * _part(over["fsdp"]) * size
        + differentiated * _reduce(size, data, fsdp,
                                   1 if table else over["fsdp"]))
    if path.endswith("kernel"):
      total += leaf.shape[0] * _all_reduce(
          tokens * width * computed, over["tensor"])
    if table:
      sent = tokens * width * leaf.dtype.itemsize
      total += (1 + differentiated) * _part(over["fsdp"]) * sent
      total += differentiated * _all_reduce(
          elements * leaf.dtype.itemsize / over["fsdp"],
          data * fsdp // over["fsdp"])
      predicted = tokens // work.row["example_ids"].shape[1] * vectors.get(
          leaf.shape[0], 0)
      total += _all_reduce(sent, over["tensor"]) + products * _all_reduce(
          predicted * width * computed, over["tensor"])
  return work.recipe.parts * total


def _part(devices: int) -> float:
  """What a device sends of an array that `count` gather or scatter."""
  return (devices - 1) / devices


def _all_reduce(size: float, devices: int) -> float:
  return 2 * _part(devices) * size


def _reduce(size: float, data: int, fsdp: int, split: int) -> float:
  """Summing gradients over data and fsdp, where fsdp may split them."""
  if split == 1:
    return _all_reduce(size, data * fsdp)
  return _part(split) * size + _all_reduce(size / split, data)
