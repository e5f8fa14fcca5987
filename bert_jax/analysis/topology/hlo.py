"""What the compiler made of a program, read from its text (HLO)."""

import dataclasses
import functools
import math
import re
from collections.abc import Iterator, Mapping

_BYTES = {"pred": 1, "s8": 1, "u8": 1, "s16": 2, "u16": 2, "bf16": 2, "f16": 2,
          "s32": 4, "u32": 4, "f32": 4, "s64": 8, "u64": 8, "f64": 8,
          "c64": 8, "f8e4m3fn": 1, "f8e5m2": 1, "s4": 0.5, "u4": 0.5}
# Of collectives.
KINDS = ("all-reduce", "all-gather", "reduce-scatter", "all-to-all",
         "collective-permute", "ragged-all-to-all")
_ARRAY = re.compile(r"([a-z]+\d*\w*)\[([\d,]*)\](?:\{([^}]*)\})?")
_HEAD = re.compile(r"^(ENTRY )?%?([\w.\-]+) \(.*->.*\{$")
_LINE = re.compile(r"^\s+(ROOT )?%([\w.\-]+) = (.*)$")
_NAMES = re.compile(r"%([\w.\-]+)")


@dataclasses.dataclass(frozen=True)
class Array:
  """
  Attributes:
    bytes: with the padding of its layout.
    space: of memory: 0 is HBM, others are on the core or the host.
  """

  dtype: str
  dims: tuple[int, ...]
  bytes: int
  space: int


@dataclasses.dataclass(frozen=True)
class Operation:
  """A line: `name = type opcode(operands), attributes`."""

  name: str
  type: str
  opcode: str
  operands: tuple[str, ...]
  attributes: str
  root: bool

  @functools.cached_property
  def arrays(self) -> tuple[Array, ...]:
    """Of its result, a tuple's one after another."""
    return arrays(self.type)

  @property
  def op_name(self) -> str:
    """Where in the traced program it is from; "" where the compiler made it."""
    return self._quoted("op_name")

  @property
  def target(self) -> str:
    """Of a custom call."""
    return self._quoted("custom_call_target")

  def _quoted(self, name: str) -> str:
    match = re.search(name + r'="([^"]*)"', self.attributes)
    return match[1] if match else ""

  @functools.cached_property
  def called(self) -> tuple[str, ...]:
    """Names of the computations inside, but of what a reduction applies."""
    return tuple(name for _, names in re.findall(
        r"(calls|called_computations|branch_computations)="
        r"(\{[^}]*\}|%[\w.\-]+)", self.attributes)
                 for name in _NAMES.findall(names))

  def computation(self, role: str) -> str:
    """The name of a loop's `body` or `condition`."""
    return re.search(role + r"=%([\w.\-]+)", self.attributes)[1]


@dataclasses.dataclass(frozen=True)
class Program:
  """
  Attributes:
    computations: operations by name, in the order they run in.
    entry: the name of the first one.
  """

  computations: Mapping[str, Mapping[str, Operation]]
  entry: str

  def inside(self, operation: Operation) -> Iterator[Operation]:
    """Operations of what it calls, and what those call."""
    for name in operation.called:
      for inner in self.computations[name].values():
        yield inner
        yield from self.inside(inner)

  def trips(self, loop: Operation) -> int | None:
    """How often a loop runs; None: its data decide."""
    given = re.search(r'known_trip_count"?:\{"?n"?:"?(\d+)', loop.attributes)
    if given:
      return int(given[1])
    condition = self.computations[loop.computation("condition")]
    test = next(op for op in condition.values() if op.root)
    if test.opcode == "fusion":
      test = next(op for op in self.inside(test) if op.root)
    if test.opcode != "compare" or "direction=LT" not in test.attributes:
      return None
    ends = [int(match[1]) for op in condition.values()
            if (match := re.fullmatch(r"constant\((-?\d+)\)", op.attributes))]
    # A loop of jax counts from 0.
    return ends[0] if len(ends) == 1 else None


def parse(text: str) -> Program:
  """The program of a compiled module."""
  computations: dict[str, dict[str, Operation]] = {}
  entry, current = "", {}
  for line in text.splitlines():
    if line[:1] not in (" ", "}", "") and (head := _HEAD.match(line)):
      current = computations.setdefault(head[2], {})
      entry = head[2] if head[1] else entry
    elif match := _LINE.match(line):
      operation = _operation(match[2], match[3], bool(match[1]))
      current[operation.name] = operation
  return Program(computations, entry)


def _operation(name: str, rest: str, root: bool) -> Operation:
  end = _closing(rest, 0) + 1 if rest[0] == "(" else rest.index(" ")
  kind, rest = rest[:end], rest[end:].lstrip()
  start = rest.index("(")
  end = _closing(rest, start) + 1
  opcode, inner = rest[:start], rest[start:end]
  if opcode == "constant":
    return Operation(name, kind, opcode, (), f"constant{inner}", root)
  return Operation(name, kind, opcode, tuple(_NAMES.findall(inner)),
                   inner * (opcode == "parameter") + rest[end:], root)


def _closing(text: str, start: int) -> int:
  """The place of the parenthesis that closes the one at `start`."""
  depth = 0
  for match in re.finditer(r"[()]", text[start:]):
    depth += 1 if match[0] == "(" else -1
    if not depth:
      return start + match.start()
  raise ValueError(f"no closing parenthesis: {text[start:start + 80]}")


@functools.lru_cache(None)
def arrays(kind: str) -> tuple[Array, ...]:
  """The arrays of a type."""
  return tuple(_array(*match) for match in _ARRAY.findall(kind)
               if match[0] in _BYTES)


def _array(dtype: str, dims: str, layout: str) -> Array:
  sizes = tuple(map(int, filter(None, dims.split(","))))
  order, _, tiles = layout.partition(":")
  space = re.search(r"S\((\d+)\)", tiles)
  padded = list(sizes)
  tile = re.match(r"T\(([\d,]+)\)", tiles)
  if tile and sizes:
    minor = list(map(int, filter(None, order.split(","))))
    for axis, size in zip(minor, reversed(tile[1].split(","))):
      padded[axis] = math.ceil(padded[axis] / int(size)) * int(size)
  return Array(dtype, sizes, int(math.prod(padded) * _BYTES[dtype]),
               int(space[1]) if space else 0)
