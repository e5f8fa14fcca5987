"""Where arrays lie and functions run, decided outside of the network."""

import contextlib
import contextvars
from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple

import jax

Arrays = Mapping[str, jax.Array]
Dimensions = Mapping[str, str]


class Placement(NamedTuple):
  """
  Attributes:
    constrain: places an array that leads with rows, by its name:
      rows: hidden states, (B, L, D);
      looked_up_ids, looked_up: ids (B, L) and vectors (B, L, D) of a look-up
        in a table whose width may be split.
    split: makes of a function of arrays one that runs on each device, with
      its rows and heads; see `split`.
    device: one of those that compute.
  """

  constrain: Callable[[jax.Array, str], jax.Array]
  split: Callable[..., jax.Array]
  device: jax.Device


_placement: contextvars.ContextVar[Placement | None] = contextvars.ContextVar(
    "placement", default=None)


def constrain(x: jax.Array, name: str) -> jax.Array:
  """`x` as the context places it; without one, `x`."""
  placement = _placement.get()
  return x if placement is None else placement.constrain(x, name)


def split(function: Callable[[Arrays], jax.Array], arrays: Arrays,
          dimensions: Dimensions, result: str) -> jax.Array:
  """`function(arrays)`, computed by each device for its own rows and heads.

  For what a compiler cannot split, as a kernel.

  Args:
    function: rows (B) and heads (H) do not depend on each other in it.
    arrays: by name.
    dimensions: of each array, as "BLHK".
    result: the dimensions of the result.
  """
  placement = _placement.get()
  if placement is None:
    return function(arrays)
  return placement.split(function, arrays, dimensions, result)


def device() -> jax.Device:
  """One of those that compute the network; its `platform` is "tpu", "gpu" or
  "cpu"."""
  placement = _placement.get()
  return jax.devices()[0] if placement is None else placement.device


@contextlib.contextmanager
def placed(placement: Placement) -> Iterator[None]:
  """What is traced inside lies and runs as `placement` says."""
  token = _placement.set(placement)
  try:
    yield
  finally:
    _placement.reset(token)
