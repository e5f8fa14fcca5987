"""What jax's profiler wrote: operations, their parts, their times."""

import collections
import json
import pathlib
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from bert_jax import files
from bert_jax.config import UserError
from bert_jax.reporting import markdown

# Field numbers of protocol buffers: the path from an XSpace to its planes, from
# a plane to its name and to the metadata of events, which of this plane are
# programs, and from a program to the instructions of its computations
# (tsl/profiler/protobuf/xplane.proto, xla/service/hlo.proto).
_PLANES, _NAME, _PROGRAMS = (1,), (2,), (4, 2)
_PLANE_OF_PROGRAMS = "/host:metadata"
_INSTRUCTIONS = (5, 6, 1, 3, 2)
_INSTRUCTION_NAME, _OP_NAME = (1,), (7, 2)
# Shorter gaps between operations are no waiting, in microseconds.
_SHORT_GAP = 50.0
# The lanes of accelerators that have one operation at a time.
_OPERATIONS = "XLA Ops"
_STEP = "train"  # of run_steps

Event = dict[str, Any]  # of the trace-event format, in microseconds


def name_parts(folder: pathlib.Path, part_of: Callable[[str], str]) -> str:
  """Writes trace.json and parts.md, and returns the latter.

  Args:
    folder: as jax.profiler.start_trace took it.
    part_of: from the path that an operation was traced under to its part.

  Raises:
    UserError: there is no trace.
  """
  written, = folder.glob("plugins/profile/*/*.trace.json.gz")
  names = _op_names(written.with_name(
      written.name.removesuffix(".trace.json.gz") + ".xplane.pb").read_bytes())
  with files.reading(written) as file:
    content = json.load(file)
  events = content["traceEvents"]
  lanes = {(e["pid"], e["tid"]): e["args"]["name"] for e in events
           if e.get("name") == "thread_name"}
  operations = []
  for event in events:
    arguments = event.get("args", {})
    name = arguments.get("tf_op") or names.get(
        (arguments.get("hlo_module"), arguments.get("hlo_op")))
    if "dur" in event and name is not None:
      arguments["op_name"] = name
      arguments["part"] = part_of(name)
      event["name"] = f"{arguments['part']}: {event['name']}"
      operations.append(event)
  on_lanes = [e for e in operations
              if lanes.get((e["pid"], e["tid"]), "").startswith(_OPERATIONS)]
  table = _table(on_lanes or operations,
                 [e for e in events if e.get("name") == _STEP])
  files.write_text(folder / "trace.json", json.dumps(content))
  files.write_text(folder / "parts.md", f"{table}\n")
  return table


def _table(operations: list[Event], dispatches: list[Event]) -> str:
  """Milliseconds a step of each part, and the share of waiting."""
  if not operations:
    raise UserError("The profiler saw no operation of a compiled program.")
  parts: dict[str, float] = collections.Counter()
  for event, own in _own_times(operations):
    parts[event["args"]["part"]] += own
  total, steps = sum(parts.values()), max(1, len(dispatches))
  time = max(map(_end, operations)) - min(e["ts"] for e in operations)
  rows = [(part, f"{own / 1000 / steps:.3g}", f"{own / total:.1%}")
          for part, own in sorted(parts.items(), key=lambda p: -p[1])]
  return (markdown.table(["part", "ms a step", "share"], rows)
          + f"\n\n{steps} steps of {time / 1000 / steps:.3g} ms; the device "
          f"waited for the host in {waited(operations, dispatches) / time:.1%} "
          "of the time.")


def waited(operations: Iterable[Event], dispatches: Iterable[Event]) -> float:
  """Microseconds in which the device had nothing to do.

  Where operations say which run of a program they are of, as on a CPU, these
  are between the end of all before a step and its dispatch: what else delays a
  step there is no waiting. Else they are all gaps.
  """
  in_order = sorted(operations, key=lambda e: e["ts"])
  busy: dict[str, float] = collections.Counter()
  for event in in_order:
    busy[event["args"].get("hlo_module", "")] += event["dur"]
  program, end, ends = max(busy, key=busy.__getitem__), 0.0, {}
  for event in in_order:
    if event["args"].get("hlo_module") == program:
      # At the first operation of a run.
      ends.setdefault(event["args"].get("run_id"), end)
    end = max(end, _end(event))
  begins = sorted(map(_end, dispatches))
  if len(ends) != len(begins) or None in ends:
    return _gaps(in_order)
  return sum(max(0.0, begin - end)
             for begin, end in list(zip(begins, ends.values()))[1:])


def _own_times(operations: Iterable[Event]
               ) -> Iterator[tuple[Event, float]]:
  """Each event and its time without that of events within it, on its lane."""
  lanes: dict[tuple[int, int], list] = collections.defaultdict(list)
  for event in operations:
    lanes[event["pid"], event["tid"]].append(event)
  for events in lanes.values():
    events.sort(key=lambda e: (e["ts"], -e["dur"]))
    own, around = [e["dur"] for e in events], []
    for i, event in enumerate(events):
      while around and _end(events[around[-1]]) <= event["ts"]:
        around.pop()
      if around:
        own[around[-1]] -= event["dur"]
      around.append(i)
    yield from zip(events, own)


def _gaps(operations: Iterable[Event]) -> float:
  """Microseconds in which no lane had an operation."""
  total, end = 0.0, None
  for event in sorted(operations, key=lambda e: e["ts"]):
    if end is not None and event["ts"] - end > _SHORT_GAP:
      total += event["ts"] - end
    end = max(end or 0.0, _end(event))
  return total


def _end(event: Event) -> float:
  return event["ts"] + event["dur"]


def _op_names(space: bytes) -> dict[tuple[str, str], str]:
  """The paths that operations were traced under, by program and operation."""
  names = {}
  for plane in _inside(memoryview(space), *_PLANES):
    if _text(plane, *_NAME) != _PLANE_OF_PROGRAMS:
      continue
    for program in _inside(plane, *_PROGRAMS):
      module = _text(program, *_NAME).partition("(")[0]
      for instruction in _inside(program, *_INSTRUCTIONS):
        names[module, _text(instruction, *_INSTRUCTION_NAME)] = _text(
            instruction, *_OP_NAME)
  return names


def _text(message: memoryview, *path: int) -> str:
  return bytes(next(_inside(message, *path), b"")).decode()


def _inside(message: memoryview, *path: int) -> Iterator[memoryview]:
  """The fields at a path of field numbers."""
  if not path:
    yield message
    return
  for number, value in _fields(message):
    if number == path[0] and isinstance(value, memoryview):
      yield from _inside(value, *path[1:])


def _fields(message: memoryview) -> Iterator[tuple[int, memoryview | int]]:
  """Number and value of each field (protobuf's wire format)."""
  at = 0
  while at < len(message):
    key, at = _varint(message, at)
    match key & 7:
      case 0:
        value, at = _varint(message, at)
      case 2:
        size, at = _varint(message, at)
        value, at = message[at:at + size], at + size
      case kind:  # 64 or 32 bits
        size = {1: 8, 5: 4}[kind]
        value, at = 0, at + size
    yield key >> 3, value


def _varint(message: memoryview, at: int) -> tuple[int, int]:
  """A number of 7 bits a byte, and where it ends."""
  value = shift = 0
  while True:
    byte = message[at]
    value |= (byte & 127) << shift
    at, shift = at + 1, shift + 7
    if byte < 128:
      return value, at
