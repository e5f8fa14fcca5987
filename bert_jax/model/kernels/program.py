"""What one program of a kernel knows: its sizes, its row, what it meets."""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl

from bert_jax.model import random_bits
from bert_jax.model.kernels import diagonals
from bert_jax.model.kernels.diagonals import LANES

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


class Places(NamedTuple):
  """Tokens of a row that follow each other."""

  start: Any
  size: int

  def slice(self) -> Any:
    if isinstance(self.start, int):
      return slice(self.start, self.start + self.size)
    return pl.ds(pl.multiple_of(self.start, LANES), self.size)

  def numbers(self, along_lanes: bool) -> jax.Array:
    """Of each, (1, size) or (size, 1)."""
    shape = (1, self.size) if along_lanes else (self.size, 1)
    return self.start + jax.lax.broadcasted_iota(jnp.int32, shape, along_lanes)


class Program:
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

  def bias(self, g: int, h: int, key: Places, query: Places) -> jax.Array:
    """What is added to scores, keys by queries."""
    head = g * self.sizes.group + h
    return diagonals.spread(
        lambda part: self.refs["bias"][
            0, 0, head:head + 1, self._distances(key, query, part)],
        key.size, query.size)

  def add_of_bias(self, g: int, h: int, key: Places, query: Places,
                  of_score: jax.Array) -> None:
    """Adds what a block gives to their gradient, as `diagonals` has it."""
    head = g * self.sizes.group + h
    for part, sums in diagonals.collect(of_score).items():
      at = self._distances(key, query, part)
      self.refs["of_bias"][0, 0, head, :, at] += sums

  def _distances(self, key: Places, query: Places, part: int) -> Any:
    """Where those of a part of `diagonals` lie; 0 lies at the row's length."""
    start = query.start - key.start + self.sizes.blocks * self.sizes.block
    return Places(start + LANES * part, LANES).slice()

  def block(self, number: Any) -> Places:
    return Places(number * self.sizes.block, self.sizes.block)

  def loop(self, step: Callable[[Places, Any], Any], seen: tuple[Any, Any],
           first: Any) -> Any:
    """Goes over blocks, from the first of `seen` to before the second."""
    if self.sizes.blocks == 1:
      return step(self.block(0), None)
    return jax.lax.fori_loop(
        *seen, lambda number, carry: step(self.block(number), carry), first)

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

  def visible(self, key: Places, query: Places) -> jax.Array:
    """As model.visibility has it, keys by queries."""
    of_query, of_key = (functools.partial(self._of_tokens, query, True),
                        functools.partial(self._of_tokens, key, False))
    examples, of_keys = of_query("example_ids"), of_key("example_ids")
    seen = ((examples == of_keys) | (examples == 0)) & (of_keys != 0)
    if "order" in self.refs:
      seen &= of_key("order") <= of_query("order")
    if self.sizes.bounded:
      seen &= (jnp.abs(query.numbers(True) - key.numbers(False))
               <= self.scalar(REACH))
    return seen

  def _of_tokens(self, places: Places, along_lanes: bool,
                 name: str) -> jax.Array:
    if along_lanes:
      return self.refs[name + "_lanes"][0, :, places.slice()]
    return self.refs[name][0, places.slice(), :]

  def kept(self, g: int, h: int, key: Places, query: Places) -> jax.Array:
    """Whether weights are kept, keys by queries, by model.random_bits."""
    head = (self.scalar(HEAD) + h
            + (self.first_group + g) * self.sizes.group)
    stream = random_bits.fold_in(
        random_bits.Key(self.scalar(KEY), self.scalar(KEY + 1)), head)
    # Hashed along lanes: a column of a register fills one lane of 128.
    of_query = random_bits.row_words(stream, query.numbers(True))
    of_key = random_bits.column_words(stream, key.numbers(True))
    return (random_bits.join(of_query, jnp.transpose(of_key))
            <= self.scalar(KEPT))
