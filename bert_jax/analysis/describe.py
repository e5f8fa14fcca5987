"""What an experiment is, before anything is paid for it."""

import functools
import io
import math
import textwrap
from collections.abc import Sequence

import jax
import rich.console
import rich.table

from bert_jax import config
from bert_jax.analysis import step_time
from bert_jax.config import catalog
from bert_jax.experiment import Experiment, workload
from bert_jax.parallel import mesh, plans
from bert_jax.parallel.cost import Plan
from bert_jax.parallel.layouts import MeshLayout, memory_limit
from bert_jax.reporting import markdown
from bert_jax.training import numerics
from bert_jax.training.param_paths import leaves
from bert_jax.training.step import train_step

_PLANS = 8  # lines in the table of layouts


def describe(experiment: Experiment, page: Experiment, docstring: str,
             devices: int | None = None, memory: int | None = None,
             columns: int = 80, measured: bool = False) -> str:
  """The page's words, differences, all options, parameters, FLOPs, time,
  layouts.

  Args:
    columns: of a line.
    devices: how many to lay the experiment on; None: those that are there.
    memory: bytes of each; None: as the devices say that are there.
  """
  parts = [docstring.strip()]
  for title, base in (("Differs from BERT-base as published", Experiment()),
                      ("Differs from the page", page)):
    different = config.described_changes(base, experiment)
    parts.append("\n  ".join([f"{title}:", *(different or ["nothing"])]))
  parts.append(_options(experiment, columns))
  counts = parameter_counts(experiment)
  parts.append(markdown.table(
      ["parameters", "number"],
      [[part, f"{count:,}"] for part, count in counts.items()]
      + [["all", f"{sum(counts.values()):,}"],
         ["trained", f"{trained_parameters(experiment):,}"]]))
  parts.append(_filled(
      f"Training takes {workload(experiment).flops_per_token:.3g} FLOPs a "
      "token: the matrix products of a step, the optimizer's included.",
      columns))
  parts.append(_filled(step_time.text(experiment, measured), columns))
  if isinstance(experiment.layout, MeshLayout):
    parts.append(layouts(experiment, devices, memory, columns))
  return "\n\n".join(parts)


def _filled(text: str, columns: int) -> str:
  return textwrap.fill(text, columns, break_long_words=False,
                       break_on_hyphens=False)


def _options(experiment: Experiment, columns: int) -> str:
  """In the groups of an experiment, each with what it means."""
  lines, last = ["All options:"], ""
  for option in catalog.catalog(experiment):
    first, _, rest = option.key.partition(".")
    group = first if rest or option.members else "run"
    if group != last:
      lines.append("")
    last = group
    assignment = f"  {option.key}={option.value}"
    # Of a choice what was chosen, rather than what there is to choose.
    meaning = option.members.get(option.value, option.meaning)
    lines += textwrap.wrap(
        f"{assignment:<40}  {meaning}", columns,
        subsequent_indent=" " * 42, break_long_words=False,
        break_on_hyphens=False)
  return "\n".join(lines)


def layouts(experiment: Experiment, devices: int | None = None,
            memory: int | None = None, columns: int = 80) -> str:
  """The layouts of a number of devices, the chosen one first.

  Raises:
    UserError: there is none.
  """
  slices = 1
  if devices is None:
    there = jax.devices()
    devices, slices = len(there), mesh.slices(there)
    memory = memory_limit(there) if memory is None else memory
  work = workload(experiment)
  shapes = lambda work: experiment.layout.shapes(work, devices, slices)
  work, _ = plans.choose(work, shapes, memory)
  priced = plans.candidates(work, shapes(work), memory)
  more, parts = len(priced) - _PLANS, work.recipe.parts
  chosen = experiment.microbatches is None and parts > 1
  return "\n\n".join([_table(priced[:_PLANS], columns), _filled(" ".join([
      "Layouts are data x fsdp x tensor; the first is chosen"
      + (f", and the {more} worst are not shown." if more > 0 else "."),
      f"Bytes on {f'each of {devices} devices' if devices > 1 else '1 device'}"
      f", with batch_size={experiment.batch_size} and microbatches={parts}"
      + (", chosen to fit" if chosen else "") + "; activations as the "
      f"backward pass needs them on a {jax.default_backend().upper()}, before "
      "the compiler saves some (--topology plans for TPUs).",
      *_verdict(priced, memory)]), columns)])


def _table(plans: Sequence[Plan], columns: int) -> str:
  """Without lines, so that it is narrow."""
  table = rich.table.Table(box=None, pad_edge=False, header_style="")
  for i, name in enumerate(("layout", "parameters", "optimizer", "gradients",
                            "activations", "all", "sent a\nstep")):
    table.add_column(name, justify="right" if i else "left")
  for plan in plans:
    table.add_row(" x ".join(map(str, plan.shape)), *(
        size(n) for n in (plan.parameters, plan.optimizer, plan.gradients,
                          plan.activations, plan.memory, plan.traffic)))
  text = io.StringIO()
  rich.console.Console(file=text, width=columns).print(table)
  return "\n".join(map(str.rstrip, text.getvalue().splitlines()))


def compile_step(experiment: Experiment) -> None:
  """Compiles its training step for one device; its data are not read."""
  work = workload(experiment)
  step = numerics.jit(functools.partial(train_step, work.recipe))
  step.lower(work.state, work.rows(work.batch_size)).compile()


def _verdict(plans: list[Plan], memory: int | None) -> list[str]:
  if memory is None:
    return []
  fitting = sum(plan.fits(memory) for plan in plans)
  if not fitting:
    return [f"None fits in the {size(memory)} of a device: the first needs the "
            "least. More microbatches, more devices or a shorter data.length "
            "need less."]
  return [f"Of {len(plans)} layouts {fitting} fit in the {size(memory)} of a "
          "device." if len(plans) > 1 else
          f"It fits in the {size(memory)} of a device."]


def size(count: float) -> str:
  """Bytes in readable units, powers of 1000."""
  for unit in ("B", "kB", "MB", "GB", "TB"):
    if count < 999.5 or unit == "TB":
      return f"{count:.3g} {unit}"
    count /= 1000


def parameter_counts(experiment: Experiment) -> dict[str, int]:
  """The number of parameters of each part, by the head of its path."""
  counts: dict[str, int] = {}
  for path, leaf in leaves(workload(experiment).state.params).items():
    part = "/".join(path.split("/")[:2])
    counts[part] = counts.get(part, 0) + math.prod(leaf.shape)
  return counts


def trained_parameters(experiment: Experiment) -> int:
  """The number of parameters that are not frozen."""
  return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(
      workload(experiment).trained))
