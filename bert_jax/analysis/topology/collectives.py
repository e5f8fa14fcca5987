"""What devices send each other, read from the compiled text, and its price."""

import dataclasses
import math
import re
from collections.abc import Iterator, Sequence

import jax
import numpy as np

from bert_jax.analysis.topology.chips import (
    HOP_SECONDS, LINK_SHARE, Topology)
from bert_jax.analysis.topology.hlo import KINDS, Operation, Program

# How often the bytes of an array pass a device, of n: reduce and spread.
_PASSES = {"all-reduce": 2}
BETWEEN_SLICES = "between slices"


@dataclasses.dataclass(frozen=True)
class Collective:
  """
  Attributes:
    kind: one of KINDS, or BETWEEN_SLICES.
    bytes: of the array as it is in full, on a device.
    seconds: that it takes by itself.
  """

  kind: str
  bytes: int
  seconds: float


def kind_of(program: Program, operation: Operation) -> str | None:
  """Of an operation that is a collective, begins one, or is fused with one."""
  base = operation.opcode.removesuffix("-start")
  if base in KINDS:
    return base
  if continues(operation) or ends(operation):
    return None
  if operation.opcode == "recv" and "megascale" in operation.attributes:
    return BETWEEN_SLICES
  if operation.opcode in ("async-start", "fusion"):
    kinds = [op.opcode for op in program.inside(operation)
             if op.opcode in KINDS]
    if kinds and "all-reduce-scatter" in operation.called[0]:
      return "reduce-scatter"
    return kinds[0] if kinds else None
  return None


def begins(operation: Operation) -> bool:
  """Whether the core does other things meanwhile."""
  return operation.opcode.endswith(("-start", "recv")) or (
      operation.name.startswith("async-collective-start"))


def continues(operation: Operation) -> bool:
  """Whether it is a fusion of what is computed with a part of a collective
  that was begun."""
  return (operation.opcode == "fusion" and operation.called[0].startswith(
      "async_collective_fusion"))


def ends(operation: Operation) -> bool:
  """Whether it waits for one that was begun."""
  return operation.opcode.endswith("-done") or operation.name.startswith(
      "async-collective-done")


def channel(program: Program, operation: Operation) -> str:
  """The number that the parts of a collective have in common; "": none."""
  for op in (operation, *program.inside(operation)):
    if match := re.search(r"channel_id=(\d+)", op.attributes):
      return match[1]
  return ""


def price(program: Program, computation: str, operation: Operation, kind: str,
          topology: Topology, devices: Sequence[jax.Device],
          compiled: int | None = None) -> Collective:
  """
  Args:
    devices: in the order of the program's numbers.
    compiled: for how many devices the program is, whose collectives over all
      of them are priced over all `devices`; None: for these.
  """
  size = lambda ops: sum(array.bytes for op in ops for array in op.arrays
                         if array.dims or array.dtype not in ("u32", "s32"))
  if kind == BETWEEN_SLICES:
    return _between_slices(operation, size([operation]), topology)
  inner = next((op for op in program.inside(operation) if op.opcode in KINDS),
               None)
  if inner:
    total = size([inner])
  else:
    inner, around = operation, program.computations[computation]
    operands = size(around[name] for name in operation.operands
                    if name in around)
    results = size([operation])
    if operation.opcode.endswith("-start") and kind != "all-reduce":
      results -= operands  # Its result repeats the operands.
    total = max(operands, results)
  members = group(inner.attributes, compiled or len(devices))
  if compiled and len(members) == compiled:
    members = np.arange(len(devices))
  return Collective(kind, total,
                    _seconds(kind, total, members, topology, devices))


def _between_slices(operation: Operation, received: int,
                    topology: Topology) -> Collective:
  """By the chips' share of their hosts' network."""
  k = topology.slices
  kind = re.search(r'transfer_type="(\w+)"', operation.attributes)
  shares = {"ALL_REDUCE": 2 * (k - 1) / k, "ALL_GATHER": (k - 1) / k,
            "REDUCE_SCATTER": k - 1}.get(kind[1] if kind else "", 1)
  return Collective(BETWEEN_SLICES, received,
                    shares * received / topology.chip.network)


def _seconds(kind: str, size: int, group: np.ndarray, topology: Topology,
             devices: Sequence[jax.Device]) -> float:
  """By rings along all axes that the group goes over, at once."""
  n = len(group)
  if n == 1:
    return 0.0
  places = np.array([devices[i].coords for i in group])
  lengths = [len(np.unique(places[:, axis]))
             for axis in range(places.shape[1])]
  chip = topology.chip
  links, hops = 0, 0
  for axis, length in enumerate(lengths):
    if length > 1:
      closed = length == topology.shape[axis] and topology.closed(axis)
      links += 2 if closed else 1
      hops += length // 2 if closed else length - 1
  if math.prod(lengths) != n:  # No part of the grid: one ring of detours.
    links, hops = 1, n - 1
  passes = _PASSES.get(kind, 1)
  if kind == "collective-permute":
    return size / (chip.link * LINK_SHARE) + HOP_SECONDS * hops
  if kind.endswith("all-to-all"):
    # Half of it crosses the middle of the longest axis.
    return size / 4 * max(lengths) / (links * chip.link * LINK_SHARE) + (
        HOP_SECONDS * hops)
  return passes * (size * (n - 1) / n / (links * chip.link * LINK_SHARE)
                   + HOP_SECONDS * hops)


def group(attributes: str, devices: int) -> np.ndarray:
  """The numbers of the devices of the first group of a collective."""
  if match := re.search(r"replica_groups=mesh\[([^\]]*)\] \{([^}]*)\}",
                        attributes):
    axes = dict(re.findall(r"'(\w+)'=(\d+)", match[1]))
    chosen = re.findall(r"'(\w+)'", match[2])
    grid = np.arange(math.prod(map(int, axes.values()))).reshape(
        [int(size) for size in axes.values()])
    return grid[tuple(slice(None) if axis in chosen else 0
                      for axis in axes)].reshape(-1)
  if match := re.search(r"replica_groups=\[([\d,]+)\]<=\[([\d,]+)\]"
                        r"(?:T\(([\d,]+)\))?", attributes):
    numbers = np.arange(devices).reshape(_ints(match[2]))
    if match[3]:
      numbers = numbers.transpose(_ints(match[3]))
    return numbers.reshape(_ints(match[1]))[0]
  if match := re.search(r"(?:replica_groups|source_target_pairs)=\{\{([\d,]+)"
                        r"\}", attributes):
    return np.array(_ints(match[1]))
  return np.arange(devices)


def _ints(text: str) -> list[int]:
  return [int(word) for word in text.split(",")]


def started(program: Program) -> Iterator[tuple[str, Operation]]:
  """The kinds of all collectives that begin without being waited for."""
  for operations in program.computations.values():
    for operation in operations.values():
      kind = kind_of(program, operation)
      if kind and begins(operation):
        yield kind, operation
