"""One run over several processes: how they start, agree and stop.

Each process runs the same program over its own devices, and a computation over
all devices completes only if every process takes part. So what could differ
(options, code, data) is compared before the first step, and a process that
fails tells the others.
"""

import collections
import contextlib
import functools
import itertools
import json
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Literal

import jax
import numpy as np
import orbax.checkpoint as ocp
from jax.sharding import Mesh, NamedSharding, PartitionSpec as P

from bert_jax.config import UserError

Method = Literal["auto", "none", "coordinator"]
_exchanges, _exits = itertools.count(), itertools.count()
_hosts: list[str] = []  # names of the processes, from the first exchange on


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
  on_sigterm = signal.getsignal(signal.SIGTERM)
  try:
    if method == "coordinator":
      jax.distributed.initialize(*cluster.values(),
                                 cluster_detection_method="deactivate")
    # Kaggle's single host calls itself "local", which jax cannot resolve.
    elif os.environ.get("TPU_PROCESS_ADDRESSES") != "local":
      with contextlib.suppress(ValueError):  # Nothing says where one is.
        jax.distributed.initialize()
  except (RuntimeError, ValueError, OSError) as error:
    raise UserError("The processes of this run cannot connect: "
                    f"{error}") from error
  finally:
    if threading.current_thread() is threading.main_thread():
      # jax's preemption service has taken it, and nothing here asks that.
      signal.signal(signal.SIGTERM, on_sigterm or signal.SIG_DFL)
  # Counting the devices is a collective with a timeout: here, where all
  # processes are, and not where one may be minutes behind.
  if reason := no_devices():
    raise UserError(reason)
  count = jax.process_count()
  if count > 1 and not jax.distributed.is_initialized():
    raise UserError(f"This is one of {count} processes, but jax cannot tell "
                    "which; use --distributed coordinator.")


def first() -> bool:
  """Whether this is process 0, the one that prints and writes."""
  return jax.process_index() == 0


def no_devices() -> str:
  """Why jax has no devices here, as JAX_PLATFORMS may ask for others; "" where
  it has."""
  try:
    jax.devices()
  except (AssertionError, RuntimeError) as error:
    asked, reason = jax.config.jax_platforms, str(error).partition("\n")[0]
    return ((f"JAX_PLATFORMS={asked} is not here" if asked
             else "jax cannot use its devices")
            + (f": {reason}" if reason else "; without it jax takes what is."))
  return ""


def devices() -> str:
  """The number and kind of the devices of all processes."""
  return f"{jax.device_count()} x {jax.devices()[0].device_kind}"


def assert_equal(values: Mapping[str, str], error: str = "") -> None:
  """Waits for all processes, however late, and compares their values.

  Args:
    values: what must be equal everywhere, by name; the number of local devices
      is added.
    error: why this process cannot continue, if it cannot.

  Raises:
    UserError: on every process, with all errors or the values that differ.
  """
  if jax.process_count() == 1:
    if error:
      raise UserError(error)
    return
  hosts = gather({
      "host": f"{socket.gethostname()}:{jax.process_index()}", "error": error,
      "values": {**values, "local devices": str(jax.local_device_count())}})
  _hosts[:] = [host["host"] for host in hosts]
  check_equal(hosts)
  # The first collective over gloo (CPUs) fails where a process is 30 seconds
  # late; here, nobody is.
  any_host([False])()


def check_equal(hosts: Sequence[Mapping[str, Any]]) -> None:
  """
  Args:
    hosts: of each process its name (`host`), `error` and `values`.

  Raises:
    UserError: with all errors or the values that differ.
  """
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


def names(processes: Iterable[int]) -> str:
  """Their hosts and numbers, as "node:1 and 6 more"; known from the first
  `assert_equal` on."""
  return _names([_hosts[process] for process in processes])


def _names(hosts: Sequence[str]) -> str:
  """Host names, shortened: on a pod, most hosts agree."""
  if len(hosts) <= 2:
    return ", ".join(hosts)
  return f"{hosts[0]} and {len(hosts) - 1} more"


def gather(value: Any) -> list[Any]:
  """The values of all processes, by process; JSON. It waits for all of them.

  Through jax's coordination service: where processes are set otherwise, a
  computation over their devices would hang or abort.
  """
  if jax.process_count() == 1:
    return [value]
  client = ocp.multihost.get_jax_distributed_client()
  number = next(_exchanges)  # alike on all processes
  keys = [f"bert_jax/exchange/{number}/{process}"
          for process in range(jax.process_count())]
  client.key_value_set(keys[jax.process_index()], json.dumps(value))
  return [json.loads(_wait_for(client, key)) for key in keys]


def _wait_for(client: Any, key: str) -> str:
  """The value of a key, once it has one; one host may build a corpus for hours
  while the others have theirs."""
  while True:
    try:
      return client.blocking_key_value_get(key, 1000)
    except jax.errors.JaxRuntimeError as error:
      # In between, Python sees to signals.
      if "DEADLINE_EXCEEDED" not in str(error):
        raise


def broadcast(value: Any) -> Any:
  """The value of process 0, on every process; JSON."""
  return gather(value)[0]


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
  if (not jax.distributed.is_initialized() or no_devices()
      or jax.process_count() == 1):
    return error
  client = ocp.multihost.get_jax_distributed_client()
  name = f"bert_jax/exit/{next(_exits)}"
  try:
    if not _hosts:  # The others are waiting in their first assert_equal.
      assert_equal({}, error)
    client.key_value_set(f"{name}/{jax.process_index()}", "")
    client.wait_at_barrier(name, seconds * 1000)
  except UserError as common:
    return str(common)
  except Exception:  # A timeout, or the loss of the coordinator.
    print(f"{error.rstrip()}\n{_unanswering(client, name)}", file=sys.stderr,
          flush=True)
    sys.stdout.flush()
    os._exit(1)
  return error


def _unanswering(client: Any, name: str) -> str:
  """Which processes do not fail with this one, and what that may mean."""
  try:
    failed = {int(key.rpartition("/")[2])
              for key, _ in client.key_value_dir_get(name)}
    missing = [host for process, host in enumerate(_hosts)
               if process not in failed]
  except Exception:  # Its service has gone with process 0.
    missing = _hosts[:1]
  return (f"No answer from {_names(missing)}: ended, or waiting for this "
          "process. Once all have ended, the same command on all hosts resumes "
          "from the last checkpoint.")


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
