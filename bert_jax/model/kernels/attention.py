"""Flash attention as a function of arrays, with its derivative."""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

from bert_jax.model import random_bits
from bert_jax.model.kernels import diagonals, flash, program
from bert_jax.model.kernels.diagonals import LANES
from bert_jax.model.kernels.program import Sizes

# Widths of heads that fill a register's lanes; others are padded to the next.
_WIDTHS = 32, 64, 128
# Queries or keys that are taken at once, those preferred first.
_BLOCKS = 512, 384, 256, 128
# Bytes of a TPU's vector memory that a program may take: half of v5p's.
_MEMORY = 64 * 2**20

Arrays = Mapping[str, jax.Array]


def flash_attention(arrays: Arrays, interpret: bool) -> jax.Array:
  """The mixed values, (B, L, H, K).

  Args:
    arrays: query, key, value, (B, L, H, K), queries scaled; example_ids and,
      if it is there, order, (B, L), and reach, (B), as model.visibility.visible
      has them; bias, (H, 2L - 1) float32, if there is one, as Context has it;
      heads, (H), the number of each; and if weights are dropped, keys, two
      int32 words for each row, (B, 2), and rate, the probability of a zero.
    interpret: whether to run without a TPU, slowly.
  """
  query_BLHK = arrays["query"]
  B, L, H, K = query_BLHK.shape
  sizes = _sizes(L, H, K, arrays)
  length, heads = sizes.block * sizes.blocks, _round_up(H, sizes.group)

  def flat(x_BLHK: jax.Array) -> jax.Array:
    x_BLHK = _pad(x_BLHK, (B, length, heads, sizes.width))
    return x_BLHK.reshape(B, length, -1)

  inputs = {name: flat(arrays[name]) for name in ("query", "key", "value")}
  for name in ("example_ids", "order"):
    if name in arrays:
      inputs[name] = _pad(arrays[name], (B, length))
  if "bias" in arrays:
    inputs["bias"] = _by_program(sizes, arrays["bias"], (B, heads, length))
  inputs["scalars"] = _scalars(sizes, inputs, arrays)
  options = _Options(sizes, interpret, 2 * L * L * H * K)
  mixed = _attend(options, inputs)
  return mixed.reshape(B, length, heads, -1)[:, :L, :H, :K]


@dataclasses.dataclass(frozen=True)
class _Options:
  """What a call is compiled for; `product` is the FLOPs of a row's queries
  times its keys."""

  sizes: Sizes
  interpret: bool
  product: int


def _sizes(length: int, heads: int, width: int, arrays: Arrays) -> Sizes:
  width = min((w for w in _WIDTHS if w >= width),
              default=_round_up(width, LANES))
  group = max(1, LANES // width)
  groups = _round_up(heads, group) // group
  # The block that pads least; a row that fits in one is one.
  block = (_round_up(length, LANES) if length <= _BLOCKS[0]
           else min(_BLOCKS, key=lambda block: _round_up(length, block)))
  blocks = _round_up(length, block) // block
  # Short rows have little work for each head.
  together = max(n for n in range(1, groups + 1)
                 if groups % n == 0 and (n == 1 or n * block <= 768))
  return Sizes(width, group, together, groups // together, block, blocks,
               "keys" in arrays, "reach" in arrays)


def _by_program(sizes: Sizes, bias_HA: jax.Array,
                padded: tuple[int, int, int]) -> jax.Array:
  """Biases of rows as programs have them, (B, programs, heads, 2 * length): by
  the distance of a query from its key, as scores are keys by queries, with 0 in
  the middle."""
  rows, heads, length = padded
  before = length - bias_HA.shape[1] // 2
  x = jnp.pad(jnp.flip(bias_HA, 1), [
      (0, heads - bias_HA.shape[0]),
      (before, 2 * length - before - bias_HA.shape[1])])
  x = x.reshape(1, sizes.programs, -1, 2 * length)
  return jnp.broadcast_to(x, (rows, *x.shape[1:]))


def _scalars(sizes: Sizes, inputs: Arrays, arrays: Arrays) -> jax.Array:
  """What each program reads of its row, (B, sizes.scalars) int32."""
  B = inputs["query"].shape[0]
  everywhere = lambda x: jnp.broadcast_to(jnp.asarray(x, jnp.int32), (B,))
  common = {
      program.KEPT: random_bits.bound(1 - arrays.get("rate", 0.0)),
      program.HEAD: arrays["heads"][0],
      program.REACH: arrays.get("reach", 0),
      program.KEY: arrays["keys"][:, 0] if sizes.dropped else 0,
      program.KEY + 1: arrays["keys"][:, 1] if sizes.dropped else 0}
  columns = [everywhere(common[i]) for i in range(program.RANGES)]
  scalars = jnp.stack(columns, 1)
  if sizes.blocks == 1:
    return scalars
  return jnp.concatenate([scalars, _ranges(sizes, inputs, arrays)], 1)


def _ranges(sizes: Sizes, inputs: Arrays, arrays: Arrays) -> jax.Array:
  """Where the blocks begin and end that each block of queries sees, then those
  that see each block of keys, (B, 4 * blocks)."""
  parts = lambda x: x.reshape(x.shape[0], sizes.blocks, sizes.block)
  ids = parts(inputs["example_ids"])
  most = jnp.iinfo(jnp.int32).max
  # Examples of the queries and of the keys of a block: from, to.
  padding = ids.min(-1) == 0
  first, last = jnp.where(ids == 0, most, ids).min(-1), ids.max(-1)
  from_, to = jnp.where(padding, 1, first), jnp.where(padding, most, last)
  query, key = (lambda x: x[:, :, None]), (lambda x: x[:, None])
  seen = (query(from_) <= key(last)) & (key(first) <= query(to))
  if "order" in inputs:
    order = parts(inputs["order"])
    seen &= key(order.min(-1)) <= query(order.max(-1))
  if "reach" in arrays:
    number = jnp.arange(sizes.blocks)[None]
    gap = (jnp.abs(query(number) - key(number)) - 1) * sizes.block + 1
    seen &= gap <= arrays["reach"][:, None, None]
  return jnp.concatenate([_bounds(seen), _bounds(seen.swapaxes(1, 2))], 1)


def _bounds(seen: jax.Array) -> jax.Array:
  """From (B, blocks, blocks) the first and the end of each second, (B, 2n)."""
  number = jnp.arange(seen.shape[-1])[None, None]
  end = jnp.where(seen, number + 1, 0).max(-1)
  first = jnp.minimum(end, jnp.where(seen, number, end[..., None]).min(-1))
  return jnp.stack([first, end], -1).reshape(seen.shape[0], -1)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _attend(options: _Options, inputs: Arrays) -> jax.Array:
  return _forward(options)(inputs)["mixed"]


def _attend_forward(options: _Options, inputs: Arrays) -> tuple[Any, Any]:
  outputs = _forward(options)(inputs)
  return outputs["mixed"], {**inputs, **outputs}


def _attend_backward(options: _Options, saved: Arrays, of_mixed: jax.Array
                     ) -> tuple[dict[str, Any]]:
  of = _backward(options)({**saved, "of_mixed": of_mixed})
  return ({name: of.get("of_" + name) for name in saved
           if name not in ("mixed", "log_sum")},)


_attend.defvjp(_attend_forward, _attend_backward)


def _over_members(function: Callable[[Arrays], dict[str, jax.Array]]
                  ) -> Callable[[Arrays], dict[str, jax.Array]]:
  """A function of arrays that lead with rows: under vmap, of more rows."""
  mapped = jax.custom_batching.custom_vmap(function)

  @mapped.def_vmap
  def _(members: int, batched: Any, arrays: Arrays) -> tuple[Any, Any]:
    batched, = batched
    rows = {name: x if batched[name] else jnp.broadcast_to(
        x[None], (members, *x.shape)) for name, x in arrays.items()}
    outputs = mapped({name: x.reshape(-1, *x.shape[2:])
                      for name, x in rows.items()})
    outputs = {name: x.reshape(members, -1, *x.shape[1:])
               for name, x in outputs.items()}
    return outputs, dict.fromkeys(outputs, True)

  return mapped


@functools.cache
def _forward(options: _Options) -> Callable[[Arrays], dict[str, jax.Array]]:
  return _over_members(functools.partial(_call_forward, options))


@functools.cache
def _backward(options: _Options) -> Callable[[Arrays], dict[str, jax.Array]]:
  return _over_members(functools.partial(_call_backward, options))


def _call_forward(options: _Options, arrays: Arrays) -> dict[str, jax.Array]:
  sizes, query = options.sizes, arrays["query"]
  rows = query.shape[0]
  outputs = {
      "mixed": jax.ShapeDtypeStruct(query.shape, query.dtype),
      "log_sum": jax.ShapeDtypeStruct(
          (rows, sizes.programs * sizes.groups, sizes.group,
           sizes.block * sizes.blocks), jnp.float32)}
  return _call(options, flash.forward, arrays, outputs, _specs(sizes, True), 2)


def _call_backward(options: _Options, arrays: Arrays) -> dict[str, jax.Array]:
  query = arrays["query"]
  outputs = {"of_" + name: jax.ShapeDtypeStruct(query.shape, query.dtype)
             for name in ("query", "key", "value")}
  if "bias" in arrays:
    *sizes, distances = arrays["bias"].shape
    outputs["of_bias"] = jax.ShapeDtypeStruct(
        (*sizes, diagonals.SUBLANES, distances), jnp.float32)
  of = _call(options, flash.backward, arrays, outputs,
             _specs(options.sizes, False), 4)
  if "of_bias" in of:
    of["of_bias"] = diagonals.finish(of["of_bias"])
  return of


def _specs(sizes: Sizes, by_query: bool) -> dict[str, pl.BlockSpec]:
  """The part of each array that a program has; the grid is rows, heads, and
  blocks of queries (or of keys)."""
  length, lanes = sizes.block * sizes.blocks, sizes.groups * sizes.lanes
  full = pl.BlockSpec((1, length, lanes), lambda b, h, i: (b, 0, h))
  part = pl.BlockSpec((1, sizes.block, lanes), lambda b, h, i: (b, i, h))
  along_rows = pl.BlockSpec((1, length, 1), lambda b, h, i: (b, 0, 0))
  along_lanes = pl.BlockSpec((1, 1, length), lambda b, h, i: (b, 0, 0))
  heads = sizes.groups * sizes.group
  bias = pl.BlockSpec((1, 1, heads, 2 * length), lambda b, h, i: (b, h, 0, 0))
  of_bias = pl.BlockSpec((1, 1, heads, diagonals.SUBLANES, 2 * length),
                         lambda b, h, i: (b, h, 0, 0, 0))
  of_queries, of_keys = (part, full) if by_query else (full, part)
  if by_query:
    sums = pl.BlockSpec((1, sizes.groups, sizes.group, sizes.block),
                        lambda b, h, i: (b, h, 0, i))
  else:
    sums = pl.BlockSpec((1, sizes.groups, sizes.group, length),
                        lambda b, h, i: (b, h, 0, 0))
  return {
      "scalars": pl.BlockSpec(memory_space=pltpu.SMEM),
      "example_ids": along_rows, "example_ids_lanes": along_lanes,
      "order": along_rows, "order_lanes": along_lanes,
      "query": of_queries, "mixed": of_queries, "of_mixed": of_queries,
      "of_query": of_queries, "key": of_keys, "value": of_keys,
      "of_key": of_keys, "of_value": of_keys, "bias": bias, "of_bias": of_bias,
      "log_sum": sums}


def _call(options: _Options, kernel: Callable[..., None], arrays: Arrays,
          outputs: Mapping[str, jax.ShapeDtypeStruct],
          specs: Mapping[str, pl.BlockSpec], products: int
          ) -> dict[str, jax.Array]:
  sizes, rows = options.sizes, arrays["query"].shape[0]
  inputs = dict(arrays, scalars=arrays["scalars"].reshape(-1))
  for name in {"example_ids", "order"} & set(arrays):
    inputs[name] = arrays[name][:, :, None]
    inputs[name + "_lanes"] = arrays[name][:, None]
  scratch = {}
  if "of_query" in outputs:
    scratch["sum"] = pltpu.VMEM(
        (sizes.block * sizes.blocks, sizes.groups * sizes.lanes), jnp.float32)
  names = (*inputs, *outputs, *scratch)
  results = pl.pallas_call(
      functools.partial(kernel, sizes, names),
      out_shape=list(outputs.values()),
      grid=(rows, sizes.programs, sizes.blocks),
      in_specs=[specs[name] for name in inputs],
      out_specs=[specs[name] for name in outputs],
      scratch_shapes=list(scratch.values()),
      # Of the mathematics, without what is padded or computed again.
      cost_estimate=pl.CostEstimate(
          flops=products * rows * options.product, transcendentals=0,
          bytes_accessed=sum(x.size * x.dtype.itemsize
                             for x in (*inputs.values(), *outputs.values()))),
      compiler_params=pltpu.CompilerParams(
          vmem_limit_bytes=_MEMORY,
          dimension_semantics=("parallel", "parallel", "arbitrary")),
      name="flash_" + kernel.__name__, interpret=options.interpret,
  )(*inputs.values())
  return dict(zip(outputs, results))


def _pad(x: jax.Array, shape: tuple[int, ...]) -> jax.Array:
  if x.shape == shape:
    return x
  return jnp.pad(x, [(0, size - old) for size, old in zip(shape, x.shape)])


def _round_up(size: int, multiple: int) -> int:
  return -(-size // multiple) * multiple
