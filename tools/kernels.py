#!/usr/bin/env python3
"""Compiles the attention kernel for TPUs that are not here, and counts cycles.

  python tools/kernels.py                      some shapes and options, v5e
  python tools/kernels.py --chips v5e v6e v5p --all   every combination

A line for each: microseconds of the forward and the backward kernel for 16,384
tokens of 12 heads of 64 (or as many of another width), from the schedule that
the compiler writes. What does not compile is named, and fails the command.
Loops over blocks of long rows depend on the data and are counted once: only
rows of up to 512 tokens have a time. It takes libtpu: `pip install
'.[tpu-plan]'`.
"""

import argparse
import itertools
import pathlib
import sys

ROOT = pathlib.Path(__file__).resolve().parents[1]
TOKENS, WIDTH = 16_384, 768
OPTIONS = ("", "dropout", "order", "reach", "bias", "dropout order reach bias")


def main() -> None:
  parser = argparse.ArgumentParser(
      description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
  parser.add_argument("--chips", nargs="+", default=["v5e"])
  parser.add_argument("--all", action="store_true",
                      help="all combinations, about an hour")
  arguments = parser.parse_args()
  if arguments.all:
    cases = list(itertools.product((128, 512, 2048, 8192), (32, 64, 96, 128),
                                   ("bfloat16", "float32"), OPTIONS))
  else:
    cases = [(128, 64, "bfloat16", ""), (128, 64, "bfloat16", "dropout"),
             *((512, 64, "bfloat16", option) for option in OPTIONS),
             (512, 32, "bfloat16", "dropout"), (512, 96, "bfloat16", "dropout"),
             (512, 128, "bfloat16", "dropout"),
             (512, 64, "float32", "dropout order reach bias"),
             (2048, 64, "bfloat16", "dropout order reach bias"),
             (8192, 64, "bfloat16", "dropout order reach bias"),
             (8192, 128, "float32", "dropout reach")]
  failed = sum(not compiles(chip, *case)
               for chip in arguments.chips for case in cases)
  print(f"{len(cases) * len(arguments.chips) - failed} compiled, "
        f"{failed} failed.")
  sys.exit(1 if failed else 0)


def compiles(chip: str, length: int, width: int, dtype: str,
             options: str) -> bool:
  """Prints a line; whether it compiled."""
  from bert_jax.analysis.topology import absent, bundles
  from bert_jax.analysis.topology.chips import Topology

  shape = "2x2x1" if chip in ("v4", "v5p") else "2x2"
  topology = Topology.parse(f"{chip}:{shape}")
  device = absent.devices(topology)[0]
  bundles.clear(absent.schedules())
  what = f"{chip:4} {length:5} x {width:3} {dtype:8} {options:25}"
  try:
    compile_step(device, length, width, dtype, options)
  except Exception as error:  # Whatever it says: the next is tried.
    print(what, "does not compile:", str(error).strip().partition("\n")[0][:300],
          flush=True)
    return False
  times = {}
  for name, schedule in bundles.read(absent.schedules()).items():
    for kernel in ("forward", "backward"):
      if f"flash_{kernel}" in name and not schedule.unknown:
        times[kernel] = schedule.cycles / topology.chip.clock * 1e6
  print(what, " ".join(f"{kernel} {time:5.0f}"
                       for kernel, time in sorted(times.items(), reverse=True)),
        flush=True)
  return True


def compile_step(device, length: int, width: int, dtype: str,
                 options: str) -> None:
  """Value and gradients of the kernel, for one device."""
  import jax
  import jax.numpy as jnp
  from jax.sharding import SingleDeviceSharding

  from bert_jax.model.kernels.attention import flash_attention

  rows, heads = TOKENS // length, WIDTH // width
  shape = lambda *sizes, dtype: jax.ShapeDtypeStruct(
      sizes, dtype, sharding=SingleDeviceSharding(device))
  arrays = {name: shape(rows, length, heads, width, dtype=dtype)
            for name in ("query", "key", "value")}
  arrays["example_ids"] = shape(rows, length, dtype=jnp.int32)
  arrays["heads"] = shape(heads, dtype=jnp.int32)
  if "order" in options:
    arrays["order"] = arrays["example_ids"]
  if "reach" in options:
    arrays["reach"] = shape(rows, dtype=jnp.int32)
  if "bias" in options:
    arrays["bias"] = shape(heads, 2 * length - 1, dtype=jnp.float32)
  if "dropout" in options:
    arrays["keys"] = shape(rows, 2, dtype=jnp.int32)
    arrays["rate"] = shape(dtype=jnp.float32)
  learned = {name: x for name, x in arrays.items()
             if name in ("query", "key", "value", "bias")}

  def loss(learned, others):
    mixed = flash_attention({**others, **learned}, interpret=False)
    return mixed.astype(jnp.float32).sum()

  others = {name: x for name, x in arrays.items() if name not in learned}
  jax.jit(jax.value_and_grad(loss)).lower(learned, others).compile()


if __name__ == "__main__":
  sys.path.insert(0, str(ROOT))
  main()
