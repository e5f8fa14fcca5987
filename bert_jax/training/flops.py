"""FLOPs of a program: its matrix products and convolutions, counted.

They are read off the traced program, so that whatever a page defines is priced
as it is. Nothing is compiled or run.
"""

import math
from collections.abc import Callable, Iterator
from typing import Any

import jax
from jax.interpreters import partial_eval

from bert_jax.config import UserError
from bert_jax.training import numerics


def count_flops(function: Callable[..., Any], *arguments: Any) -> int:
  """Multiplications and additions of what the results of `function` need.

  Args:
    arguments: arrays, or their shapes and types.

  Raises:
    UserError: a product lies in a loop whose number of trips is not known.
  """
  closed = numerics.fixed_settings()(jax.make_jaxpr(function))(*arguments)
  jaxpr, _ = partial_eval.dce_jaxpr(closed.jaxpr,
                                    [True] * len(closed.jaxpr.outvars))
  return _count(jaxpr)


def _count(jaxpr: Any) -> int:
  used = {id(v) for v in jaxpr.outvars} | {
      id(v) for equation in jaxpr.eqns for v in equation.invars}
  return sum(_of_equation(equation, [id(v) in used for v in equation.outvars])
             for equation in jaxpr.eqns)


def _of_equation(equation: Any, used: list[bool]) -> int:
  """The FLOPs of an equation; `used` says which of its results are."""
  params, name = equation.params, equation.primitive.name
  shapes = [v.aval.shape for v in (*equation.invars, *equation.outvars)
            if hasattr(v.aval, "shape")]
  match name:
    case "dot_general":
      (contracted, _), _ = params["dimension_numbers"]
      return 2 * math.prod((*shapes[-1], *(shapes[0][i] for i in contracted)))
    case "ragged_dot" | "ragged_dot_general":
      # Each row of the left side meets the matrix of its group.
      return 2 * math.prod(shapes[0]) * shapes[-1][-1]
    case "conv_general_dilated":
      kernel, spec = shapes[1], params["dimension_numbers"].rhs_spec
      # The kernel's inputs are those of a group already.
      return 2 * math.prod((*shapes[-1], *(kernel[i] for i in spec[1:])))
    case "scan":
      return _of_scan(equation, used)
    case "pallas_call" if params["cost_estimate"] is not None:
      return params["cost_estimate"].flops
    case "cond":
      return max(_count(branch.jaxpr) for branch in params["branches"])
    case "while":
      if sum(map(_count, _inside(params))):
        raise UserError("A matrix product in a while loop cannot be counted: "
                        "write the loop with jax.lax.scan, or fori_loop with "
                        "a static number of trips.")
      return 0
  return _trips(name, params) * sum(map(_count, _inside(params)))


def _of_scan(equation: Any, used: list[bool]) -> int:
  """Of a loop; one that is unrolled computes what the next trip uses."""
  params = equation.params
  body, length = params["jaxpr"].jaxpr, params["length"]
  if params["unroll"] < length:
    return length * _count(body)
  # What is carried has the same shape outside; what is scanned has one
  # dimension more there. (The counts' names differ between versions of jax.)
  same = lambda outside, inside: sum(
      a.aval.shape == b.aval.shape for a, b in zip(outside, inside))
  carried = same(equation.outvars, body.outvars)
  first = same(equation.invars, body.invars) - carried
  total = 0
  for left in range(length, 0, -1):  # From the last trip to the first.
    trip, needed = partial_eval.dce_jaxpr(body, used)
    flops, before = _count(trip), used
    used = [*needed[first:first + carried], *used[carried:]]
    if used == before:
      return total + left * flops
    total += flops
  return total


def _trips(name: str, params: dict[str, Any]) -> int:
  """How often the programs inside of an equation run."""
  match name:
    case "shard_map":  # Its shapes are those of one device.
      axes = params.get("manual_axes", params["mesh"].axis_names)
      return math.prod(params["mesh"].shape[axis] for axis in axes)
    case "pallas_call":
      return math.prod(params["grid_mapping"].grid)
  return 1


def _inside(params: dict[str, Any]) -> Iterator[Any]:
  """The programs among the parameters of an equation."""
  for value in jax.tree.leaves(list(params.values()), is_leaf=_is_program):
    if _is_program(value):
      yield getattr(value, "jaxpr", value)


def _is_program(value: Any) -> bool:
  return hasattr(getattr(value, "jaxpr", value), "eqns")
