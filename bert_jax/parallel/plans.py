"""Which layouts there are for a number of devices, and which is chosen."""

import math
from collections.abc import Callable

from bert_jax.config import UserError
from bert_jax.parallel.cost import Plan, Workload, price, traffic
from bert_jax.parallel.mesh import AXES

Shape = tuple[int, int, int]  # data, fsdp, tensor
# Of the memory, where a number of microbatches is chosen: a plan leaves out the
# program and what the compiler keeps besides, 8% of BERT-base on a TPU v5e.
_PLANNED = 0.9


def layouts(work: Workload, devices: int, data: int | None = None,
            fsdp: int | None = None, tensor: int | None = None,
            slices: int = 1) -> list[Shape]:
  """All valid (data, fsdp, tensor) of a number of devices, most data first.

  Args:
    data, fsdp, tensor: what is given; None is open.
    slices: groups of devices that only a slow network joins; the data axis
      goes over it.

  Raises:
    UserError: there is none; names those that are possible.
  """
  divisors = [n for n in range(devices, 0, -1) if devices % n == 0]
  every = [(d, f, devices // (d * f)) for d in divisors for f in divisors[::-1]
           if devices % (d * f) == 0]
  given = {name: value for name, value in
           zip(AXES, (data, fsdp, tensor)) if value is not None}
  matching = [shape for shape in every
           if all(shape[AXES.index(a)] == n
                  for a, n in given.items())]
  faults = {shape: _fault(work, shape, slices) for shape in every}
  valid = [shape for shape in matching if not faults[shape]]
  if valid:
    return valid
  possible = ", ".join(" x ".join(map(str, shape)) for shape in every
                       if not faults[shape])
  options = " ".join(f"layout.{a}={n}" for a, n in given.items())
  why = (faults[matching[0]] if matching else
         f"data x fsdp x tensor must be the {devices} devices that there are.")
  raise UserError(
      f"{options + ': ' if options else ''}{why} "
      + (f"Possible as data x fsdp x tensor: {possible}." if possible else
         f"No layout of {devices} devices is possible."))


def _fault(work: Workload, shape: Shape, slices: int) -> str:
  """Why a layout cannot be; "" where it can."""
  data, fsdp, tensor = shape
  parts, rows = work.recipe.parts, data * fsdp
  if work.batch_size % (parts * rows):
    share = parts * rows
    low = work.batch_size // share * share
    nearest = " and ".join(str(n) for n in (low, low + share) if n)
    return (f"batch_size={work.batch_size} cannot be split into {parts} "
            f"microbatches over {rows} devices; the nearest that can: "
            f"{nearest}.")
  for model in work.recipe.networks.values():
    for name in ("num_attention_heads", "intermediate_size"):
      if getattr(model, name) % tensor:
        return (f"tensor={tensor} does not divide "
                f"model.{name}={getattr(model, name)}.")
  if data % slices:
    return (f"data={data} is no multiple of the {slices} slices that the "
            "devices lie in, and no other axis may go over the network "
            "between them.")
  return ""


def candidates(work: Workload, shapes: list[Shape],
               limit: int | None = None) -> list[Plan]:
  """The prices of layouts, the best first: least traffic among those that fit
  in `limit` bytes a device, most data among equals; what does not fit comes
  last, least memory first."""
  plans = [price(work, shape) for shape in shapes]
  return sorted(plans, key=lambda p: (
      (0, p.traffic, -p.data, -p.fsdp) if p.fits(limit)
      else (1, p.memory, -p.data, -p.fsdp)))


def choose(work: Workload, shapes: Callable[[Workload], list[Shape]],
           limit: int | None = None) -> tuple[Workload, Shape]:
  """The first of the `candidates`, and the workload for it.

  Where the number of microbatches is open, it is chosen with the layout: of
  all that fit the one with the least traffic, which each microbatch adds to;
  one where the limit is not known.

  Args:
    shapes: the layouts of a workload.

  Raises:
    UserError: there is none.
  """
  if work.recipe.microbatches is not None or limit is None:
    return work, _best(work, shapes(work), limit)
  open_, fitting = [], []
  for parts in (n for n in range(1, work.batch_size + 1)
                if work.batch_size % n == 0):
    work = work.in_parts(parts)
    try:
      plans = [(work, plan) for plan in candidates(
          work, shapes(work), _PLANNED * limit)]
    except UserError:
      if parts == 1:
        raise
      continue
    least = min((plan.traffic for _, plan in fitting), default=math.inf)
    # With more microbatches no layout sends less.
    if min(plan.traffic for _, plan in plans) >= least:
      break
    open_ += plans
    fitting += [pair for pair in plans if pair[1].fits(_PLANNED * limit)]
  work, plan = (min(fitting, key=lambda pair: pair[1].traffic) if fitting
                else min(open_, key=lambda pair: pair[1].memory))
  return work, plan.shape


def _best(work: Workload, shapes: list[Shape], limit: int | None) -> Shape:
  if len(shapes) == 1:
    return shapes[0]
  if limit is None:  # Memory decides nothing and need not be known.
    return min(shapes, key=lambda s: (round(traffic(work, s)), -s[0], -s[1]))
  return candidates(work, shapes, limit)[0].shape
