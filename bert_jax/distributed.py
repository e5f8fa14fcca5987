"""One run over several processes: how they meet, and how they stay of one mind.

Each process runs the same program over its own devices, and a program over all
devices goes on only where every process takes part in it. So what could differ
(options, code, data) is compared before the first step, and a host that fails
tells the others.
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
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding, PartitionSpec as P

from bert_jax.config import UserError

# One host may build a corpus for hours while the others have theirs.
_PATIENCE_MS = 7 * 24 * 3600 * 1000
_meetings: list[str] = []


def start(coordinator: str = "", processes: int | None = None,
          process: int | None = None) -> None:
  """Joins the processes of this run, if there are several.

  Before any other use of jax. Without arguments the environment is asked: a
  slice of Cloud TPU hosts, TPUs on GKE, the tasks of an srun, or mpirun of Open
  MPI; anywhere else, as in a notebook, nothing happens.

  Args:
    coordinator: host:port of process 0, a free port there.
    processes: how many there are; 1: this one is alone, whatever the
      environment says.
    process: which one this is, from 0.

  Raises:
    UserError: some arguments without the others, or the processes do not
      find each other.
  """
  given = (coordinator or None, processes, process)
  explicit = any(value is not None for value in given)
  if processes == 1 or jax.distributed.is_initialized():
    return
  if explicit:
    _check(*given)
  elif _count(os.environ, "tpu" in (jax.config.jax_platforms or ""),
              _metadata) < 2:
    return
  try:
    jax.distributed.initialize(
        *given, cluster_detection_method="deactivate" if explicit else None)
    # The devices are counted together, with limits of time. It is done here,
    # where all processes are, and not where one is minutes behind.
    jax.devices()
  except (RuntimeError, ValueError) as error:
    raise UserError(f"The processes of this run do not meet: {error}"
                    ) from error


def _check(coordinator: str | None, processes: int | None,
           process: int | None) -> None:
  flags = {"--coordinator HOST:PORT": coordinator, "--processes N": processes,
           "--process I": process}
  missing = [flag for flag, value in flags.items() if value is None]
  if missing:
    raise UserError(
        f"{', '.join(flags)} belong together; missing: {', '.join(missing)}. "
        "Without any of them the hosts of a TPU slice, of GKE or of SLURM "
        "find each other.")
  host, _, port = coordinator.rpartition(":")
  if not host or not port.isdecimal() or not 0 < int(port) < 1 << 16:
    raise UserError(f"--coordinator {coordinator}: give the host of process 0 "
                    "and a free port there, as in 10.0.0.2:8476.")
  if not 0 <= process < processes:
    raise UserError(f"--process {process} of --processes {processes}: they "
                    f"are counted from 0 to {processes - 1}.")


def _count(environment: Mapping[str, str], on_tpu: bool,
           metadata: Callable[[str], str]) -> int:
  """How many processes the environment tells of, where jax can find them.

  jax looks at the same variables, but takes one host for several on some
  notebooks, and asks a server for them where there is none.

  Args:
    environment: as os.environ.
    on_tpu: jax found TPUs of Google's, and will use them.
    metadata: gives an attribute of this virtual machine, or "".
  """
  number = lambda name: int(environment.get(name, 0) or 0)
  if "OMPI_MCA_orte_hnp_uri" in environment:
    return number("OMPI_COMM_WORLD_SIZE")
  # A batch script has the number of its tasks too, but no step that runs them.
  if {"SLURM_JOB_ID", "SLURM_STEP_NODELIST", "SLURM_PROCID",
      "SLURM_LOCALID"} <= environment.keys():
    return number("SLURM_NTASKS")
  if not on_tpu:
    return 1
  # GKE sets these; Kaggle too, to "local".
  for name in ("TPU_PROCESS_ADDRESSES", "TPU_WORKER_HOSTNAMES"):
    if name in environment:
      hosts = environment[name].count(",") + 1
      return hosts * (number("MEGASCALE_NUM_SLICES") or 1)
  # Set where there is no such server, as on Colab.
  if "TPU_SKIP_MDS_QUERY" in environment:
    return 1
  slices = environment.get("MEGASCALE_NUM_SLICES") or next(
      (line.partition(":")[2].strip(" '\"")
       for line in metadata("tpu-env").splitlines()
       if line.strip().startswith("MEGASCALE_NUM_SLICES:")), "1")
  return (metadata("worker-network-endpoints").count(",") + 1) * int(slices)


def _metadata(key: str) -> str:
  """An attribute of this Google virtual machine; "" where it has none.

  Raises:
    UserError: nobody answers. To go on alone would be worse: every host of a
      slice would take itself for the only one.
  """
  host = os.environ.get("GCE_METADATA_IP", "metadata.google.internal")
  request = urllib.request.Request(
      f"http://{host}/computeMetadata/v1/instance/attributes/{key}",
      headers={"Metadata-Flavor": "Google"})
  for delay in (0, 1, 4, 16):
    time.sleep(delay)
    try:
      with urllib.request.urlopen(request, timeout=10) as reply:
        return reply.read().decode()
    except urllib.error.HTTPError as error:
      if error.code == 404:
        return ""
      failure = error
    except OSError as error:
      failure = error
  raise UserError(
      f"This host has TPUs, but {host} does not tell whether others belong to "
      f"its slice ({failure}). Say so: --processes 1 for this host alone, or "
      "--coordinator, --processes and --process.")


def first() -> bool:
  """Whether this is process 0: the one that prints and writes."""
  return jax.process_index() == 0


def devices() -> str:
  """How many there are of all processes, and which."""
  return f"{jax.device_count()} x {jax.devices()[0].device_kind}"


def code_versions() -> dict[str, str]:
  """What runs here: a hash of the package's source, and versions."""
  digest = hashlib.sha256()
  root = pathlib.Path(__file__).parent
  for path in sorted(root.rglob("*.py")):
    digest.update(f"{path.relative_to(root)}\0".encode())
    digest.update(path.read_bytes() + b"\0")
  return {"code": digest.hexdigest()[:12],
          "python": platform.python_version(),
          **{name: importlib.metadata.version(name)
             for name in ("jax", "jaxlib", "flax", "optax")}}


def assert_equal(facts: Mapping[str, str], error: str = "") -> None:
  """Waits for all processes, however late, and compares what they are about.

  Args:
    facts: what must be the same everywhere, as texts by name; the number of
      local devices is added.
    error: why this process cannot go on, if so.

  Raises:
    UserError: on every process: errors, or the facts that differ.
  """
  if jax.process_count() == 1:
    if error:
      raise UserError(error)
    return
  hosts = _exchange({
      "host": f"{socket.gethostname()}:{jax.process_index()}", "error": error,
      "facts": {**facts, "local devices": str(jax.local_device_count())}})
  errors = _together((host["error"], host["host"]) for host in hosts)
  errors.pop("", None)
  if errors:
    raise UserError("\n".join(
        f"{_names(names)}: {message}" for message, names in errors.items()))
  groups = _together((json.dumps(host["facts"], sort_keys=True), host["host"])
                     for host in hosts)
  if len(groups) > 1:
    columns = [json.loads(text) for text in groups]
    differing = [
        name for name in dict.fromkeys(itertools.chain(*columns))
        if len({column.get(name) for column in columns}) > 1]
    names = list(map(_names, groups.values()))
    raise UserError("\n  ".join(["Processes disagree on:", *(
        f"{fact}: " + ", ".join(f"{column.get(fact, '-')} ({name})"
                                for column, name in zip(columns, names))
        for fact in differing)]))


def _together(pairs) -> dict[str, list[str]]:
  """Second elements by the first."""
  groups = collections.defaultdict(list)
  for key, name in pairs:
    groups[key].append(name)
  return dict(groups)


def _names(hosts: Sequence[str]) -> str:
  """Of a pod's hosts mostly all but one are alike."""
  if len(hosts) <= 2:
    return ", ".join(hosts)
  return f"{hosts[0]} and {len(hosts) - 1} more"


def _wait_for_all(name: str, milliseconds: int) -> None:
  _meetings.append(f"bert_jax_{name}_{len(_meetings)}")
  ocp.multihost.get_barrier_sync_fn()(key=_meetings[-1],
                                      timeout_ms=milliseconds)


def _exchange(words: Any) -> list[Any]:
  """What every process says, in their order; JSON."""
  # The first collective gives up after 30 seconds where gloo is in use, on
  # CPUs; this does not.
  _wait_for_all("exchange", _PATIENCE_MS)
  data = np.frombuffer(json.dumps(words).encode(), np.uint8)
  sizes = multihost_utils.process_allgather(np.int32(len(data)))
  padded = np.zeros(sizes.max(), np.uint8)
  padded[:len(data)] = data
  return [json.loads(row[:size].tobytes()) for row, size in zip(
      multihost_utils.process_allgather(padded), sizes)]


def broadcast(value: Any) -> Any:
  """What process 0 calls this with, on every process; JSON."""
  return value if jax.process_count() == 1 else _exchange(value)[0]


def exit_together(error: str, seconds: int = 20) -> str:
  """What this process shall say at its end, when it failed.

  The others may be in the middle of a program over all devices, and would wait
  for this one for ever. So unless they fail too, this process is ended hard:
  that of process 0 ends the others at once, that of another one as soon as it
  is missed, in less than two minutes.

  Args:
    error: why it failed, which it has not said yet.
    seconds: that others may take to fail too.
  """
  if not jax.distributed.is_initialized() or jax.process_count() == 1:
    return error
  try:
    if not _meetings:  # It failed early, and the others wait where all agree.
      assert_equal({}, error)
    _wait_for_all("part", seconds * 1000)
  except UserError as common:
    return str(common)
  except Exception:  # Whatever a meeting that nobody comes to ends in.
    print(error, file=sys.stderr, flush=True)
    sys.stdout.flush()
    os._exit(1)
  return error


def any_host(flags: Sequence[bool]) -> Callable[[], list[bool]]:
  """Each flag as it stands on any process: asked now, read later.

  Every process calls this at the same step, and does not wait; what is
  returned waits for the answer, which is the same on all of them.
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
