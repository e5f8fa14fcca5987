"""Types and random bits that no setting of the process changes.

JAX_ENABLE_X64, JAX_DEFAULT_PRNG_IMPL and others, or `jax.config.update` in a
notebook, change the types and the random bits of whatever is traced. All that
this package compiles is traced under `fixed_settings`, so that the same run
gives the same numbers everywhere. How its sums are rounded is left to the
settings; `checkpoints.environment` says what they are.
"""

import contextlib
import functools
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.experimental
import jax.numpy as jnp

_GENERATOR = "threefry2x32"
# Older versions of jax have it there.
_enable_x64 = (jax if hasattr(jax, "enable_x64") else jax.experimental
               ).enable_x64


@contextlib.contextmanager
def fixed_settings() -> Iterator[None]:
  """Types of 32 bits and jax's own default generator, in this thread.

  It is a decorator too.
  """
  with (_enable_x64(False), jax.default_prng_impl(_GENERATOR),
        jax.threefry_partitionable(True)):
    yield


def jit(function: Callable[..., Any], **options: Any) -> Callable[..., Any]:
  """`jax.jit` under the fixed settings, with its `lower`."""
  compiled = jax.jit(function, **options)
  call = functools.wraps(function)(fixed_settings()(compiled))
  call.lower = fixed_settings()(compiled.lower)
  return call


eval_shape = fixed_settings()(jax.eval_shape)


def key(seed: jax.Array | int) -> jax.Array:
  """The typed key that `jax.random.key` gives for an int32 by default.

  By name: JAX_RANDOM_SEED_OFFSET is added to what jax makes of a seed.
  """
  words = jnp.stack([jnp.uint32(0), jnp.asarray(seed, jnp.int32).astype(
      jnp.uint32)])
  return jax.random.wrap_key_data(words, impl=_GENERATOR)
