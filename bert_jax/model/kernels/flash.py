"""The programs of flash attention (Dao et al. 2022), for TPUs.

The forward pass has one for each row, some heads and a block of queries, and
goes over the blocks of keys. The backward pass has one for each block of keys
and goes over the blocks of queries. In both, scores are keys by queries, so
that what belongs to a query lies along lanes, where it fills few registers.
Neither has an array of L x L in HBM.

Heads share the 128 lanes of a register. A product contracts all lanes, with
those of other heads zero on one side: the matrix unit is 128 wide anyway, and
nothing is shifted between lanes.
"""

import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl

from bert_jax.model.kernels.program import Places, Program, Sizes

_HIDDEN = jnp.finfo(jnp.float32).min


def forward(sizes: Sizes, names: Sequence[str], *refs: Any) -> None:
  """Writes the mixed values of a block of queries, and the logarithm of the
  sum of each query's exponentials."""
  r = dict(zip(names, refs))
  program = Program(sizes, r)
  i = pl.program_id(2)
  for g, lanes in program.groups():
    of_heads = program.loop(
        functools.partial(_mix, program, g, lanes, program.block(i)),
        program.seen_by_query(i), [
            (jnp.full((1, sizes.block), _HIDDEN), jnp.zeros((1, sizes.block)),
             jnp.zeros((sizes.width, sizes.block)))] * sizes.group)
    # No block is seen at all where a row is padding alone.
    totals = [jnp.maximum(total, 1e-30) for _, total, _ in of_heads]
    r["mixed"][0, :, lanes] = jnp.transpose(jnp.concatenate([
        mixed * (program.scale() / total)
        for (_, _, mixed), total in zip(of_heads, totals)], 0)).astype(
            r["mixed"].dtype)
    for h, ((top, _, _), total) in enumerate(zip(of_heads, totals)):
      r["log_sum"][0, g, h:h + 1, :] = top + jnp.log(total)


def _mix(program: Program, g: int, lanes: slice, queries: Places,
         keys: Places, carry: Any) -> Any:
  """Adds keys to the top score, the sum and the mixed values, (width, queries),
  of each head."""
  r, sizes, news = program.refs, program.sizes, []
  key, query = r["key"][0, keys.slice(), lanes], r["query"][0, :, lanes]
  value = jnp.transpose(r["value"][0, keys.slice(), lanes])
  visible = program.visible(keys, queries)
  for h, mine in enumerate(_lanes_of_heads(sizes)):
    score = _dot(key, jnp.where(mine, query, 0), 1, 1)
    if "bias" in r:
      score += program.bias(g, h, keys, queries)
    score = jnp.where(visible, score, _HIDDEN)
    top = score.max(0, keepdims=True)
    if carry is not None:
      top = jnp.maximum(top, carry[h][0])
    weight = jnp.exp(score - top)
    total = weight.sum(0, keepdims=True)
    if sizes.dropped:
      weight = jnp.where(program.kept(g, h, keys, queries), weight, 0.0)
    mixed = _dot(value[h * sizes.width:(h + 1) * sizes.width],
                 weight.astype(value.dtype), 1, 0)
    if carry is not None:
      old_top, old_total, old_mixed = carry[h]
      shrink = jnp.exp(old_top - top)
      total, mixed = total + shrink * old_total, mixed + shrink * old_mixed
    news.append((top, total, mixed))
  return news


def backward(sizes: Sizes, names: Sequence[str], *refs: Any) -> None:
  """Writes the gradients of a block of keys and values, and adds up those of
  all queries, which are written with the last block, and of distances."""
  r = dict(zip(names, refs))
  program = Program(sizes, r)
  j, of_head = pl.program_id(2), _lanes_of_heads(sizes)

  @pl.when(j == 0)
  def _():
    for name in {"sum", "of_bias"} & set(r):
      r[name][...] = jnp.zeros_like(r[name])

  for g, lanes in program.groups():
    zeros = (jnp.zeros((sizes.block, sizes.lanes)),) * 2
    of_keys = program.loop(
        functools.partial(_differentiate, program, g, lanes, program.block(j)),
        program.seen_by_key(j), [zeros] * sizes.group)
    for name, parts in zip(("of_key", "of_value"), zip(*of_keys)):
      r[name][0, :, lanes] = _join(of_head, parts).astype(r[name].dtype)

  @pl.when(j == sizes.blocks - 1)
  def _():
    r["of_query"][0] = r["sum"][...].astype(r["of_query"].dtype)


def _differentiate(program: Program, g: int, lanes: slice, keys: Places,
                   queries: Places, carry: Any) -> Any:
  """Adds what queries give to the gradients of keys and values, and writes what
  the keys give to the others."""
  r, sizes, of_keys, of_queries = program.refs, program.sizes, [], []
  key, value = (r[name][0, :, lanes] for name in ("key", "value"))
  query, of_mixed, mixed = (r[name][0, queries.slice(), lanes]
                            for name in ("query", "of_mixed", "mixed"))
  visible = program.visible(keys, queries)
  product = of_mixed.astype(jnp.float32) * mixed.astype(jnp.float32)
  of_mixed = (of_mixed.astype(jnp.float32) * program.scale()).astype(
      of_mixed.dtype)
  for h, mine in enumerate(_lanes_of_heads(sizes)):
    key_of_head = jnp.where(mine, key, 0)
    score = _dot(key_of_head, query, 1, 1)
    if "bias" in r:
      score += program.bias(g, h, keys, queries)
    score = jnp.where(visible, score, _HIDDEN)
    weight = jnp.exp(score - r["log_sum"][0, g, h:h + 1, queries.slice()])
    of_weight = _dot(jnp.where(mine, value, 0), of_mixed, 1, 1)
    dropped = weight
    if sizes.dropped:
      kept = program.kept(g, h, keys, queries)
      of_weight = jnp.where(kept, of_weight, 0.0)
      dropped = jnp.where(kept, weight, 0.0)
    both = jnp.where(mine, product, 0.0).sum(1, keepdims=True)
    of_score = weight * (of_weight - jnp.transpose(both))
    if "of_bias" in r:
      program.add_of_bias(g, h, keys, queries, of_score)
    of_score = of_score.astype(query.dtype)
    of_keys.append((_dot(of_score, query, 1, 0),
                    _dot(dropped.astype(query.dtype), of_mixed, 1, 0)))
    of_queries.append(_dot(of_score, key_of_head, 0, 0))
  r["sum"][queries.slice(), lanes] += functools.reduce(jnp.add, of_queries)
  return of_keys if carry is None else jax.tree.map(jnp.add, carry, of_keys)


def _lanes_of_heads(sizes: Sizes) -> list[jax.Array]:
  lane = jax.lax.broadcasted_iota(jnp.int32, (1, sizes.lanes), 1)
  return [(lane >= h * sizes.width) & (lane < (h + 1) * sizes.width)
          for h in range(sizes.group)]


def _join(of_head: Sequence[jax.Array], parts: Sequence[jax.Array]
          ) -> jax.Array:
  """Of each part the lanes of its head."""
  joined = parts[0]
  for mine, part in zip(of_head[1:], parts[1:]):
    joined = jnp.where(mine, part, joined)
  return joined


def _dot(a: jax.Array, b: jax.Array, contracted: int, of_b: int) -> jax.Array:
  return jax.lax.dot_general(a, b, (((contracted,), (of_b,)), ((), ())),
                             preferred_element_type=jnp.float32)
