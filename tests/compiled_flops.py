"""FLOPs read off the text of a compiled program."""

import math
import re


def of_products(program: str) -> int:
  """FLOPs of the matrix products in XLA's optimized program."""
  shapes = {name: [int(n) for n in dimensions.split(",") if n]
            for name, dimensions in re.findall(
                r"%?([\w.-]+) = \w+\[([\d,]*)\]", program)}
  computations = {name: (bool(entry), body) for entry, name, body in re.findall(
      r"^(ENTRY )?%?([\w.-]+) \(.*\{\n((?: .*\n)*)\}", program, re.MULTILINE)}

  def of(computation: str) -> int:
    total = 0
    for line in computations[computation][1].splitlines():
      product = re.search(r"%?([\w.-]+) = \S+ dot\((?:\S+ )?%?([\w.-]+),.*"
                          r"lhs_contracting_dims=\{([\d,]*)\}", line)
      if product:
        name, left, contracted = product.groups()
        total += 2 * math.prod(shapes[name]) * math.prod(
            shapes[left][int(n)] for n in contracted.split(",") if n)
      trips = re.search(r'"known_trip_count":\{"n":"(\d+)"', line)
      total += int(trips[1] if trips else 1) * sum(map(of, re.findall(
          r"(?:calls|to_apply|body)=%?([\w.-]+)", line)))
    return total

  return sum(of(name) for name, (entry, _) in computations.items() if entry)
