"""How fast each parameter learns, layer by layer; not at all is frozen."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from bert_jax.config import UserError
from bert_jax.training.param_paths import (
    Rules, expand, first_match, leaves, nested)


@dataclasses.dataclass(frozen=True)
class Rates:
  """Multipliers of the learning rate.

  That of a parameter is the product of what each of the `tables` says of its
  expanded path. Where it is 0 the parameter is frozen: it stays as it is, byte
  for byte, and no gradient, clipping, decay or moment sees it, as
  optimizers are only given what `trained` leaves.
  """

  tables: tuple[Rules[float], ...] = ()

  def of(self, params: Any) -> dict[str, np.ndarray]:
    """The rates of each leaf by its path: one a layer, or one.

    Raises:
      UserError: a pattern decides on no parameter, or all are frozen.
    """
    paths = {path: expand(path, leaf) for path, leaf in leaves(params).items()}
    every = [path for parts in paths.values() for path in parts]
    product = dict.fromkeys(every, 1.0)
    for table in self.tables:
      rows = {path: first_match(table, path) for path in every}
      # The last row is for the rest, which may be none.
      idle = set(range(len(table) - 1)) - set(rows.values())
      if idle:
        raise UserError(_idle(table[min(idle)][0], paths))
      for path, row in rows.items():
        product[path] *= table[row][1]
    if not any(product.values()):
      raise UserError("All parameters are frozen: nothing is left to train.")
    return {path: np.asarray([product[part] for part in parts], np.float32)
            for path, parts in paths.items()}

  def trained(self, params: Any) -> Any:
    """The part of the parameters that is not frozen.

    Leaves that are entirely frozen are not there, and of stacks only the
    layers that are trained.
    """
    if not self.tables:
      return params
    rates, every = self.of(params), leaves(params)
    return nested({path: every[path][_index(rate)] if (rate == 0).any()
                   else every[path]
                   for path, rate in rates.items() if rate.any()})

  def join(self, params: Any, trained: Any) -> Any:
    """The parameters with `trained` in the place of what is not frozen."""
    if not self.tables:
      return trained
    rates, new = self.of(params), leaves(trained)
    return nested({path: leaf if path not in new
                   else leaf.at[_index(rates[path])].set(new[path])
                   if (rates[path] == 0).any() else new[path]
                   for path, leaf in leaves(params).items()})

  def scale(self, params: Any, updates: Any) -> Any:
    """Updates of the trained part, times their rates."""
    if not self.tables:
      return updates
    rates = self.of(params)

    def scaled(path: str, update: jax.Array) -> jax.Array:
      rate = rates[path][rates[path] != 0]
      if (rate == rate[0]).all():
        return update if rate[0] == 1 else update * rate[0]
      return update * jnp.reshape(rate, (-1, *(1,) * (update.ndim - 1)))

    return nested({path: scaled(path, update)
                   for path, update in leaves(updates).items()})


def _index(rate: np.ndarray) -> slice | np.ndarray:
  """Of the layers that are trained."""
  places = np.flatnonzero(rate)
  if len(places) == places[-1] + 1 - places[0]:  # Copied in one piece.
    return slice(int(places[0]), int(places[-1]) + 1)
  return places


def _idle(pattern: str, paths: dict[str, list[str]]) -> str:
  """Of a pattern without effect; lists all paths, a stack in one line."""
  shown = [parts[0] if len(parts) == 1
           else parts[0].replace("/0/", f"/0..{len(parts) - 1}/", 1)
           for parts in paths.values()]
  return (f"The pattern {pattern!r} decides on no parameter: it matches no "
          "path, or only those of a pattern before it. The paths are:\n  "
          + "\n  ".join(shown))
