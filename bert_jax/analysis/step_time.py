"""How long training takes on this machine, by an estimate or by some steps."""

import dataclasses
import functools
import statistics
import time
from collections.abc import Callable, Iterator

import jax
import jax.numpy as jnp
import numpy as np

from bert_jax import config
from bert_jax.experiment import Experiment, workload
from bert_jax.parallel.cost import Workload
from bert_jax.training import numerics
from bert_jax.training.budget import Budget

_DAY = 24 * 3600.0
_PRODUCT_SECONDS = 0.05  # a product that takes longer is large enough
_MEASURED_SECONDS = 3.0
_LEAST_STEPS = 3
# On a CPU no page that was measured took this many times its estimate.
_SLOWER = 3.0
_UNITS = (("years", 365 * _DAY), ("days", _DAY), ("h", 3600.0), ("min", 60.0),
          ("s", 1.0), ("ms", 1e-3))


@dataclasses.dataclass(frozen=True)
class StepTime:
  """
  Attributes:
    seconds: of a step.
    how: it is known, in words.
    least: it may take longer, but not less.
  """

  seconds: float
  how: str
  least: bool


def estimate(experiment: Experiment) -> StepTime:
  """The FLOPs of a step over the speed of a product of the network's widths,
  which is measured here, within a second.

  Nothing of the experiment is compiled. What else a step does (softmax,
  dropout, norms, the optimizer, what devices send) is left out: on a CPU
  measured steps took 1.2 to 2.6 times as long.
  """
  work = workload(experiment)
  speed, product = _speed(experiment, work)
  devices = _devices()
  return StepTime(
      work.flops / (speed * devices), f"an estimate, {work.flops:.3g} FLOPs "
      f"over the {speed:.3g} a second that {product} reaches here"
      + (f", on {devices} devices" if devices > 1 else ""), True)


def _devices() -> int:
  """Those that add speed; emulated ones of a CPU share its cores."""
  return 1 if jax.default_backend() == "cpu" else jax.device_count()


def _speed(experiment: Experiment, work: Workload) -> tuple[float, str]:
  """FLOPs a second of one device, and of what product."""
  model = experiment.model
  rows = max(1, work.batch_size // (work.recipe.parts * _devices()))
  return _speed_of(rows * np.shape(work.row["example_ids"])[1],
                   model.hidden_size, model.intermediate_size, model.dtype)


@functools.cache
def _speed_of(tokens: int, width: int, inner: int,
              dtype: str) -> tuple[float, str]:
  multiply = numerics.jit(lambda x_LD, kernel_DF: x_LD @ kernel_DF)
  kernel_DF = jnp.ones((width, inner), dtype)
  count = min(tokens, 512)
  while True:
    x_LD = jnp.ones((count, width), dtype)
    run = lambda: multiply(x_LD, kernel_DF)
    _seconds(run)  # It compiles.
    seconds = statistics.median(_seconds(run) for _ in range(3))
    if count == tokens or seconds > _PRODUCT_SECONDS:
      return (2.0 * count * width * inner / seconds,
              f"a product of {count} x {width} by {width} x {inner}")
    count = min(tokens, 4 * count)


def measure(experiment: Experiment) -> StepTime:
  """The median of some steps of the experiment itself, after the first.

  They run as in training, on all devices, but on rows without a text: data
  are not read, and parameters of `init_from` neither.
  """
  work = workload(experiment)
  runner = experiment.layout.build(work.recipe, work.state, work.batch_size,
                                   work.row)
  state = numerics.jit(runner.recipe.init, out_shardings=runner.shardings)(
      np.int32(0), work.row)
  batch = runner.put(_full_rows(work, runner.rows(work.batch_size)))
  times: list[float] = []
  while len(times) <= _LEAST_STEPS or sum(times[1:]) < _MEASURED_SECONDS:
    start = time.monotonic()
    state, sums = runner.step(state, batch)
    jax.block_until_ready((state, sums))
    times.append(time.monotonic() - start)
  return StepTime(statistics.median(times[1:]), f"the median of "
                  f"{len(times) - 1} steps here; compiling took "
                  f"{duration(times[0])}", False)


def _full_rows(work: Workload, row_B: np.ndarray) -> dict[str, np.ndarray]:
  """Rows at these positions of the batch without padding, of any tokens."""
  rows = {key: np.repeat(x, len(row_B), 0) for key, x in work.row.items()}
  if "input_ids" in rows:
    shape = rows["input_ids"].shape
    rows["input_ids"] = np.broadcast_to(np.arange(
        shape[1], dtype=np.int32) % work.recipe.vocabulary.size, shape)
  for key in ("example_ids", "example_mask"):
    rows[key] = np.ones_like(rows[key])
  return rows | {"row": np.asarray(row_B, np.int32)}


def _seconds(function: Callable[[], jax.Array]) -> float:
  start = time.monotonic()
  function().block_until_ready()
  return time.monotonic() - start


def text(experiment: Experiment, measured: bool) -> str:
  """What a step takes, and all of them; where that is more than a day, the
  page that is done by then."""
  step = (measure if measured else estimate)(experiment)
  tokens = experiment.batch_size * experiment.data.length
  lines = [f"{'At least ' * step.least}{duration(step.seconds)} a step of "
           f"{experiment.batch_size} rows, {tokens / step.seconds:,.0f} tokens "
           f"a second{' at most' * step.least}: {step.how}."]
  count = steps(experiment)
  if count is None:
    lines.append("How many steps there are follows from "
                 + ("the budget." if experiment.budget else "the data."))
  else:
    total = count * step.seconds
    lines.append(f"{count:,} steps take {'at least ' * step.least}"
                 f"{duration(total)}, without evaluations and saves.")
    if total > _DAY:
      lines.append(_within_a_day(experiment))
  if not measured:
    lines.append("--measure runs some steps of it, with the time and memory "
                 "that they take.")
  return " ".join(lines)


def steps(experiment: Experiment) -> int | None:
  """Of a run; None: they follow from the data, or from what is measured."""
  if experiment.epochs is not None:
    return None
  if not experiment.budget:
    return experiment.steps
  budget = Budget.parse(experiment.budget)
  prices = {"tokens": lambda: experiment.batch_size * experiment.data.length,
            "flops": lambda: workload(experiment).flops}
  if budget.unit not in prices:
    return None
  return budget.enough(prices[budget.unit]())


def _within_a_day(experiment: Experiment) -> str:
  """The largest of the program's pages for the same kind of data that this
  machine can finish, from the smallest up to the first that it cannot."""
  best = ""
  for name, other in sorted(_pages(experiment), key=lambda p: _size(p[1])):
    seconds = other.steps * estimate(other).seconds
    if _SLOWER * seconds > _DAY:
      break
    best = (f"{name}, {other.steps:,} steps in {duration(seconds)} to "
            f"{duration(_SLOWER * seconds)}")
  return "This machine cannot finish it in a day. " + (
      f"Of the program's pages, the largest that it can: {best}." if best else
      "None of the program's pages for such data is that small.")


def _pages(experiment: Experiment) -> Iterator[tuple[str, Experiment]]:
  for name in config.page_names():
    if "/" not in name:
      other = config.load_page(name).experiment
      if (other.objective.label_kind is experiment.objective.label_kind
          and other.model.inputs.reads == experiment.model.inputs.reads
          and not other.init_from and other.epochs is None
          and not other.budget):
        yield name, other


def _size(experiment: Experiment) -> float:
  """Grows with what a run costs."""
  model = experiment.model
  return (experiment.steps * experiment.batch_size * experiment.data.length
          * model.num_hidden_layers * model.hidden_size**2)


def duration(seconds: float) -> str:
  """As "3.2 h"."""
  name, unit = next(((name, unit) for name, unit in _UNITS
                     if seconds >= 2 * unit), _UNITS[-1])
  count = seconds / unit
  return f"{count:,.0f} {name}" if count >= 1000 else f"{count:.3g} {name}"
