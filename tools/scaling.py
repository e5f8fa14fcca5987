"""How a page scales over TPUs that are not here, predicted.

  python tools/scaling.py base model.dtype=bfloat16 --chip v5e --rows 8

compiles the page's step for 4 chips and prices its collectives for 4, 16, 64
and 256. Weak: the rows of a chip stay. Strong: the batch is that of 256 chips,
and fewer compute it in microbatches of these rows; gradients are summed over
the chips after each, as XLA does it, and the optimizer runs once.
"""

import argparse

from bert_jax import config
from bert_jax.analysis.topology import step
from bert_jax.analysis.topology.chips import Topology
from bert_jax.analysis.topology.prediction import Prediction, scale
from bert_jax.reporting import markdown

SHAPES = {2: ("2x2", "4x4", "8x8", "16x16"),
          3: ("2x2x1", "2x2x4", "4x4x4", "4x8x8")}


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
  parser.add_argument("page")
  parser.add_argument("overrides", nargs="*")
  parser.add_argument("--chip", default="v5e")
  parser.add_argument("--rows", type=int, default=8)
  options, rest = parser.parse_known_args()
  page = config.load_page(options.page).experiment
  experiment = config.override(page, [
      f"batch_size={4 * options.rows}", "layout.fsdp=1", "layout.tensor=1",
      *options.overrides, *rest])
  smallest = Topology.parse(f"{options.chip}:2x2" + "x1" * (
      options.chip in ("v4", "v5p")))
  topologies = [Topology.parse(f"{options.chip}:{shape}")
                for shape in SHAPES[smallest.chip.axes]]
  compiled = step.compile_step(experiment, smallest)
  predictions = [scale(compiled, experiment, t) for t in topologies]
  print(markdown.table(
      ["chips", "topology", "weak: step, ms", "tokens a second", "MFU",
       "waits, ms", "efficiency", "strong: step, ms", "efficiency"],
      list(rows(predictions))))


def rows(predictions: list[Prediction]) -> list[list[str]]:
  first, largest = predictions[0], predictions[-1]
  strong = [_strong(p, largest.topology.chips // p.topology.chips)
            for p in predictions]
  return [[str(p.topology.chips), p.topology.name, f"{p.step * 1e3:.1f}",
           f"{p.tokens_per_second:,.0f}", f"{p.mfu:.3f}",
           f"{p.exposed * 1e3:.1f}", f"{first.step / p.step:.2f}",
           f"{seconds * 1e3:,.1f}",
           f"{strong[0] * first.topology.chips / (seconds * p.topology.chips):.2f}"]
          for p, seconds in zip(predictions, strong)]


def _strong(prediction: Prediction, microbatches: int) -> float:
  """Seconds of a step whose rows come in microbatches."""
  once = prediction.parts["optimizer"].seconds
  return microbatches * (prediction.step - once) + once


if __name__ == "__main__":
  main()
