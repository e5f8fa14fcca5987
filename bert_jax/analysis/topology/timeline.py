"""The time of a compiled step: its operations one after another, and beside
them what copies and collectives do by themselves.

An operation takes the larger of its instructions and its bytes of HBM. What
HBM has left meanwhile serves the copies that were begun; where an operation
needs one that is not done, the core waits. Collectives that were begun follow
each other on the network; where one is needed, the core waits, too.
"""

import dataclasses
import re
from collections.abc import Callable, Mapping

from bert_jax.analysis.topology import collectives, parts, traffic
from bert_jax.analysis.topology.bundles import Schedule
from bert_jax.analysis.topology.chips import MEMORY_SHARE, Chip
from bert_jax.analysis.topology.collectives import Collective
from bert_jax.analysis.topology.hlo import Operation, Program

@dataclasses.dataclass
class Item:
  """An operation in the step.

  Attributes:
    part: of the network.
    path: that it was traced under; "" where the compiler made it.
    trips: how often it runs; of layers that stand for more, their share.
    compute, memory: seconds of one run, by instructions and by bytes.
    waiting: seconds of one run that the core waits for a copy.
    exposed: seconds of one run that the core waits for the network.
    flops: of its matrix products.
    collective: that it is, or begins.
    asynchronous: whether the core does not wait where the collective begins.
  """

  operation: Operation
  part: str
  path: str
  trips: float = 1
  compute: float = 0.0
  memory: float = 0.0
  waiting: float = 0.0
  exposed: float = 0.0
  flops: int = 0
  collective: Collective | None = None
  asynchronous: bool = False

  @property
  def seconds(self) -> float:
    """Of all runs."""
    return self.trips * (max(self.compute, self.memory) + self.waiting
                         + self.exposed)


class Timeline:
  """One step of a program."""

  def __init__(self, program: Program, chip: Chip,
               schedules: Mapping[str, Schedule],
               price: Callable[[str, Operation, str], Collective]):
    """
    Args:
      price: of a computation's operation that is a collective of that kind.
    """
    self.items: list[Item] = []
    # Loops counted once and operations counted as nothing.
    self.unknown: list[str] = []
    self._program, self._chip, self._price = program, chip, price
    self._cycles = _Cycles(program, schedules, self.unknown)
    self._bandwidth = MEMORY_SHARE * chip.bandwidth
    # Bytes of copies that were begun and served, and how many each needs.
    self._begun = self._served = 0.0
    self._needs: dict[str, float] = {}
    # When the network is done with each collective, and with all; and seconds
    # of those that only proceed in fusions with what is computed.
    self._arrives: dict[str, float] = {}
    self._network = 0.0
    self._left: dict[str, float] = {}
    self._now = 0.0
    self._run(program.entry, 1)

  @property
  def seconds(self) -> float:
    return self._now

  def _run(self, computation: str, trips: int) -> None:
    for operation in self._program.computations[computation].values():
      match operation.opcode:
        case "while":
          self._loop(operation, trips)
        case "call":
          self._run(_applied(operation), trips)
        case "conditional":
          self._run(max(operation.called, key=lambda name: len(
              self._program.computations[name])), trips)
        case _ if not traffic.is_free(operation):
          self._operation(computation, operation, trips)

  def _loop(self, operation: Operation, trips: int) -> None:
    """Its trips are alike: one of them counts as often as there are."""
    count = self._program.trips(operation)
    if count is None:
      self.unknown.append(operation.op_name or operation.name)
      count = 1
    start, served = self._now, self._served
    self._run(operation.computation("condition"), trips * count)
    self._run(operation.computation("body"), trips * count)
    more = count - 1
    self._served = min(self._begun,
                       self._served + more * (self._served - served))
    self._now += more * (self._now - start)

  def _operation(self, computation: str, operation: Operation,
                 trips: int) -> None:
    item = Item(operation, parts.part(self._program, operation),
                parts.path(self._program, operation), trips)
    kind = collectives.kind_of(self._program, operation)
    if kind:
      self._collective(item, computation, kind)
    elif operation.opcode in traffic.COPYING:
      self._begun += traffic.copied(operation)
      self._needs[operation.name] = self._begun
      return
    elif collectives.ends(operation):
      self._done(item)
    else:
      item.flops = traffic.flops(self._program, computation, operation)
      item.compute = max(self._cycles.of(computation, operation)
                         / self._chip.clock, item.flops / self._chip.peak)
      size = traffic.hbm_bytes(self._program, computation, operation)
      item.memory = size / self._bandwidth
      self._pass(max(item.compute, item.memory), size)
      if collectives.continues(operation):
        channel = collectives.channel(self._program, operation)
        self._left[channel] = max(0.0, self._left.get(channel, 0.0) - max(
            item.compute, item.memory))
    self.items.append(item)

  def _pass(self, seconds: float, used: float = 0.0) -> None:
    """Time passes; copies have what HBM has left."""
    self._now += seconds
    left = max(0.0, seconds * self._bandwidth - used)
    self._served = min(self._begun, self._served + left)

  def _collective(self, item: Item, computation: str, kind: str) -> None:
    item.collective = self._price(computation, item.operation, kind)
    item.asynchronous = collectives.begins(item.operation)
    if item.operation.opcode == "fusion" and item.asynchronous:
      self._left[collectives.channel(self._program, item.operation)] = (
          item.collective.seconds)
      return
    begins = max(self._now, self._network)
    self._network = begins + item.collective.seconds
    if item.asynchronous:
      self._arrives[item.operation.name] = self._network
    else:
      item.exposed = self._network - self._now
      self._pass(item.exposed)

  def _done(self, item: Item) -> None:
    late = self._left.pop(
        collectives.channel(self._program, item.operation), 0.0)
    item.exposed = late
    self._pass(late)
    for name in item.operation.operands:
      missing = self._needs.get(name, 0.0) - self._served
      item.waiting += max(0.0, missing) / self._bandwidth
      self._pass(max(0.0, missing) / self._bandwidth)
      late = max(0.0, self._arrives.get(name, 0.0) - self._now)
      item.exposed += late
      self._pass(late)


class _Cycles:
  """Of operations, from the schedules."""

  def __init__(self, program: Program, schedules: Mapping[str, Schedule],
               unknown: list[str]):
    """Of equal operations the compiler writes one schedule."""
    self._unknown = unknown
    self._program, self._schedules = program, schedules
    self._alike = {
        self._likeness(name, operation): schedules[operation.name]
        for name, operations in program.computations.items()
        for operation in operations.values() if operation.name in schedules}

  def of(self, computation: str, operation: Operation) -> int:
    schedule = (self._schedules.get(operation.name) or self._alike.get(
        self._likeness(computation, operation)))
    estimated = re.search(r'"estimated_cycles":"(\d+)"', operation.attributes)
    # Every trip of its schedule has all phases of the collective, of which one
    # runs: the compiler's estimate is that of the product alone.
    if schedule and not (estimated and collectives.continues(operation)):
      return schedule.cycles
    if not estimated and operation.opcode in ("fusion", "custom-call"):
      self._unknown.append(operation.name)
    return int(estimated[1]) if estimated else 0

  def _likeness(self, computation: str, operation: Operation) -> tuple:
    around = self._program.computations[computation]
    estimated = re.search(r'"estimated_cycles":"\d+"', operation.attributes)
    return (operation.opcode, operation.type, estimated and estimated[0],
            *(around[name].type for name in operation.operands
              if name in around))


def _applied(operation: Operation) -> str:
  return operation.called[0] if operation.called else re.search(
      r"to_apply=%([\w.\-]+)", operation.attributes)[1]
