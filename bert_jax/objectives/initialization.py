"""Initial values of parameters, each a function of (seed, path) alone.

Flax numbers the parameters of a module in the order in which it draws them,
and what it folds into a key depends on how modules share their scopes: a
module that is added, or declared earlier, would change the values of others.
"""

import contextvars
import hashlib
from collections.abc import Callable
from typing import Any

import flax.core
import flax.linen as nn
import jax
import numpy as np

_FLAX = flax.core.Scope.param
_BY_PATH = contextvars.ContextVar("drawn by path", default=False)


def path_key(key: jax.Array, path: str) -> jax.Array:
  """The key of the parameter `path`, as in mlm/transform/kernel."""
  digest = hashlib.sha256(path.encode()).digest()
  return jax.random.fold_in(key, np.uint32(int.from_bytes(digest[:4], "big")))


def initialize(module: nn.Module, key: jax.Array, *inputs: Any) -> Any:
  """The parameters of `module.init`, each drawn by `path_key`.

  A loop over layers splits `key`, so that the values of layer n depend on
  (seed, path, n) and not on the number of layers.
  """
  flax.core.Scope.param = _param
  token = _BY_PATH.set(True)
  try:
    return module.init(key, *inputs)["params"]
  finally:
    _BY_PATH.reset(token)


def _param(scope: flax.core.Scope, name: str, init: Callable[..., Any],
           *arguments: Any, **options: Any) -> Any:
  """`Scope.param`, by which all modules and loops make their parameters, with
  another key for `init`; as it was outside of `initialize`.

  Flax has no option for it. It stays once it was needed, so that several
  threads may initialize at a time.
  """
  if not _BY_PATH.get() or not scope.has_rng("params"):
    return _FLAX(scope, name, init, *arguments, **options)
  # The key of the run, or in a loop that of the trip, without what flax folds
  # in at each scope.
  key = path_key(scope.rngs["params"].rng, "/".join((*scope.path, name)))
  return _FLAX(scope, name, lambda _, *rest, **more: init(key, *rest, **more),
               *arguments, **options)
