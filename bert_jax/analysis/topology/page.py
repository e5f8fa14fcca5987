"""A prediction in words, and as an object for programs."""

import textwrap
from typing import Any

from bert_jax.analysis import describe, step_time
from bert_jax.analysis.topology import prediction as predicting
from bert_jax.analysis.topology.chips import (
    HOP_SECONDS, LINK_SHARE, MEMORY_SHARE)
from bert_jax.analysis.topology.prediction import Prediction
from bert_jax.reporting import markdown


def text(prediction: Prediction, price: float | None = None,
         columns: int = 80) -> str:
  """
  Args:
    price: dollars of a chip for an hour.
    columns: of a line.
  """
  fill = lambda *lines: textwrap.fill(
      " ".join(lines), columns, break_long_words=False, break_on_hyphens=False)
  return "\n\n".join(filter(None, [
      fill(*_fits(prediction)), fill(*_speed(prediction)),
      fill(*_run(prediction, price)), fill(_bound(prediction)),
      _parts(prediction), _sent(prediction), _memory(prediction),
      fill(*_how(prediction))]))


def _fits(p: Prediction) -> list[str]:
  slices = f"{p.topology.slices} slices of " if p.topology.slices > 1 else ""
  rows = p.experiment.batch_size / p.topology.chips
  lines = [
      f"Predicted, not measured: {slices}{p.topology.name}, "
      f"{p.topology.chips} chips as "
      f"{' x '.join(map(str, p.shape))} (data x fsdp x tensor), {rows:g} rows "
      f"of {p.experiment.data.length} tokens a chip, "
      f"model.dtype={p.experiment.model.dtype}, "
      f"microbatches={p.microbatches}."]
  if p.change:
    lines.insert(0, f"It does not fit: it needs {describe.size(p.needed)} of "
                 f"a chip's {describe.size(p.topology.chip.memory)}. The "
                 f"nearest that fits is {p.change}, which is what follows.")
  return lines


def _speed(p: Prediction) -> list[str]:
  return [f"{step_time.duration(p.step)} a step, "
          f"{p.tokens_per_second:,.0f} tokens a second; MFU {p.mfu:.3f}, "
          f"{p.flops:.3g} FLOPs of a step over the time and the "
          f"{p.topology.chip.peak / 1e12:g} TFLOP/s of each chip."]


def _run(p: Prediction, price: float | None) -> list[str]:
  if p.steps is None:
    return ["How many steps there are follows from the data."]
  lines = [f"{p.steps:,} steps take {p.hours:,.3g} hours, "
           f"{p.hours * p.topology.chips:,.4g} chip-hours, without "
           "evaluations and saves."]
  if price is not None:
    lines.append(f"At ${price:g} a chip-hour: ${p.dollars(price):,.0f}.")
  return lines


def _bound(p: Prediction) -> str:
  """What bounds the step."""
  waits = sum(part.memory for part in p.parts.values())
  largest = next(iter(p.parts))
  shares = {"HBM": waits, "the network between chips": p.exposed,
            "instructions": p.step - waits - p.exposed}
  ordered = sorted(shares.items(), key=lambda pair: -pair[1])
  return (f"It is bound by {ordered[0][0]}: " + ", ".join(
      f"{seconds / p.step:.0%} {name}" for name, seconds in ordered)
      + f". The largest part is {largest}, "
      f"{p.parts[largest].seconds / p.step:.0%}.")


def _parts(p: Prediction) -> str:
  rows = [[name, f"{part.seconds * 1e3:.2f}", f"{part.seconds / p.step:.0%}",
           f"{part.products * 1e3:.2f}", f"{part.memory * 1e3:.2f}"]
          for name, part in p.parts.items()]
  rows.append(["waiting for other chips", f"{p.exposed * 1e3:.2f}",
               f"{p.exposed / p.step:.0%}", "", ""])
  return markdown.table(["part, ms", "time", "share", "products at peak",
                         "bound by HBM"], rows)


def _sent(p: Prediction) -> str:
  if not p.sent:
    return ""
  return markdown.table(
      ["collectives of a step", "number", "bytes", "ms", "ms waited for"],
      [[name, str(sent.count), describe.size(sent.bytes),
        f"{sent.seconds * 1e3:.2f}", f"{sent.exposed * 1e3:.2f}"]
       for name, sent in p.sent.items()])


def _memory(p: Prediction) -> str:
  rows = [[name, describe.size(size)] for name, size in p.memory.items()]
  rows.append(["all", f"{describe.size(sum(p.memory.values()))} of "
               f"{describe.size(p.topology.chip.memory)}"])
  return markdown.table(["memory of a chip", "bytes"], rows)


def _how(p: Prediction) -> list[str]:
  chip = p.topology.chip
  model = p.experiment.model
  layers = model.num_hidden_layers
  few = ("" if p.layers == 1 else f", but with {round(layers / p.layers)} "
         f"layers, which count for all {layers}: of BERT-base 2% off time and "
         "memory of all, of small networks in float32 up to 14% too little "
         f"memory; model.scan_unroll={layers} compiles all, for many minutes")
  lines = [
      "What was compiled is the step of this page for all of these chips, by "
      f"libtpu {predicting.versions()['libtpu']}{few}. The time of an "
      "operation is the larger of the instructions that the compiler scheduled "
      "for it, kernels of Pallas included, and of its bytes at "
      f"{MEMORY_SHARE:g} of HBM's bandwidth; loops count as often as they run. "
      "Collectives are arithmetic: rings along the axes of the chips' grid at "
      f"{LINK_SHARE:g} of a link's bandwidth, and {HOP_SECONDS * 1e6:g} us a "
      "hop; of a product that is fused with one, the instructions are the "
      "compiler's own estimate. No chip has checked it: how far it is off is "
      "not known. Comparisons are worth more than the absolute value. Figures "
      f"of the chip: {chip.source}."]
  if p.unknown:
    lines.append("Counted once, since data decide how often it runs, or not "
                 f"counted: {', '.join(p.unknown[:3])}"
                 + (f" and {len(p.unknown) - 3} more." if len(p.unknown) > 3
                    else "."))
  return lines


def as_dict(p: Prediction, price: float | None = None) -> dict[str, Any]:
  """The same for programs: seconds, bytes, dollars."""
  return {
      "predicted": True, "measured": False,
      "topology": p.topology.name, "slices": p.topology.slices,
      "chip": p.topology.chip.name, "chips": p.topology.chips,
      "fits": not p.change, "change": p.change, "needed_bytes": p.needed,
      "layout": dict(zip(("data", "fsdp", "tensor"), p.shape)),
      "batch_size": p.experiment.batch_size,
      "length": p.experiment.data.length,
      "microbatches": p.microbatches,
      "step_seconds": p.step, "tokens_per_second": p.tokens_per_second,
      "mfu": p.mfu, "flops": p.flops, "steps": p.steps, "hours": p.hours,
      "dollars": None if price is None else p.dollars(price),
      "parts": {name: vars(part) for name, part in p.parts.items()},
      "exposed_seconds": p.exposed,
      "collectives": {name: vars(sent) for name, sent in p.sent.items()},
      "memory": dict(p.memory), "memory_limit": p.topology.chip.memory,
      "compile_seconds": p.compiling, "unknown": list(p.unknown),
      "versions": predicting.versions()}
