"""Blocks of scores whose entries depend on their diagonal alone, for TPUs.

Of a function of the distance, `x[column - row]`, the blocks are made in a
kernel, and their gradients added up, in squares of a register's 128 lanes:
those on a diagonal are equal, and each is two parts of 128 distances, turned by
a lane from row to row.
"""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax.experimental.pallas import tpu as pltpu

LANES = 128
SUBLANES = 8
_ROWS = range(0, LANES, SUBLANES)  # Of a square, the first of each register.

# A part by its number, (1, LANES): distances from LANES * number on.
Parts = Callable[[int], jax.Array]


def spread(part: Parts, rows: int, columns: int) -> jax.Array:
  """(rows, columns), both multiples of LANES, of x by the distance."""
  down, right = rows // LANES, columns // LANES
  turned = [pltpu.roll(jnp.broadcast_to(part(n), (LANES, LANES)), 0, 1,
                       stride=1, stride_axis=0) for n in range(-down, right)]
  # By the squares' distance, from 1 - down on.
  squares = [jnp.where(_ahead(), after, before)
             for before, after in zip(turned, turned[1:])]
  return jnp.concatenate([
      jnp.concatenate(squares[down - 1 - i:down - 1 - i + right], 1)
      for i in range(down)], 0)


def collect(of_scores: jax.Array) -> dict[int, jax.Array]:
  """The transpose of `spread`, up to `finish`: for each part the sums along its
  diagonals, (SUBLANES, LANES), each row turned by its number."""
  down, right = (size // LANES for size in of_scores.shape)
  squares = {}
  for i in range(down):
    for j in range(right):
      square = of_scores[i * LANES:(i + 1) * LANES,
                         j * LANES:(j + 1) * LANES]
      squares[j - i] = squares[j - i] + square if j - i in squares else square
  registers = {n: _turn_back(square) for n, square in squares.items()}
  nothing = [jnp.zeros((SUBLANES, LANES), jnp.float32)] * len(_ROWS)
  return {n: functools.reduce(jnp.add, (
      jnp.where(ahead, after, before) for ahead, after, before in zip(
          _ahead_turned(), registers.get(n, nothing),
          registers.get(n + 1, nothing)))) for n in range(-down, right)}


def _turn_back(square: jax.Array) -> list[jax.Array]:
  """A square's registers, each turned back by the number of its first row."""
  return [pltpu.roll(square[row:row + SUBLANES], (LANES - row) % LANES, 1)
          for row in _ROWS]


def finish(sums: jax.Array) -> jax.Array:
  """From what `collect` gave to all parts, (..., SUBLANES, distances), to the
  gradient, (..., distances). Outside of a kernel, where the sums are few."""
  parts = sums.reshape(*sums.shape[:-1], -1, LANES)
  rows = [jnp.roll(parts[..., row, :, :], -row, -1) for row in range(SUBLANES)]
  return functools.reduce(jnp.add, rows).reshape(
      *sums.shape[:-2], sums.shape[-1])


def _ahead() -> jax.Array:
  """Where the column of a square is not before the row."""
  row, column = (jax.lax.broadcasted_iota(jnp.int32, (LANES, LANES), axis)
                 for axis in (0, 1))
  return column >= row


def _ahead_turned() -> list[jax.Array]:
  """The same of the registers of `_turn_back`."""
  row, column = (jax.lax.broadcasted_iota(jnp.int32, (SUBLANES, LANES), axis)
                 for axis in (0, 1))
  return [(column >= row) & (column < LANES - first) for first in _ROWS]
