"""What a process is set to, and runs on, as checkpoints keep it."""

import functools
import hashlib
import importlib.metadata
import os
import pathlib
import platform
import warnings
from collections.abc import Mapping, Sequence

import jax

# Settings of jax that decide how it compiles and rounds, and what a page's own
# keys draw; versions of jax differ in which there are.
_SETTINGS = (
    "jax_default_matmul_precision", "jax_random_seed_offset",
    "jax_high_dynamic_range_gumbel", "jax_softmax_custom_jvp",
    "jax_use_direct_linearize", "jax_scan3", "jax_remat3", "jax_custom_vjp3",
    "jax_disable_jit", "jax_disable_most_optimizations",
    "jax_optimization_level", "jax_exec_time_optimization_effort",
    "jax_memory_fitting_level", "jax_use_shardy_partitioner",
    "jax_cpu_collectives_implementation", "jax_enable_pgle")
# Those that `training.numerics` overrides in a program of this package, but
# not in what jax and Orbax send between processes.
_OVERRIDDEN = ("jax_enable_x64", "jax_default_prng_impl",
               "jax_threefry_partitionable")
_VARIABLES = ("XLA_FLAGS", "LIBTPU_INIT_ARGS", "NVIDIA_TF32_OVERRIDE")


def rounding() -> dict[str, str]:
  """What may change the last digits of a run, by name: versions, settings of
  jax, variables of XLA."""
  return {**code_versions(), **_settings(_SETTINGS),
          **{name: os.environ.get(name, "") for name in _VARIABLES}}


def process() -> dict[str, str]:
  """The same, and what else all processes of a run must have in common."""
  return rounding() | _settings(_OVERRIDDEN)


def _settings(names: Sequence[str]) -> dict[str, str]:
  values = jax.config.values
  # The attribute of a setting that has a context is this thread's value.
  return {name: str(getattr(jax.config, name, values[name])) for name in names
          if name in values}


def differences(old: Mapping[str, str]) -> str:
  """How this environment differs from that of results, in a sentence; "" if it
  does not."""
  now = rounding()
  differing = ", ".join(
      f"{name} {now[name] or 'not set'} (was {value or 'not set'})"
      for name, value in old.items() if now.get(name, value) != value)
  return differing and ("Not as when it was saved, so that the last digits may "
                        f"differ: {differing}.")


def warn(old: Mapping[str, str]) -> None:
  """Warns of `differences`."""
  if sentence := differences(old):
    warnings.warn(sentence, stacklevel=3)


@functools.cache
def code_versions() -> dict[str, str]:
  """A hash of the package's source, and versions of what it runs on."""
  digest = hashlib.sha256()
  root = pathlib.Path(__file__).parents[1]
  for path in sorted(root.rglob("*.py")):
    digest.update(f"{path.relative_to(root)}\0".encode())
    digest.update(path.read_bytes() + b"\0")
  return {"code": digest.hexdigest()[:12],
          "python": platform.python_version(),
          **{name: importlib.metadata.version(name)
             for name in ("jax", "jaxlib", "flax", "optax")}}
