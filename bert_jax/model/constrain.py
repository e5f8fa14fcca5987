"""Where intermediate arrays lie on devices, decided outside of the network."""

import contextlib
import contextvars
from collections.abc import Callable, Iterator

import jax

# Names of places in the network, whose arrays lead with rows:
#   rows: hidden states, (B, L, D);
#   looked_up_ids, looked_up: ids (B, L) and vectors (B, L, D) of a look-up in
#     a table whose width may be split.
Constraint = Callable[[jax.Array, str], jax.Array]

_constraint: contextvars.ContextVar[Constraint | None] = (
    contextvars.ContextVar("constraint", default=None))


def constrain(x: jax.Array, name: str) -> jax.Array:
  """`x` as the constraint of the context places it; without one, `x`."""
  constraint = _constraint.get()
  return x if constraint is None else constraint(x, name)


@contextlib.contextmanager
def constrained(constraint: Constraint) -> Iterator[None]:
  """What is traced inside is placed by `constraint(array, name)`."""
  token = _constraint.set(constraint)
  try:
    yield
  finally:
    _constraint.reset(token)
