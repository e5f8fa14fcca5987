"""How fast a step is on TPUs that are not here: predicted, not measured."""

import collections
import dataclasses
import importlib.metadata
from collections.abc import Callable, Iterator, Mapping, Sequence

import jax

from bert_jax import config
from bert_jax.analysis import step_time
from bert_jax.analysis.topology import absent, collectives, hlo
from bert_jax.analysis.topology.chips import Topology
from bert_jax.analysis.topology.layers import repeat
from bert_jax.analysis.topology.step import (
    CompiledStep, TooLarge, compile_step)
from bert_jax.analysis.topology.timeline import Item, Timeline
from bert_jax.config import UserError
from bert_jax.experiment import Experiment


@dataclasses.dataclass(frozen=True)
class Part:
  """A part of the network in a step.

  Attributes:
    seconds: without what the network between chips takes.
    products: seconds of its matrix products at the chip's peak, but those of
      kernels.
    memory: seconds of operations that wait for HBM.
  """

  seconds: float
  products: float
  memory: float


@dataclasses.dataclass(frozen=True)
class Sent:
  """Collectives of a kind in a step.

  Attributes:
    count, bytes: of a step.
    seconds: that they take by themselves.
    exposed: seconds of it that the core waits.
    asynchronous: whether others run meanwhile.
  """

  count: int
  bytes: int
  seconds: float
  exposed: float
  asynchronous: bool


@dataclasses.dataclass(frozen=True)
class Prediction:
  """Of a step.

  Attributes:
    change: override that the experiment needs to fit, "" where it fits.
    needed: bytes that it needs without that change.
    experiment: with the change.
    shape: chips along data, fsdp and tensor.
    microbatches: of a step.
    layers: for how many each that was compiled stands.
    step: seconds.
    parts: of the network, by name.
    sent: collectives, by kind and whether they are asynchronous.
    memory: bytes of a chip by what holds them.
    flops: of a step, on all chips.
    compiling: seconds.
    unknown: operations whose time is not known, and counts as nothing.
  """

  topology: Topology
  change: str
  needed: int
  experiment: Experiment
  shape: tuple[int, int, int]
  microbatches: int
  layers: float
  step: float
  parts: Mapping[str, Part]
  sent: Mapping[str, Sent]
  memory: Mapping[str, int]
  flops: int
  compiling: float
  unknown: tuple[str, ...]

  @property
  def tokens_per_second(self) -> float:
    return self.experiment.batch_size * self.experiment.data.length / self.step

  @property
  def mfu(self) -> float:
    """Model FLOPs utilization (Chowdhery et al. 2022): of the chips' peak."""
    return self.flops / (
        self.step * self.topology.chips * self.topology.chip.peak)

  @property
  def exposed(self) -> float:
    """Seconds that a chip waits for others."""
    return sum(sent.exposed for sent in self.sent.values())

  @property
  def steps(self) -> int | None:
    """Of the run; None: they follow from the data."""
    return step_time.steps(self.experiment)

  @property
  def hours(self) -> float | None:
    """Of the run, without evaluations and saves."""
    return None if self.steps is None else self.steps * self.step / 3600

  def dollars(self, price: float) -> float | None:
    """Of the run.

    Args:
      price: of a chip for an hour.
    """
    return self.hours and self.hours * self.topology.chips * price


def predict(experiment: Experiment, topology: Topology,
            say: Callable[[str], None] = lambda text: None) -> Prediction:
  """
  Args:
    say: called with what takes a while.

  Raises:
    UserError: it cannot lie there, or nothing near it fits.
  """
  say(f"compiling the step for {topology.chips} chips {topology.name}, "
      "a minute or two")
  try:
    return read(compile_step(experiment, topology), experiment, topology)
  except TooLarge as error:
    needed, parts = error.needed, error.microbatches
  for change in _smaller(experiment, topology, needed, parts):
    say(f"it does not fit; compiling it with {change}")
    smaller = config.override(experiment, change.split())
    try:
      return dataclasses.replace(
          read(compile_step(smaller, topology), smaller, topology),
          change=change, needed=needed)
    except (TooLarge, UserError):
      continue
  raise UserError(
      f"The step needs {needed / 1e9:.3g} GB of a chip, which has "
      f"{topology.chip.memory / 1e9:.3g} GB; neither microbatches nor "
      "model.remat=true make it fit. A smaller batch_size or data.length, or "
      "more chips, need less.")


def _smaller(experiment: Experiment, topology: Topology, needed: int,
             parts: int) -> Iterator[str]:
  """Changes that may fit, the nearest first.

  Args:
    needed: bytes that `parts` microbatches need.
  """
  limit = topology.chip.memory
  # As if all of it were activations.
  least = parts * max(1.0, needed / limit)
  rows = experiment.batch_size // topology.chips
  counts = [n for n in range(parts + 1, rows + 1)
            if rows % n == 0 and n >= least]
  yield from (f"microbatches={n}" for n in counts[:2])
  if not experiment.model.remat:
    yield "model.remat=true"
    yield from (f"microbatches={n} model.remat=true" for n in counts[:1])


def read(compiled: CompiledStep, experiment: Experiment,
         topology: Topology) -> Prediction:
  """From a compiled step."""
  return _read(compiled, experiment, topology, compiled.devices)


def scale(compiled: CompiledStep, experiment: Experiment,
          topology: Topology) -> Prediction:
  """The same rows a chip on another number of chips, without compiling.

  Its collectives over all chips are priced for the others.

  Raises:
    UserError: the step is split by more than the rows.
  """
  if compiled.shape[1:] != (1, 1):
    raise UserError("Only layouts that split nothing but rows are scaled; set "
                    "layout.fsdp=1 layout.tensor=1.")
  chips = len(compiled.devices)
  size = experiment.batch_size * topology.chips // chips
  larger = dataclasses.replace(
      compiled, shape=(topology.chips, 1, 1),
      work=dataclasses.replace(compiled.work, batch_size=size))
  return _read(larger, dataclasses.replace(experiment, batch_size=size),
               topology, absent.devices(topology), chips)


def _read(compiled: CompiledStep, experiment: Experiment, topology: Topology,
          devices: Sequence[jax.Device], chips: int | None = None
          ) -> Prediction:
  program = hlo.parse(compiled.text)
  timeline = Timeline(
      program, topology.chip, compiled.schedules,
      lambda computation, operation, kind: collectives.price(
          program, computation, operation, kind, topology, devices, chips))
  items = repeat(timeline.items, compiled.repeated)
  return Prediction(
      topology, "", 0, experiment, compiled.shape, compiled.work.recipe.parts,
      compiled.repeated.layers, sum(item.seconds for item in items),
      _parts(items, topology), _sent(items),
      compiled.memory, compiled.work.flops, compiled.seconds,
      tuple(timeline.unknown))


def _parts(items: list[Item], topology: Topology) -> dict[str, Part]:
  """The most expensive first."""
  sums = collections.defaultdict(lambda: [0.0, 0.0, 0.0])
  for item in items:
    own = max(item.compute, item.memory) + item.waiting
    waits = item.waiting + (item.memory if item.memory > item.compute else 0.0)
    for i, seconds in enumerate((own, item.flops / topology.chip.peak, waits)):
      sums[item.part][i] += item.trips * seconds
  return {part: Part(*values) for part, values in sorted(
      sums.items(), key=lambda pair: -pair[1][0]) if values[0]}


def _sent(items: list[Item]) -> dict[str, Sent]:
  """The core waits at the end of an asynchronous one: of whatever kind, that
  is counted with the last that was begun."""
  sums = collections.defaultdict(lambda: [0, 0, 0.0, 0.0])
  last = ""
  for item in items:
    if item.collective:
      kind = item.collective.kind
      last = kind + " (asynchronous)" * item.asynchronous
      sums[last][0] += item.trips
      sums[last][1] += item.trips * item.collective.bytes
      sums[last][2] += item.trips * item.collective.seconds
    if item.exposed:
      sums[last][3] += item.trips * item.exposed
  return {name: Sent(round(count), round(size), *seconds,
                     "asynchronous" in name)
          for name, (count, size, *seconds) in sums.items()}


def versions() -> dict[str, str]:
  """Of what the prediction depends on."""
  return {name: importlib.metadata.version(name)
          for name in ("jax", "jaxlib", "libtpu")}
