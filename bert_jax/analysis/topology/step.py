"""The training step of an experiment, compiled for TPUs that are not here."""

import dataclasses
import re
import time
from collections.abc import Mapping, Sequence

import jax

from bert_jax.analysis.topology import absent, bundles
from bert_jax.analysis.topology.bundles import Schedule
from bert_jax.analysis.topology.chips import Topology
from bert_jax.analysis.topology.layers import Repeated, memory, shortened
from bert_jax.config import UserError
from bert_jax.experiment import Experiment, workload
from bert_jax.parallel import cost
from bert_jax.parallel.cost import Plan, Workload
from bert_jax.parallel.layouts import MeshLayout, Runner
from bert_jax.parallel.mesh import AXES


class TooLarge(Exception):
  """The step needs more memory than a chip has.

  Attributes:
    needed: bytes; 0: unknown.
    microbatches: of the step.
  """

  def __init__(self, needed: int, microbatches: int):
    super().__init__(needed)
    self.needed, self.microbatches = needed, microbatches


@dataclasses.dataclass(frozen=True, eq=False)
class CompiledStep:
  """
  Attributes:
    shape: of the mesh: data, fsdp, tensor.
    devices: in the order of the program's numbers.
    text: what the compiler made of it (HLO).
    repeated: what its layers stand for.
    schedules: of its operations and kernels, by name.
    memory: bytes of a chip by what holds them.
    seconds: that compiling took.
  """

  work: Workload
  shape: tuple[int, int, int]
  devices: Sequence[jax.Device]
  text: str
  repeated: Repeated
  schedules: Mapping[str, Schedule]
  memory: Mapping[str, int]
  seconds: float


def compile_step(experiment: Experiment, topology: Topology) -> CompiledStep:
  """The step as it is trained, its data unseen.

  Unless `model.scan_unroll` is given, two of its layers, or trips of a pattern,
  stand for all of them.

  Raises:
    UserError: it cannot lie on these chips, or there is no compiler for them.
    TooLarge: it does not fit.
  """
  if not isinstance(experiment.layout, MeshLayout):
    raise UserError(f"layout={experiment.layout.choice_name} is of the devices "
                    "that are here; for others set layout=mesh.")
  devices = absent.devices(topology)
  limit = topology.chip.memory
  work = workload(experiment).on(devices[0])
  runner = experiment.layout.build_on(devices, limit, work)
  shape, parts = tuple(runner.mesh.devices.shape), runner.recipe.parts
  work = work.in_parts(parts)
  full = cost.price(work, shape)
  experiment, layers = shortened(experiment)
  if layers != 1:
    short = workload(experiment).on(devices[0])
    layout = dataclasses.replace(experiment.layout, **dict(zip(AXES, shape)))
    runner = layout.build_on(devices, limit, short.in_parts(parts))
  else:
    short = work
  planned = cost.price(short, shape)
  repeated = Repeated(layers, full.parameters / planned.parameters)
  text, schedules, stats, seconds = _compile(runner, short)
  used = memory(_used(stats, planned), full, planned, repeated)
  if sum(used.values()) > limit:
    raise TooLarge(sum(used.values()), parts)
  return CompiledStep(work, shape, list(runner.mesh.devices.flat), text,
                      repeated, schedules, used, seconds)


def _compile(runner: Runner, work: Workload
             ) -> tuple[str, Mapping[str, Schedule], object, float]:
  """The program's text, schedules and memory, and the seconds that it took."""
  folder = absent.schedules()
  bundles.clear(folder)
  start = time.monotonic()
  # What is read from jax's cache has no schedules.
  cached = jax.config.jax_enable_compilation_cache
  jax.config.update("jax_enable_compilation_cache", False)
  try:
    compiled = runner.step.lower(
        work.state, work.rows(work.batch_size)).compile()
  except jax.errors.JaxRuntimeError as error:
    raise _reason(error, runner.recipe.parts) from None
  finally:
    jax.config.update("jax_enable_compilation_cache", cached)
  seconds = time.monotonic() - start
  schedules = bundles.read(folder)
  bundles.clear(folder)
  return compiled.as_text(), schedules, compiled.memory_analysis(), seconds


def _used(stats: object, plan: Plan) -> dict[str, int]:
  """Of a chip, by what holds it."""
  state = plan.parameters + plan.optimizer
  return {
      "parameters": plan.parameters, "optimizer": plan.optimizer,
      # Arguments are padded to the chip's tiles.
      "batch and padding": max(0, stats.argument_size_in_bytes - state),
      "results": stats.output_size_in_bytes - stats.alias_size_in_bytes,
      "gradients and activations": stats.temp_size_in_bytes,
      "program": stats.generated_code_size_in_bytes}


_UNITS = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}
# "... HLO temporaries (16.03G) exceeds available HBM", "Used 22.3G of 15.75G".
_NEEDED = re.compile(r"(?:required [^(]*\(|Used )([\d.]+)([KMGT]?)")


def _reason(error: Exception, microbatches: int) -> Exception:
  """Why it was not compiled."""
  text = str(error)
  if "RESOURCE_EXHAUSTED" not in text:
    return error
  needed = _NEEDED.search(text)
  return TooLarge(round(float(needed[1]) * _UNITS[needed[2]]) if needed else 0,
                  microbatches)
