"""One run over several processes: how they start, agree and stop.

Each process runs the same program over its own devices, and a computation over
all devices completes only if every process takes part. So what could differ
(options, code, data) is compared before the first step, and a process that
fails tells the others.
"""

import collections
import functools
import hashlib
import importlib.metadata
import itertools
import json
import os
import pathlib
import platform
import socket
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Literal

import jax
import numpy as np
import orbax.checkpoint as ocp
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding, PartitionSpec as P

from bert_jax.config import UserError

Method = Literal["auto", "none", "coordinator"]
# One host may build a corpus for hours while the others have theirs.
_TIMEOUT_MS = 7 * 24 * 3600 * 1000
_barriers: list[str] = []

# Settings of jax that decide how it compiles and rounds, and what a page's own
# keys draw; versions of jax differ in which there are.
_SETTINGS = (
    "jax_default_matmul_precision", "jax_random_seed_offset",
    "jax_high_dynamic_range_gumbel", "jax_softmax_custom_jvp",
    "jax_use_direct_linearize", "jax_scan3", "jax_remat3", "jax_custom_vjp3",
    "jax_disable_jit", "jax_disable_most_optimizations",
    "jax_optimization_level", "jax_exec_time_optimization_effort",
    "jax_memory_fitting_level", "jax_memory_fitting_effort",
    "jax_compiler_enable_remat_pass", "jax_use_shardy_partitioner",
    "jax_threefry_gpu_kernel_lowering", "jax_cpu_collectives_implementation",
    "jax_enable_pgle")
# Those that `training.numerics` overrides in a program of this package, but
# not in what jax and Orbax send between processes.
_OVERRIDDEN = ("jax_enable_x64", "jax_default_prng_impl",
               "jax_threefry_partitionable")
_VARIABLES = ("XLA_FLAGS", "LIBTPU_INIT_ARGS", "NVIDIA_TF32_OVERRIDE")


def start(method: Method = "auto", coordinator: str | None = None,
          processes: int | None = None, process: int | None = None) -> None:
  """Joins the processes of this run; call it before any other use of jax.

  Args:
    method: "auto" asks jax, which knows Cloud TPU slices, TPUs on GKE, srun,
      Open MPI's mpirun and Kubernetes jobs, and starts alone elsewhere;
      "none" always starts alone; "coordinator" takes the other arguments.
    coordinator: host:port of process 0, a free port there.
    processes: their number.
    process: which one this is, from 0.

  Raises:
    UserError: missing or surplus arguments, or the processes cannot connect.
  """
  cluster = {"--coordinator HOST:PORT": coordinator, "--processes N": processes,
             "--process I": process}
  missing = [flag for flag, value in cluster.items() if value is None]
  if len(missing) != (0 if method == "coordinator" else len(cluster)):
    raise UserError("--distributed coordinator needs "
                    f"{', '.join(cluster)}, and only that takes them.")
  if method == "none" or jax.distributed.is_initialized():
    return
  try:
    if method == "coordinator":
      jax.distributed.initialize(*cluster.values(),
                                 cluster_detection_method="deactivate")
    # Kaggle's single host calls itself "local", which jax cannot resolve.
    elif os.environ.get("TPU_PROCESS_ADDRESSES") != "local":
      _initialize_cluster()
    # Counting the devices is a collective with a timeout: here, where all
    # processes are, and not where one may be minutes behind.
    count = jax.process_count()
  except (RuntimeError, ValueError, OSError) as error:
    raise UserError("The processes of this run cannot connect: "
                    f"{error}") from error
  if count > 1 and not jax.distributed.is_initialized():
    raise UserError(f"This is one of {count} processes, but jax cannot tell "
                    "which; use --distributed coordinator.")


def _initialize_cluster() -> None:
  """Initializes jax.distributed unless jax recognizes no cluster."""
  try:
    jax.distributed.initialize()
  except ValueError:  # Nothing says where a coordinator is.
    pass


def first() -> bool:
  """Whether this is process 0, the one that prints and writes."""
  return jax.process_index() == 0


def devices() -> str:
  """The number and kind of the devices of all processes."""
  return f"{jax.device_count()} x {jax.devices()[0].device_kind}"


def environment() -> dict[str, str]:
  """What may change the last digits of a run, by name: versions, settings of
  jax, variables of XLA."""
  return {**code_versions(), **_settings(_SETTINGS),
          **{name: os.environ.get(name, "") for name in _VARIABLES}}


def _settings(names: Sequence[str]) -> dict[str, str]:
  values = jax.config.values
  # The attribute of a setting that has a context is this thread's value.
  return {name: str(getattr(jax.config, name, values[name])) for name in names
          if name in values}


def differences(old: Mapping[str, str]) -> str:
  """How this environment differs from an older one, in one line; "" if it
  does not."""
  now = environment()
  return ", ".join(
      f"{name} {now[name] or 'not set'} (was {value or 'not set'})"
      for name, value in old.items() if now.get(name, value) != value)


@functools.cache
def code_versions() -> dict[str, str]:
  """A hash of the package's source, and versions of what it runs on."""
  digest = hashlib.sha256()
  root = pathlib.Path(__file__).parent
  for path in sorted(root.rglob("*.py")):
    digest.update(f"{path.relative_to(root)}\0".encode())
    digest.update(path.read_bytes() + b"\0")
  return {"code": digest.hexdigest()[:12],
          "python": platform.python_version(),
          **{name: importlib.metadata.version(name)
             for name in ("jax", "jaxlib", "flax", "optax")}}


def assert_equal(values: Mapping[str, str], error: str = "") -> None:
  """Waits for all processes, however late, and compares their values.

  Args:
    values: what must be equal everywhere, by name; the number of local devices
      and the environment are added.
    error: why this process cannot continue, if it cannot.

  Raises:
    UserError: on every process, with all errors or the values that differ.
  """
  if jax.process_count() == 1:
    if error:
      raise UserError(error)
    return
  hosts = _exchange({
      "host": f"{socket.gethostname()}:{jax.process_index()}", "error": error,
      "values": {**values, **environment(), **_settings(_OVERRIDDEN),
                 "local devices": str(jax.local_device_count())}})
  errors = _grouped((host["error"], host["host"]) for host in hosts)
  errors.pop("", None)
  if errors:
    raise UserError("\n".join(
        f"{_names(names)}: {message}" for message, names in errors.items()))
  groups = _grouped((json.dumps(host["values"], sort_keys=True), host["host"])
                    for host in hosts)
  if len(groups) > 1:
    columns = [json.loads(text) for text in groups]
    differing = [
        name for name in dict.fromkeys(itertools.chain(*columns))
        if len({column.get(name) for column in columns}) > 1]
    names = list(map(_names, groups.values()))
    raise UserError("\n  ".join(["Processes disagree on:", *(
        f"{key}: " + ", ".join(f"{column.get(key, '-')} ({name})"
                               for column, name in zip(columns, names))
        for key in differing)]))


def _grouped(pairs: Iterable[tuple[str, str]]) -> dict[str, list[str]]:
  """The second elements of pairs by the first."""
  groups = collections.defaultdict(list)
  for key, name in pairs:
    groups[key].append(name)
  return dict(groups)


def _names(hosts: Sequence[str]) -> str:
  """Host names, shortened: on a pod, most hosts agree."""
  if len(hosts) <= 2:
    return ", ".join(hosts)
  return f"{hosts[0]} and {len(hosts) - 1} more"


def _wait_for_all(name: str, milliseconds: int) -> None:
  _barriers.append(f"bert_jax_{name}_{len(_barriers)}")
  ocp.multihost.get_barrier_sync_fn()(key=_barriers[-1],
                                      timeout_ms=milliseconds)


def _exchange(value: Any) -> list[Any]:
  """The values of all processes, by process; JSON."""
  # The first collective over gloo (CPUs) times out after 30 seconds; the
  # barrier does not.
  _wait_for_all("exchange", _TIMEOUT_MS)
  data = np.frombuffer(json.dumps(value).encode(), np.uint8)
  sizes = multihost_utils.process_allgather(np.int32(len(data)))
  padded = np.zeros(sizes.max(), np.uint8)
  padded[:len(data)] = data
  return [json.loads(row[:size].tobytes()) for row, size in zip(
      multihost_utils.process_allgather(padded), sizes)]


def broadcast(value: Any) -> Any:
  """The value of process 0, on every process; JSON."""
  return value if jax.process_count() == 1 else _exchange(value)[0]


def exit_together(error: str, seconds: int = 20) -> str:
  """Ends a failed process so that no other one waits for it forever.

  The others may be inside a computation over all devices. Unless they fail
  too, this process exits without cleaning up: the exit of process 0 ends the
  others at once, that of another one when its heartbeat is missed, in less
  than two minutes.

  Args:
    error: why this process failed; not printed yet.
    seconds: how long to wait for the others to fail too.

  Returns:
    The message to print: the error, or what all processes agreed on.
  """
  if not jax.distributed.is_initialized() or jax.process_count() == 1:
    return error
  try:
    if not _barriers:  # The others are waiting in their first assert_equal.
      assert_equal({}, error)
    _wait_for_all("exit", seconds * 1000)
  except UserError as common:
    return str(common)
  except Exception:  # A timeout, or the loss of the coordinator.
    print(error, file=sys.stderr, flush=True)
    sys.stdout.flush()
    os._exit(1)
  return error


def any_host(flags: Sequence[bool]) -> Callable[[], list[bool]]:
  """Whether each flag is set on any process, computed asynchronously.

  Every process calls this at the same step. It does not wait; the function
  that it returns does, and gives the same answer on all of them.
  """
  flags = [bool(flag) for flag in flags]
  if jax.process_count() == 1:
    return lambda: flags
  sharding, highest = _over_all_devices()
  row = np.array([flags], np.int32)
  answer = highest(jax.make_array_from_callback(
      (jax.device_count(), len(flags)), sharding, lambda _: row))
  return lambda: [bool(flag) for flag in np.asarray(answer)]


@functools.cache
def _over_all_devices() -> tuple[NamedSharding, Callable]:
  mesh = Mesh(np.asarray(jax.devices()), ("device",))
  return NamedSharding(mesh, P("device")), jax.jit(
      lambda flags: flags.max(axis=0), out_shardings=NamedSharding(mesh, P()))
