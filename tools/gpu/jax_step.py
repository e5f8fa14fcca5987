"""The project's training step, driven by another process.

  python jax_step.py CASE.json

CASE.json has the page, the overrides and `rows`, an .npz of what lies in a
batch. After a line that it is ready it answers each line `n` with the
milliseconds of a step, the mean of n.
"""

import dataclasses
import json
import os
import pathlib
import sys
import time

import numpy as np

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2]))


def experiment(case):
  from bert_jax import config
  return config.override(
      config.load_page(case["page"]).experiment, case["overrides"])


def plain_flops(page):
  """Of a step's matrix products, all of which attention has in the open."""
  from bert_jax.experiment import workload
  from bert_jax.model.attention import PlainAttention
  return workload(dataclasses.replace(page, model=dataclasses.replace(
      page.model, attention=PlainAttention(), remat=False))).flops


def batch_of(rows, work):
  """The rows of a file as the project's batch, an example a row."""
  batch = {key: np.repeat(x, len(rows["input_ids"]), 0)
           for key, x in work.row.items()}
  length = rows["input_ids"].shape[1]
  batch |= {"input_ids": rows["input_ids"],
            "token_type_ids": rows["token_type_ids"],
            "row": np.arange(len(rows["input_ids"]), dtype=np.int32),
            "next_sentence_labels": rows["next_sentence"][:, None],
            "cls_positions": np.zeros_like(batch["cls_positions"]),
            "position_ids": np.tile(np.arange(length, dtype=np.int32),
                                    (len(rows["input_ids"]), 1))}
  for key in ("example_ids", "example_mask"):
    batch[key] = np.ones_like(batch[key])
  return batch


def stepper(case):
  """A function of a number of steps, and versions."""
  import jax

  from bert_jax.experiment import workload
  from bert_jax.metrics import weighted
  from bert_jax.training import numerics

  page = experiment(case)
  work = workload(page)
  runner = page.layout.build(work.recipe, work.state, work.batch_size,
                             work.row)
  with np.load(case["rows"]) as arrays:
    batch = runner.put(batch_of(dict(arrays), work))
  state = numerics.jit(runner.recipe.init, out_shardings=runner.shardings)(
      np.int32(0), work.row)

  def run(steps):
    nonlocal state
    for _ in range(steps):
      state, sums = runner.step(state, batch)
    return weighted.summarize(jax.device_get(sums))["loss"]

  memory = lambda: (jax.devices()[0].memory_stats() or {}).get(
      "peak_bytes_in_use")
  return run, memory, f"jax {jax.__version__}"


def serve(stepper, case):
  """Answers the lines of standard input, in JSON."""
  answers = os.fdopen(os.dup(1), "w")
  os.dup2(2, 1)  # What libraries print is no answer.

  def answer(**values):
    print(json.dumps(values), file=answers, flush=True)

  start = time.perf_counter()
  try:
    run, memory, versions = stepper(case)
    first = run(1)
    seconds = time.perf_counter() - start
    run(2)
    answer(seconds=seconds, versions=versions, loss=first, memory=memory())
    for line in sys.stdin:
      start = time.perf_counter()
      run(int(line))
      answer(ms=(time.perf_counter() - start) * 1000 / int(line))
  except Exception as error:
    answer(error=f"{type(error).__name__}: {str(error)[:300]}",
           memory="out of memory" in str(error).lower()
           or "RESOURCE_EXHAUSTED" in str(error))
    raise


if __name__ == "__main__":
  serve(stepper, json.loads(pathlib.Path(sys.argv[1]).read_text()))
