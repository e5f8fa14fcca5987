"""The TPUs that a step can be compiled for, by their data sheets."""

import dataclasses
import math
import re

from bert_jax.config import UserError, nearest

# What programs reach of the data sheet's bandwidths: Google's own benchmark
# copies at .83 of it on v6e (AI-Hypercomputer/accelerator-microbenchmarks),
# and "How to scale your model" (Austin et al. 2025) has .9 for links.
MEMORY_SHARE, LINK_SHARE = 0.85, 0.9
# Of a message from one chip to its neighbor; the same book.
HOP_SECONDS = 1e-6


@dataclasses.dataclass(frozen=True)
class Chip:
  """
  Attributes:
    name: as topologies have it.
    peak: FLOPs a second in bfloat16.
    memory: bytes of HBM that a program may use.
    bandwidth: bytes a second of HBM.
    clock: cycles a second.
    link: bytes a second that a link to a neighbor carries each way.
    network: bytes a second to other slices, None where the sheet has none.
    axes: of the largest topology.
    ring: an axis is closed to a ring where its length is a multiple of it.
    source: of these figures.
  """

  name: str
  peak: float
  memory: int
  bandwidth: float
  clock: float
  link: float
  network: float | None
  axes: int
  ring: int
  source: str


_SHEETS = "https://docs.cloud.google.com/tpu/docs/"
_GIB = 2**30
# Peak, bandwidths and memory: the sheets. Of the memory the compiler keeps a
# part, and says so where a program does not fit. Clocks: what makes the peak
# of the number of matrix units.
CHIPS = {chip.name: chip for chip in (
    Chip("v4", 275e12, 32 * _GIB, 1228e9, 1.05e9, 50e9, None, 3, 4,
         _SHEETS + "v4"),
    Chip("v5e", 197e12, int(15.75 * _GIB), 819e9, 1.5e9, 50e9, 25e9 / 8, 2,
         16, _SHEETS + "v5e"),
    Chip("v5p", 459e12, 95 * _GIB, 2765e9, 1.75e9, 100e9, 50e9 / 8, 3, 4,
         _SHEETS + "v5p"),
    Chip("v6e", 918e12, int(31.25 * _GIB), 1638e9, 1.75e9, 100e9, 100e9 / 8,
         2, 16, _SHEETS + "v6e"),
)}


@dataclasses.dataclass(frozen=True)
class Topology:
  """Slices of chips, as v5e:16x16.

  Attributes:
    shape: chips along each axis of a slice.
    slices: number of them, joined by a slower network.
  """

  chip: Chip
  shape: tuple[int, ...]
  slices: int = 1

  @classmethod
  def parse(cls, word: str, slices: int = 1) -> "Topology":
    """
    Raises:
      UserError: it is no topology.
    """
    name, _, rest = word.partition(":")
    if name not in CHIPS:
      raise UserError(f"topology {word}: {name!r} is no chip"
                      + nearest(name, CHIPS))
    chip = CHIPS[name]
    example = "x".join(["4"] * chip.axes)
    if not re.fullmatch(r"\d+(x\d+)+", rest) or len(
        rest.split("x")) != chip.axes:
      raise UserError(f"topology {word}: expected {chip.axes} numbers of "
                      f"chips, as in {name}:{example}.")
    return cls(chip, tuple(map(int, rest.split("x"))), slices)

  @property
  def name(self) -> str:
    return f"{self.chip.name}:{'x'.join(map(str, self.shape))}"

  @property
  def chips(self) -> int:
    return self.slices * math.prod(self.shape)

  def closed(self, axis: int) -> bool:
    """Whether the chips of an axis are a ring, rather than a line."""
    multiples = [size % self.chip.ring == 0 for size in self.shape]
    # Axes of v4 and v5p are closed where the slice is made of full cubes.
    return multiples[axis] if self.chip.axes == 2 else all(multiples)
