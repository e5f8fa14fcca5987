"""Training steps of the project and of PyTorch, in turns on the same rows."""

import dataclasses
import json
import os
import pathlib
import selectors
import statistics
import subprocess
import sys
import tempfile
import time

import numpy as np

from gpu import device, jax_step, report

HERE = pathlib.Path(__file__).parent
ROUNDS, ROUND_SECONDS = 7, 1.0
COMPILING_SECONDS = 120  # at most, beyond the project's own
VOCABULARY = 30_522
_GIB = 2**30


@dataclasses.dataclass(frozen=True)
class Case:
  """Steps of one shape; `rows` are tried until one fits with both."""

  page: str
  length: int
  rows: tuple[int, ...]
  dropout: float = 0.1
  further: tuple[str, ...] = ()

  @property
  def name(self):
    return (f"{self.page}, {self.length} tokens"
            + ("" if self.dropout else ", no dropout"))

  def overrides(self, rows):
    return [f"data.length={self.length}", "data.examples_per_row=1",
            f"batch_size={rows}", "model.dtype=bfloat16",
            f"model.hidden_dropout_prob={self.dropout}",
            f"model.attention_probs_dropout_prob={self.dropout}",
            *self.further]


CASES = (Case("large", 512, (32, 16, 8)), Case("large", 128, (128, 64, 32)),
         Case("base", 512, (64, 32, 16)), Case("base", 128, (256, 128, 64)),
         Case("large", 512, (32, 16, 8), 0.0),
         Case("base", 512, (64, 32, 16), 0.0))
SHORT = (Case("tiny", 16, (2,), further=(
    "model.hidden_size=16", "model.num_hidden_layers=1",
    "model.intermediate_size=32", "model.vocab_size=100")),)


def check(options):
  end = time.monotonic() + options.seconds
  environment = dict(os.environ)
  # Here only shapes are traced; the device is the workers'.
  os.environ["JAX_PLATFORMS"] = "cpu"
  contenders = [("bert_jax", "bert_jax", sys.executable, [])]
  contenders += [("bert_jax", text, sys.executable, text.split())
                 for text in options.variant]
  if options.torch_python and not (options.short or options.no_torch):
    contenders.append(("torch", "PyTorch", options.torch_python, []))
  report.note(
      "Milliseconds of a step, medians of rounds in turns on the same full "
      "rows: MLM and NSP, logits only where masked, clipping and Adam in "
      "float32, bfloat16 products, dropout .1 unless said. PyTorch: "
      "torch.compile, SDPA, autocast, fused AdamW. MFU: the matrix products of "
      "the project's step by plain attention over the time and the datasheet's "
      "peak. It draws its masks inside the step, PyTorch is given them.")
  for case in SHORT if options.short else CASES:
    if time.monotonic() > end - 20 and not options.short:
      report.note(f"No time for {case.name}.")
      continue
    for rows in case.rows:
      report.progress(f"{case.name}, {rows} rows")
      if measure(case, rows, contenders, environment, end):
        break


def measure(case, rows, contenders, environment, end):
  """Whether all that ran had the memory for these rows."""
  with tempfile.TemporaryDirectory() as folder:
    workers = _start(case, rows, contenders, environment,
                     pathlib.Path(folder))
    try:
      return _measured(case, rows, workers, end)
    finally:
      for worker in workers:
        worker.stop()


def _start(case, rows, contenders, environment, folder):
  """A process for each contender; they compile at the same time."""
  page = jax_step.experiment({"page": case.page,
                              "overrides": case.overrides(rows)})
  model = page.model
  vocabulary = model.vocab_size or VOCABULARY
  masked = page.objective.masking.predictions_per_row(case.length)
  np.savez(folder / "rows.npz", **synthetic(
      rows, case.length, masked, vocabulary))
  network = {name: getattr(model, name) for name in (
      "hidden_size", "num_hidden_layers", "num_attention_heads",
      "intermediate_size", "hidden_dropout_prob",
      "attention_probs_dropout_prob")} | {"vocab_size": vocabulary}
  workers = []
  for kind, label, python, further in contenders:
    path = folder / f"{len(workers)}.json"
    path.write_text(json.dumps({
        "page": case.page, "overrides": [*case.overrides(rows), *further],
        "rows": str(folder / "rows.npz"), "network": network}))
    workers.append(Worker(label, python, kind, path, environment | {
        "HF_HUB_OFFLINE": "1",
        # The device is shared; its memory is taken as it is needed.
        "XLA_PYTHON_CLIENT_PREALLOCATE": "false",
        "XLA_PYTHON_CLIENT_MEM_FRACTION": f"{.92 / len(contenders):.2f}"}))
  workers[0].flops = jax_step.plain_flops(page)
  return workers


def synthetic(rows, length, masked, vocabulary):
  """Random tokens in full rows, an example in each."""
  rng = np.random.default_rng(0)
  ids = rng.integers(5, vocabulary, (rows, length))
  positions = np.sort(rng.permuted(
      np.tile(np.arange(length), (rows, 1)), axis=1)[:, :masked])
  return {name: x.astype(np.int32) for name, x in {
      "input_ids": ids, "masked_positions": positions,
      "masked_labels": np.take_along_axis(ids, positions, 1),
      "token_type_ids": np.tile(np.arange(length) >= length // 2, (rows, 1)),
      "next_sentence": rng.integers(2, size=rows)}.items()}


def _measured(case, rows, workers, end):
  flops, running = workers[0].flops, []
  for worker in workers:  # The project's own first: it is reported alone, too.
    answer = worker.read(end if not running else min(
        end, time.monotonic() + COMPILING_SECONDS))
    if answer.get("memory") is True:
      report.note(f"{case.name}: {worker.label} has not the memory for {rows} "
                  "rows.")
      return False
    if "error" in answer:
      report.note(f"{case.name}: {worker.label}: {answer['error']}")
      continue
    worker.first = answer
    running.append(worker)
    try:
      _take_turns(case, rows, running, flops, end)
    except Ended as error:
      report.note(f"{case.name}: {error}")
      break
  return True


def _take_turns(case, rows, workers, flops, end):
  """Measures and reports those that are ready."""
  steps = {w: max(1, round(ROUND_SECONDS * 1000 / w.run(2, end)))
           for w in workers}
  for round_ in range(ROUNDS):
    for worker in workers:
      worker.times.append(worker.run(steps[worker], end))
    if round_ >= 2 and time.monotonic() > end - 5:
      break
  peak = device.peak(_kind())
  ours = workers[0].times
  for worker in workers:
    times = worker.times
    seconds = statistics.median(times) / 1000
    paired = [theirs / our for theirs, our in zip(times, ours)]
    report.row("step", f"{case.name}: {worker.label}", **{
        "rows": rows, "ms": seconds * 1000,
        "tokens/s": rows * case.length / seconds,
        "TFLOP/s": flops / seconds / 1e12,
        "MFU": peak and flops / seconds / peak,
        "times bert_jax": statistics.median(paired),
        "spread": (max(paired) - min(paired)) / 2,
        "compiled in s": worker.first["seconds"],
        "GiB": (worker.first["memory"] or 0) / _GIB or None,
        "loss": worker.first["loss"], "with": worker.first["versions"]})
  for worker in workers:
    worker.times = []


def _kind():
  """The device's name, without taking it from the workers."""
  try:
    return subprocess.run(
        ["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"], text=True,
        capture_output=True, check=True).stdout.splitlines()[0]
  except (OSError, subprocess.CalledProcessError, IndexError):
    return ""


class Ended(Exception):
  """A worker has no more answers."""


class Worker:
  """A process that compiles a step and runs it when asked."""

  def __init__(self, label, python, kind, case, environment):
    self.label, self.times, self.first, self.flops = label, [], {}, 0
    script = "torch_step.py" if kind == "torch" else "jax_step.py"
    self.process = subprocess.Popen(
        [python, HERE / script, case], stdin=subprocess.PIPE,
        stdout=subprocess.PIPE, env=environment)

  def run(self, steps, end):
    """Milliseconds a step."""
    self.process.stdin.write(f"{steps}\n".encode())
    self.process.stdin.flush()
    answer = self.read(end)
    if "error" in answer:
      raise Ended(f"{self.label}: {answer['error']}")
    return answer["ms"]

  def read(self, end):
    """The next answer, or an error where none comes in time."""
    with selectors.DefaultSelector() as selector:
      selector.register(self.process.stdout, selectors.EVENT_READ)
      if not selector.select(max(0.0, end - time.monotonic())):
        return {"error": "it was not ready in time"}
    line = self.process.stdout.readline()
    return json.loads(line) if line else {"error": "it ended, see the log"}

  def stop(self):
    self.process.kill()
    with self.process:  # Closes its pipes.
      pass
