"""TPUs that are not here, and the schedules that their compiler writes."""

import functools
import importlib.util
import os
import pathlib
import tempfile
from collections.abc import Sequence

import jax
from jax.experimental import topologies

from bert_jax.analysis.topology.chips import Topology
from bert_jax.config import UserError

# So that libtpu neither asks the machine for a TPU nor minds another program
# that uses one, and keeps quiet.
_ENVIRONMENT = {
    "TPU_SKIP_MDS_QUERY": "1", "TPU_WORKER_HOSTNAMES": "localhost",
    "TPU_ACCELERATOR_TYPE": "v5litepod-1", "TPU_LOG_DIR": "disabled",
    "TPU_MIN_LOG_LEVEL": "3", "ALLOW_MULTIPLE_LIBTPU_LOAD": "1"}
# The schedule of each fusion and kernel, a line an instruction bundle.
_SCHEDULES = (" --xla_jf_dump_to={} --xla_jf_dump_llo_text=true"
              " --xla_jf_dump_llo_pass_label_regex=^final_bundles$")


def available() -> bool:
  """Whether there is a compiler for TPUs."""
  return importlib.util.find_spec("libtpu") is not None


def devices(topology: Topology) -> Sequence[jax.Device]:
  """
  Raises:
    UserError: there is no compiler for it, or no such topology.
  """
  if not available():
    raise UserError(
        "--topology compiles for TPUs, which takes libtpu (300 MB, no TPU): "
        "pip install 'bert_jax[tpu-plan]', or in a checkout "
        "pip install -e '.[tpu-plan]'.")
  if jax.__version_info__ < (0, 10):
    raise UserError(f"--topology takes jax 0.10 or newer; with {jax.__version__} "
                    "the compiler ends the process.")
  schedules()
  more = {"num_slices": topology.slices} if topology.slices > 1 else {}
  if topology.chip.name == "v4":
    more["chip_config_name"] = "megacore"  # One device a chip, as in use.
  try:
    return topologies.get_topology_desc(
        platform="tpu", topology_name=topology.name, **more).devices
  except jax.errors.JaxRuntimeError as error:
    raise UserError(f"topology {topology.name}: libtpu knows no such one: "
                    + str(error).partition("\n")[0]) from None


@functools.cache
def schedules() -> pathlib.Path:
  """The folder that schedules are written to, until the process ends.

  libtpu reads its settings when it is loaded, so this has to come first.
  """
  folder = tempfile.TemporaryDirectory(prefix="bert_jax_schedules_")
  _KEPT.append(folder)
  for name, value in _ENVIRONMENT.items():
    os.environ.setdefault(name, value)
  os.environ["LIBTPU_INIT_ARGS"] = (
      os.environ.get("LIBTPU_INIT_ARGS", "") + _SCHEDULES.format(folder.name))
  # Nothing runs on this machine's TPUs, if it has any.
  jax.config.update("jax_platforms", "cpu")
  return pathlib.Path(folder.name)


_KEPT: list[tempfile.TemporaryDirectory] = []  # It is removed with the object.
