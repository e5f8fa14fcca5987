"""What an operation reads and writes of HBM, and the products it computes."""

import math
import re
from collections.abc import Callable

import numpy as np

from bert_jax.analysis.topology.hlo import KINDS, Array, Operation, Program

# They only name what is there already, or reserve it.
FREE = {"parameter", "constant", "tuple", "get-tuple-element", "bitcast",
        "after-all", "opt-barrier", "partition-id", "replica-id", "domain"}
FREE_CALLS = {"AllocateBuffer", "ConcatBitcast", "AssumeGatherIndicesInBound"}
COPYING = {"copy-start", "slice-start", "async-start"}
_PARTS = {"dynamic-slice", "slice", "gather"}  # They read what they give.
_SAME = {"bitcast", "copy", "convert"}  # Inside of a fusion nothing is moved.
_UPDATES = {"dynamic-update-slice": 1, "scatter": 2}  # By their operand i.


def is_free(operation: Operation) -> bool:
  return operation.opcode in FREE or (
      operation.opcode == "custom-call" and operation.target in FREE_CALLS)


def in_hbm(arrays: tuple[Array, ...]) -> int:
  """Bytes of those that lie there."""
  return sum(array.bytes for array in arrays if not array.space)


def hbm_bytes(program: Program, computation: str, operation: Operation) -> int:
  """Read and written by one run of an operation of a computation.

  Of an array that is only indexed or updated in place: the part alone.
  """
  around = program.computations[computation]
  operands = [around[name].arrays for name in operation.operands
              if name in around]
  if is_free(operation):
    return 0
  if operation.opcode != "fusion":
    return _plain(operation, operands, around.__getitem__)
  total = 0
  for i, arrays in enumerate(operands):
    if in_hbm(arrays):
      total += min(in_hbm(arrays), _read(program, operation, i))
  for i, array in enumerate(operation.arrays):
    if not array.space:
      total += min(array.bytes, _written(program, operation, i))
  return total


def copied(operation: Operation) -> int:
  """Read and written of HBM by a copy beside other operations: of
  (to, from, mark), or where a part is copied ((from), to, mark)."""
  to, other = operation.arrays[0], operation.arrays[1]
  if operation.opcode != "copy-start":
    to, other = operation.arrays[-2], to
  return to.bytes * ((not to.space) + (not other.space))


def _plain(operation: Operation, operands: list[tuple[Array, ...]],
           named: Callable[[str], Operation]) -> int:
  """Of an operation by itself."""
  result = in_hbm(operation.arrays)
  if operation.opcode in _PARTS:
    size = sum(array.bytes for array in operation.arrays)
    return result + size * bool(in_hbm(operands[0]))
  if operation.opcode in _UPDATES:
    update = named(operation.operands[_UPDATES[operation.opcode]])
    return in_hbm(update.arrays) + (
        sum(array.bytes for array in update.arrays) * bool(result))
  return result + sum(map(in_hbm, operands))


def _read(program: Program, fusion: Operation, i: int) -> float:
  """Bytes that a fusion reads of its operand i; infinite: all."""
  inner = program.computations[fusion.called[0]]
  names = {op.name for op in inner.values() if op.opcode == "parameter"
           and op.attributes.startswith(f"({i})")}
  total = 0.0
  for user in inner.values():  # After what they use.
    for j, name in enumerate(user.operands):
      if name not in names:
        continue
      if user.opcode in _SAME or "operand_aliasing" in user.attributes:
        names.add(user.name)
      elif user.opcode == "fusion":
        total += _read(program, user, j)
      elif user.opcode in _PARTS and not j:
        total += sum(array.bytes for array in user.arrays)
      elif user.opcode == "tuple" or user.opcode in KINDS:
        pass  # It only comes along: a collective that was begun.
      elif user.opcode not in _UPDATES or j:
        return math.inf
  return total


def _written(program: Program, fusion: Operation, i: int) -> float:
  """Bytes that a fusion writes of its result i; infinite: all."""
  inner = program.computations[fusion.called[0]]
  result, part = next(op for op in inner.values() if op.root), i
  if result.opcode == "tuple":
    result, part = inner[result.operands[i]], 0
  while result.opcode in (*_SAME, "get-tuple-element"):
    if result.opcode == "get-tuple-element":
      part = int(re.search(r"index=(\d+)", result.attributes)[1])
    result = inner[result.operands[0]]
  if result.opcode == "fusion":
    return _written(program, result, part)
  if result.opcode == "parameter" or result.opcode in KINDS:
    return 0
  if result.opcode not in _UPDATES:
    return math.inf
  update = inner[result.operands[_UPDATES[result.opcode]]]
  return sum(array.bytes for array in update.arrays)


def flops(program: Program, computation: str, operation: Operation) -> int:
  """Of the matrix products in an operation; those of kernels are not seen."""
  if operation.opcode == "convolution":
    around = program.computations[computation]
    return _convolution(operation, *(
        around[name].arrays[0].dims for name in operation.operands[:2]))
  if operation.opcode in ("fusion", "call", "async-start"):
    return sum(flops(program, name, op) for name in operation.called
               for op in program.computations[name].values())
  return 0


def _convolution(operation: Operation, left: tuple[int, ...],
                 right: tuple[int, ...]) -> int:
  """TPUs have all products as convolutions; those of padding do not count."""
  labels = re.search(r"dim_labels=(\w+)_(\w+)->(\w+)", operation.attributes)
  (result,) = operation.arrays
  total = 2 * math.prod(result.dims) * right[labels[2].index("i")]
  window = dict(part.split("=") for part in re.search(
      r"window=\{([^}]*)\}", operation.attributes)[1].split()) if (
          "window={" in operation.attributes) else {}
  spatial = len(labels[1]) - 2
  along = lambda name, default: (
      window[name].split("x") if name in window else [default] * spatial)
  for i, (size, stride, spread, dilation, padding) in enumerate(zip(
      along("size", "1"), along("stride", "1"), along("lhs_dilate", "1"),
      along("rhs_dilate", "1"), along("pad", "0_0"), strict=True)):
    length, out = (dims[names.index(str(i))] for dims, names in (
        (left, labels[1]), (result.dims, labels[3])))
    place = (np.arange(out)[:, None] * int(stride)
             + np.arange(int(size)) * int(dilation)
             - int(padding.partition("_")[0]))
    inside = (place >= 0) & (place <= (length - 1) * int(spread)) & (
        place % int(spread) == 0)
    total = total * int(inside.sum()) // out
  return total
