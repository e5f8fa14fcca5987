"""Cycles of fusions and kernels, counted in the schedules that libtpu writes.

A schedule is a list of instruction bundles; the core starts one a cycle unless
it waits for memory. Those of a loop count as often as it runs. The compiler's
own `estimated_cycles` leave kernels of Pallas out; these do not.
"""

import dataclasses
import pathlib
import re
from collections.abc import Iterable, Iterator, Mapping

# 0x12 LB: > > { ... }: address, marks, a > for each loop around, instructions.
_BUNDLE = re.compile(
    r"^\s*(?:0x[0-9a-f]+|\d+)\s+((?:[A-Z]{2}\s*)*):\s*((?:>\s*)*)\{(.*)")
_EXIT = re.compile(r"totalorder \S+?, (\d+)\s*/\*(?:(?!\*/).)*loop exit test")
_STAGE = re.compile(r"stage = (\d+)")
_FILE = re.compile(r"^\d+-(.+)-\d+-final_bundles\.txt$")


@dataclasses.dataclass(frozen=True)
class Schedule:
  """
  Attributes:
    cycles: of its bundles, each as often as it runs.
    unknown: loops whose number of trips data decide; counted once.
  """

  cycles: int
  unknown: int = 0


@dataclasses.dataclass
class _Loop:
  bundles: int = 0
  exit: int | None = 1
  stages: int = 0
  ends: bool = False  # Its exit was tested, its branch back is to come.

  @property
  def trips(self) -> int:
    """A pipelined loop (copy in, compute, copy out) has two trips more, the
    first and the last, and only a part of its bundles runs in each."""
    more = max(2, self.stages) if self.stages else 0
    return max(1, (self.exit or 1) - more)


def count(lines: Iterable[str]) -> Schedule:
  """Of one schedule."""
  around, unknown = [_Loop()], 0
  held = None  # Empty bundles at the head of a loop, printed without its depth.

  def leave(depth: int) -> None:
    nonlocal unknown
    while len(around) > depth + 1:
      loop = around.pop()
      unknown += loop.exit is None
      around[-1].bundles += loop.trips * loop.bundles

  for line in lines:
    bundle = _BUNDLE.match(line)
    if not bundle:
      continue
    depth, empty = bundle[2].count(">"), bundle[3].startswith("}")
    if "LB" in bundle[1].split():
      held = 0
    if held is not None and empty:
      held += 1
      continue
    if held is not None:
      leave(max(depth, 1) - 1)
      around.append(_Loop(held, exit=None))
      held, depth = None, len(around) - 1
    # A loop's branch back and the empty bundles behind it are its own, and
    # printed as if they were not.
    loop, branch = around[-1], "sbr.rel" in bundle[3]
    if empty or branch and loop.ends:
      loop.ends = False
    else:
      leave(depth)
      loop = around[-1]
    loop.bundles += 1
    if len(around) > 1:
      loop.stages = max(loop.stages, *map(int, _STAGE.findall(line)), 0)
      if "loop exit test" in line:
        end = _EXIT.search(line)
        loop.exit, loop.ends = int(end[1]) if end else None, True
  leave(0)
  return Schedule(around[0].bundles, unknown)


def read(folder: pathlib.Path) -> Mapping[str, Schedule]:
  """Of all that was compiled since the folder was empty, by the names of
  operations."""
  schedules = {}
  for name, path in _files(folder):
    with path.open(errors="replace") as lines:
      schedules[name] = count(lines)
  return schedules


def clear(folder: pathlib.Path) -> None:
  for path in folder.iterdir():
    path.unlink()


def _files(folder: pathlib.Path) -> Iterator[tuple[str, pathlib.Path]]:
  for path in sorted(folder.iterdir()):
    name = _FILE.match(path.name)
    # Of the program as one and of its start and end there is one of each; a
    # number before the end says which pass, the first only counts.
    if name and "schedule-analysis" not in path.name and name[1] not in (
        "TLP", "<late-initialization>", "<late-finalization>"):
      yield name[1], path
