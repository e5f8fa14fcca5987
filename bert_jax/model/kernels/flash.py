"""The programs of flash attention (Dao et al. 2022), for TPUs.

The forward pass has one for each row, some heads and a block of queries, and
goes over the blocks of keys. The backward pass has one for each block of keys
and goes over the blocks of queries, with scores transposed (keys by queries),
so that what belongs to a query lies along lanes. Neither has an array of L x L
in HBM.

Heads share the 128 lanes of a register. A product contracts all lanes, with
those of other heads zero on one side: the matrix unit is 128 wide anyway, and
nothing is shifted between lanes.
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl

from bert_jax.model import random_bits

_HIDDEN = jnp.finfo(jnp.float32).min
# Scalars of a row: the bound of words that keep a weight; the number of the
# first head; the reach; the two words of a key; then, where a row has several
# blocks, for each of queries and then for each of keys, where the others begin
# and end that it meets.
KEPT, HEAD, REACH, KEY, RANGES = 0, 1, 2, 3, 5


@dataclasses.dataclass(frozen=True)
class Sizes:
  """What a kernel is compiled for.

  Attributes:
    width: of a head.
    group: heads that share a register's lanes.
    groups: such groups in one program.
    programs: of a row, for all its heads.
    block: queries and keys that are taken at once.
    blocks: of a row.
    dropped: whether weights are dropped.
    bounded: whether a query sees keys within a reach alone.
  """

  width: int
  group: int
  groups: int
  programs: int
  block: int
  blocks: int
  dropped: bool
  bounded: bool

  @property
  def lanes(self) -> int:
    return self.width * self.group

  @property
  def scalars(self) -> int:
    """How many a row has."""
    return RANGES + (4 * self.blocks if self.blocks > 1 else 0)


def forward(sizes: Sizes, names: Sequence[str], *refs: Any) -> None:
  """Writes the mixed values of a block of queries, and the logarithm of the
  sum of each query's exponentials."""
  r = dict(zip(names, refs))
  program = _Program(sizes, r)
  i, of_head = pl.program_id(2), _lanes_of_heads(sizes)
  places = program.block(i)
  for g, lanes in program.groups():
    queries = [jnp.where(mine, r["query"][0, :, lanes], 0) for mine in of_head]

    def step(j: Any, carry: Any) -> Any:
      others, news = program.block(j), []
      key, value = (r[name][0, others.slice(), lanes]
                    for name in ("key", "value"))
      visible = program.visible(places, others)
      for h, query in enumerate(queries):
        score = _dot(query, key, 1, 1)
        if "bias" in r:
          score += r["bias"][0, g * sizes.group + h, :, others.slice()]
        score = jnp.where(visible, score, _HIDDEN)
        top = score.max(1, keepdims=True)
        if carry is not None:
          top = jnp.maximum(top, carry[h][0])
        weight = jnp.exp(score - top)
        total = weight.sum(1, keepdims=True)
        if sizes.dropped:
          weight = jnp.where(program.kept(g, h, places, others), weight, 0.0)
        mixed = _dot(weight.astype(value.dtype), value, 1, 0)
        if carry is not None:
          old_top, old_total, old_mixed = carry[h]
          shrink = jnp.exp(old_top - top)
          total, mixed = total + shrink * old_total, mixed + shrink * old_mixed
        news.append((top, total, mixed))
      return news

    of_heads = program.loop(step, program.seen_by_query(i), [
        (jnp.full((sizes.block, 1), _HIDDEN), jnp.zeros((sizes.block, 1)),
         jnp.zeros((sizes.block, sizes.lanes)))] * sizes.group)
    # No block is seen at all where a row is padding alone.
    totals = [jnp.maximum(total, 1e-30) for _, total, _ in of_heads]
    r["mixed"][0, :, lanes] = _join(of_head, [
        mixed * (program.scale() / total)
        for (_, _, mixed), total in zip(of_heads, totals)]).astype(
            r["mixed"].dtype)
    for h, ((top, _, _), total) in enumerate(zip(of_heads, totals)):
      r["log_sum"][0, g, h:h + 1, :] = jnp.transpose(top + jnp.log(total))


def backward(sizes: Sizes, names: Sequence[str], *refs: Any) -> None:
  """Writes the gradients of a block of keys and values, and adds up those of
  all queries, which are written with the last block."""
  r = dict(zip(names, refs))
  program = _Program(sizes, r)
  j, of_head = pl.program_id(2), _lanes_of_heads(sizes)
  places = program.block(j)

  @pl.when(j == 0)
  def _():
    r["sum"][...] = jnp.zeros_like(r["sum"])

  if "of_bias" in r and sizes.blocks > 1:
    r["of_bias"][...] = jnp.zeros_like(r["of_bias"])

  for g, lanes in program.groups():
    keys, values = ([jnp.where(mine, r[name][0, :, lanes], 0)
                     for mine in of_head] for name in ("key", "value"))

    def step(i: Any, carry: Any) -> Any:
      others, of_keys, of_queries = program.block(i), [], []
      query, of_mixed, mixed = (r[name][0, others.slice(), lanes]
                                for name in ("query", "of_mixed", "mixed"))
      visible = program.visible(others, places, transposed=True)
      product = of_mixed.astype(jnp.float32) * mixed.astype(jnp.float32)
      of_mixed = (of_mixed.astype(jnp.float32) * program.scale()).astype(
          of_mixed.dtype)
      for h in range(sizes.group):
        score = _dot(keys[h], query, 1, 1)
        if "bias" in r:
          score += jnp.transpose(
              r["bias"][0, g * sizes.group + h, others.slice(), :])
        score = jnp.where(visible, score, _HIDDEN)
        weight = jnp.exp(score - r["log_sum"][0, g, h:h + 1, others.slice()])
        of_weight, dropped = _dot(values[h], of_mixed, 1, 1), weight
        if sizes.dropped:
          kept = program.kept(g, h, others, places, transposed=True)
          of_weight = jnp.where(kept, of_weight, 0.0)
          dropped = jnp.where(kept, weight, 0.0)
        both = jnp.where(of_head[h], product, 0.0).sum(1, keepdims=True)
        of_score = weight * (of_weight - jnp.transpose(both))
        if "of_bias" in r:
          r["of_bias"][0, g * sizes.group + h, others.slice(), :] = (
              jnp.transpose(of_score))
        of_score = of_score.astype(query.dtype)
        of_keys.append((_dot(of_score, query, 1, 0),
                        _dot(dropped.astype(query.dtype), of_mixed, 1, 0)))
        of_queries.append(_dot(of_score, keys[h], 0, 0))
      r["sum"][others.slice(), lanes] += functools.reduce(jnp.add, of_queries)
      return (of_keys if carry is None
              else jax.tree.map(jnp.add, carry, of_keys))

    zeros = (jnp.zeros((sizes.block, sizes.lanes)),) * 2
    of_keys = program.loop(step, program.seen_by_key(j), [zeros] * sizes.group)
    for name, parts in zip(("of_key", "of_value"), zip(*of_keys)):
      r[name][0, :, lanes] = _join(of_head, parts).astype(r[name].dtype)

  @pl.when(j == sizes.blocks - 1)
  def _():
    r["of_query"][0] = r["sum"][...].astype(r["of_query"].dtype)


class _Places(NamedTuple):
  """Tokens of a row that follow each other."""

  start: Any
  size: int

  def slice(self) -> Any:
    if isinstance(self.start, int):
      return slice(self.start, self.start + self.size)
    return pl.ds(pl.multiple_of(self.start, self.size), self.size)

  def numbers(self, along_lanes: bool) -> jax.Array:
    """Of each, (1, size) or (size, 1)."""
    shape = (1, self.size) if along_lanes else (self.size, 1)
    return self.start + jax.lax.broadcasted_iota(jnp.int32, shape, along_lanes)


class _Program:
  """What all parts of a program read."""

  def __init__(self, sizes: Sizes, refs: Mapping[str, Any]):
    self.sizes, self.refs = sizes, refs
    # Here: they are not known inside of a loop that is interpreted.
    self.start = pl.program_id(0) * sizes.scalars
    self.first_group = pl.program_id(1) * sizes.groups

  def scalar(self, number: Any) -> Any:
    return self.refs["scalars"][self.start + number]

  def groups(self) -> list[tuple[int, slice]]:
    lanes = self.sizes.lanes
    return [(g, slice(g * lanes, (g + 1) * lanes))
            for g in range(self.sizes.groups)]

  def block(self, number: Any) -> _Places:
    return _Places(number * self.sizes.block, self.sizes.block)

  def loop(self, step: Callable[[Any, Any], Any], seen: tuple[Any, Any],
           first: Any) -> Any:
    if self.sizes.blocks == 1:
      return step(0, None)
    return jax.lax.fori_loop(*seen, step, first)

  def seen_by_query(self, i: Any) -> tuple[Any, Any]:
    at = RANGES + 2 * i
    return self.scalar(at), self.scalar(at + 1)

  def seen_by_key(self, j: Any) -> tuple[Any, Any]:
    return self.seen_by_query(self.sizes.blocks + j)

  def scale(self) -> Any:
    """Of what is kept."""
    if not self.sizes.dropped:
      return jnp.float32(1)
    kept = self.scalar(KEPT).astype(jnp.float32)
    return 2.0**32 / (kept + (2.0**31 + 1))

  def visible(self, query: _Places, key: _Places,
              transposed: bool = False) -> jax.Array:
    """As model.visibility has it, queries by keys."""
    of_query, of_key = (
        functools.partial(self._of_tokens, places, along_lanes)
        for places, along_lanes in ((query, transposed), (key, not transposed)))
    examples, of_keys = of_query("example_ids"), of_key("example_ids")
    seen = ((examples == of_keys) | (examples == 0)) & (of_keys != 0)
    if "order" in self.refs:
      seen &= of_key("order") <= of_query("order")
    if self.sizes.bounded:
      seen &= jnp.abs(query.numbers(transposed) - key.numbers(not transposed)
                      ) <= self.scalar(REACH)
    return seen

  def _of_tokens(self, places: _Places, along_lanes: bool,
                 name: str) -> jax.Array:
    if along_lanes:
      return self.refs[name + "_lanes"][0, :, places.slice()]
    return self.refs[name][0, places.slice(), :]

  def kept(self, g: int, h: int, query: _Places, key: _Places,
           transposed: bool = False) -> jax.Array:
    """Whether weights are kept, queries by keys, by model.random_bits."""
    head = (self.scalar(HEAD) + h
            + (self.first_group + g) * self.sizes.group)
    stream = random_bits.fold_in(
        random_bits.Key(self.scalar(KEY), self.scalar(KEY + 1)), head)
    # Hashed along lanes: a column of a register fills one lane of 128.
    of_query = random_bits.row_words(stream, query.numbers(True))
    of_key = random_bits.column_words(stream, key.numbers(True))
    if transposed:
      of_key = jnp.transpose(of_key)
    else:
      of_query = jnp.transpose(of_query)
    return random_bits.join(of_query, of_key) <= self.scalar(KEPT)


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
