"""One step everywhere: loss and gradients of many layouts against one device.

  python tools/equivalence.py --output table.md

It takes 14 minutes on two shared cores, most of them to compile.

Each row of the table is a run of its own, of one process or of several that
meet on this machine, over emulated CPU devices: one step of the real training
program, its gradients kept by an optimizer that does nothing else. Dropout is
on; masks, packing and padding are uneven:

  MLM + NSP: rows of up to 4 packed pairs, each with its own number of masks.
  task: a classification, up to 6 examples a row, the last batch of a set,
    whose last rows are empty.

What is compared with one device, both in float32:

  loss: |a - b| / |b|.
  gradients: of every parameter |a - b| / |b| with Euclidean norms, and of these
    the largest. All layers of a kind are one parameter, as in the network.
  zeros: softmax does not see the biases of keys, so that their true gradient is
    zero and what is there is rounding. Of these parameters, found in float64,
    the largest |a - b| over the norm of all gradients.

`batches` is a hash of the rows that the processes read, with their places; it
has to be one for all. The last row is the yardstick: how far the reference is
from the same step with every float32 of the code a float64, which is what the
order of sums in float32 costs anyway.
"""

import argparse
import contextlib
import dataclasses
import hashlib
import json
import os
import pathlib
import socket
import subprocess
import sys
import tempfile
import types

import numpy as np

REFERENCE, YARDSTICK = "1 device", "1 device, float64"
ROWS, LENGTH, VOCABULARY, SEED = 32, 128, 1000, 3
TASKS = ("MLM + NSP", "task")


@dataclasses.dataclass(frozen=True)
class Case:
  """How one step is run: data x fsdp x tensor, or another layout's name."""

  mesh: tuple[int, int, int] | str
  processes: int = 1
  devices: int = 8  # of each process
  microbatches: int = 1

  def layout(self) -> list[str]:
    """As overrides of an experiment."""
    return [f"layout={self.mesh}"] if isinstance(self.mesh, str) else [
        f"layout.{axis}={size}"
        for axis, size in zip(("data", "fsdp", "tensor"), self.mesh)]


CASES = {
    REFERENCE: Case((1, 1, 1), devices=1),
    "data 8": Case((8, 1, 1)),
    "fsdp 8": Case((1, 8, 1)),
    "data 4 x tensor 2": Case((4, 1, 2)),
    "data 2 x fsdp 2 x tensor 2": Case((2, 2, 2)),
    "shard_map 8": Case("shard_map"),
    "pmap 8": Case("pmap"),
    "data 8, accumulation 2": Case((8, 1, 1), microbatches=2),
    "data 4, accumulation 8": Case((4, 1, 1), devices=4, microbatches=8),
    "1 device, accumulation 8": Case((1, 1, 1), devices=1, microbatches=8),
    "data 8, 2 processes x 4": Case((8, 1, 1), 2, 4),
    "data 8, 4 processes x 2": Case((8, 1, 1), 4, 2),
    "data 2 x fsdp 2 x tensor 2, 4 processes x 2": Case((2, 2, 2), 4, 2),
    "pmap 8, 2 processes x 4": Case("pmap", 2, 4),
    YARDSTICK: Case((1, 1, 1), devices=1),
}


def worker(name: str, folder: pathlib.Path, coordinator: str,
           process: int) -> None:
  """One process of a case: writes its rows' hashes, and the first process
  loss, gradients and parameters."""
  case = CASES[name]
  if name == YARDSTICK:
    _everything_in_float64()
  import jax
  from bert_jax import config, distributed
  from bert_jax.metrics import weighted
  from bert_jax.experiment import Experiment
  from bert_jax.parallel.mesh import collect
  from bert_jax.training.param_paths import leaves

  if case.processes > 1:
    distributed.start("coordinator", coordinator, case.processes, process)
  layout = config.override(Experiment(), case.layout()).layout
  for task in TASKS:
    recipe, batch_of = problem(task, case.microbatches)
    first = batch_of(np.array([0]))
    runner = layout.build(
        recipe, jax.eval_shape(recipe.init, np.int32(SEED), first), ROWS,
        first)
    positions = runner.rows(ROWS)
    batch = batch_of(positions)
    state = jax.jit(recipe.init, out_shardings=runner.shardings)(
        np.int32(SEED), first)
    params = leaves(collect(state.params, runner.mesh))
    if name == YARDSTICK:
      batch = {key: x.astype(np.float64) if x.dtype == np.float32 else x
               for key, x in batch.items()}
      with np.load(_file(folder, REFERENCE, task)) as reference:
        params = {path: reference[f"params:{path}"].astype(np.float64)
                  for path in params}
      state = _with_params(recipe, state, params)
    state, pairs = runner.step(state, runner.put(batch))
    means = weighted.summarize(weighted.merge([jax.device_get(pairs)]))
    gradients = leaves(collect(state.opt_state, runner.mesh))
    hashes = {int(p): _hash(batch, i) for i, p in enumerate(positions)}
    _file(folder, name, task, f".{process}.json").write_text(
        json.dumps(hashes))
    if process == 0:
      np.savez(_file(folder, name, task), loss=means["loss"],
               **{f"params:{path}": x for path, x in params.items()},
               **{f"gradients:{path}": x for path, x in gradients.items()})


def problem(task: str, microbatches: int, rows_in_batch: int = ROWS,
            length: int = LENGTH, **options):
  """A recipe that keeps gradients, and rows by their places in the batch.

  Args:
    options: of the network, where they differ.
  """
  import jax
  import jax.numpy as jnp
  import optax
  from bert_jax.data.batches import loader
  from bert_jax.data.pretraining.formats import PairsFormat
  from bert_jax.data.pretraining.rows import PretrainingRows
  from bert_jax.data.labeled.texts import ClassificationSet
  from bert_jax.data.tokenizers.vocabulary import Vocabulary
  from bert_jax.model.bert import BertConfig
  from bert_jax.objectives.mlm import MlmNsp
  from bert_jax.objectives.network import network
  from bert_jax.objectives.classification import Classification
  from bert_jax.training.step import Recipe

  numbers = np.arange(VOCABULARY, dtype=np.int32)
  vocabulary = Vocabulary(VOCABULARY, 0, 1, 2, 3, 4, numbers % 3 != 0,
                          np.ones_like(numbers), numbers[5:])
  rng = np.random.default_rng(0)
  if task == "MLM + NSP":
    objective = MlmNsp()
    starts_S1 = np.cumsum([0, *rng.integers(1, 24, 1200)])
    rows = PretrainingRows(types.SimpleNamespace(
        tokens_T=rng.integers(5, VOCABULARY, starts_S1[-1]).astype(np.uint16),
        sentence_starts_S1=starts_S1, fingerprint="random",
        document_starts_U1=np.arange(0, 1201, 4), vocabulary_size=VOCABULARY),
        vocabulary, PairsFormat(), length, 4, SEED)
    batch_of = lambda positions: loader.batch(rows, rows_in_batch, 0,
                                              positions)
  else:
    objective = Classification(labels=("a", "b", "c"))
    texts = [" ".join(map(str, rng.integers(5, VOCABULARY, words)))
             for words in rng.integers(1, 60, 180)]
    tokenizer = types.SimpleNamespace(
        vocabulary=vocabulary, fingerprint="numbers",
        encode=lambda texts: [list(map(int, text.split())) for text in texts])
    rows = ClassificationSet(
        names=list(map(str, range(len(texts)))), texts_a=texts,
        labels=rng.integers(0, 3, len(texts)).astype(np.int32),
        label_names=objective.labels).rows(
            tokenizer, length, 6, SEED, shuffle=False)
    batch_of = lambda positions: list(
        loader.evaluation_batches(rows, rows_in_batch, positions))[-1]
  zeros = lambda tree: jax.tree.map(jnp.zeros_like, tree)
  keeper = optax.GradientTransformation(
      zeros, lambda gradients, state, params=None: (zeros(gradients),
                                                    gradients))
  model = BertConfig(**dict(
      vocab_size=VOCABULARY, hidden_size=128, num_hidden_layers=4,
      num_attention_heads=4, intermediate_size=512,
      max_position_embeddings=length, scan_unroll=1) | options)
  return Recipe(network(model, objective), objective, model, vocabulary, keeper,
                optax.constant_schedule(1.0), microbatches), batch_of


def _everything_in_float64() -> None:
  """What the code calls float32 becomes float64; what it draws stays."""
  import jax
  import jax.numpy as jnp
  from bert_jax.model import bert
  from bert_jax.training import numerics
  jax.config.update("jax_enable_x64", True)
  numerics._enable_x64 = lambda _: contextlib.nullcontext()
  jnp.float32 = jnp.float64
  uniform, randint = jax.random.uniform, jax.random.randint
  jax.random.uniform = lambda key, shape: uniform(key, shape, np.float32)
  jax.random.randint = lambda key, shape, low, high: randint(
      key, shape, low, high, np.int32)
  # The option that layers cast to; no run may choose it.
  init = bert.BertConfig.__init__

  def in_float64(self, **options):
    init(self, **options | {"dtype": "float32"})
    object.__setattr__(self, "dtype", "float64")

  bert.BertConfig.__init__ = in_float64


def _with_params(recipe, state, params):
  """The state with other parameters, all in float64, on one device."""
  import jax
  from bert_jax.training.param_paths import path_of
  swapped = jax.tree_util.tree_map_with_path(
      lambda keys, _: jax.numpy.asarray(params[path_of(keys)]), state.params)
  return state.replace(params=swapped,
                       opt_state=recipe.optimizer.init(swapped))


def _hash(batch, i: int) -> str:
  digest = hashlib.sha256()
  for key in sorted(batch):
    # The yardstick's floats are small whole numbers; as what they were read.
    x = batch[key]
    x = x.astype(np.float32) if x.dtype == np.float64 else x
    digest.update(f"{key} {x.dtype}".encode() + x[i].tobytes())
  return digest.hexdigest()


def _file(folder: pathlib.Path, name: str, task: str,
          suffix: str = ".npz") -> pathlib.Path:
  return folder / f"{list(CASES).index(name)}-{TASKS.index(task)}{suffix}"


def run(name: str, folder: pathlib.Path) -> None:
  """The processes of a case, from start to end."""
  case = CASES[name]
  with socket.socket() as free:
    free.bind(("localhost", 0))
    coordinator = f"localhost:{free.getsockname()[1]}"
  environment = os.environ | {"JAX_PLATFORMS": "cpu",
                              "JAX_NUM_CPU_DEVICES": str(case.devices)}
  started = [subprocess.Popen(
      [sys.executable, __file__, "--worker", name, "--folder", str(folder),
       "--coordinator", coordinator, "--process", str(process)],
      env=environment) for process in range(case.processes)]
  if any([process.wait() for process in started]):
    sys.exit(f"{name} failed.")


def compare(name: str, folder: pathlib.Path, zero: dict[str, set[str]]
            ) -> tuple[list[str], list[str]]:
  """The cells of a row, and words on the parameter that differs most."""
  cells, worst, zeros, digests = [], [], [], []
  for task in TASKS:
    with (np.load(_file(folder, name, task)) as one,
          np.load(_file(folder, REFERENCE, task)) as two):
      one, two = ((two, one) if name == YARDSTICK else (one, two))
      paths = [key for key in two.files if key.startswith("gradients:")]
      norm = {key: np.linalg.norm(_wide(two[key])) for key in paths}
      apart = {key: np.linalg.norm(_wide(one[key]) - _wide(two[key]))
               for key in paths}
      loss = abs(one["loss"] - two["loss"]) / abs(two["loss"])
    total = np.linalg.norm(list(norm.values()))
    relative = {key: apart[key] / norm[key] for key in paths
                if key not in zero[task]}
    largest = max(relative, key=relative.get)
    cells += [_number(float(loss)), _number(relative[largest])]
    zeros.append(max((apart[key] / total for key in zero[task]), default=0.0))
    worst.append(f"{task}: {largest.partition(':')[2]}")
    digests.append(_batch_hash(name, folder, task))
  return [name, *cells, _number(max(zeros)), " ".join(digests)], worst


def _number(x: float) -> str:
  return f"{x:.2e}" if x else "0"


def _wide(x: np.ndarray) -> np.ndarray:
  return x.astype(np.float64).ravel()


def zeros_of(folder: pathlib.Path, task: str) -> set[str]:
  """Parameters whose gradient in float64 is nothing beside the others."""
  with np.load(_file(folder, YARDSTICK, task)) as arrays:
    norm = {key: np.linalg.norm(arrays[key].ravel()) for key in arrays.files
            if key.startswith("gradients:")}
  total = np.linalg.norm(list(norm.values()))
  return {key for key, value in norm.items() if value < 1e-12 * total}


def _batch_hash(name: str, folder: pathlib.Path, task: str) -> str:
  """Of all rows; the processes together have to have each."""
  rows: dict[str, str] = {}
  for process in range(CASES[name].processes):
    for place, value in json.loads(_file(
        folder, name, task, f".{process}.json").read_text()).items():
      if rows.setdefault(place, value) != value:
        sys.exit(f"{name}: two processes read row {place} differently.")
  if len(rows) != ROWS:
    sys.exit(f"{name}: {len(rows)} of {ROWS} rows were read.")
  return hashlib.sha256(json.dumps(sorted(
      (int(place), value) for place, value in rows.items())).encode()
  ).hexdigest()[:8]


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
  parser.add_argument("--output", help="a file for the table")
  parser.add_argument("--worker", help=argparse.SUPPRESS)
  parser.add_argument("--folder", type=pathlib.Path, help="keep the arrays of "
                      "all cases here")
  parser.add_argument("--coordinator", default="", help=argparse.SUPPRESS)
  parser.add_argument("--process", type=int, default=0,
                      help=argparse.SUPPRESS)
  options = parser.parse_args()
  if options.worker:
    worker(options.worker, options.folder, options.coordinator,
           options.process)
    return
  with tempfile.TemporaryDirectory() as scratch:
    folder = options.folder or pathlib.Path(scratch)
    folder.mkdir(parents=True, exist_ok=True)
    for name in CASES:
      print(name, file=sys.stderr, flush=True)
      run(name, folder)
    zero = {task: zeros_of(folder, task) for task in TASKS}
    rows = {name: compare(name, folder, zero) for name in CASES
             if name != REFERENCE}
  from bert_jax.reporting import markdown
  table = markdown.table(
      [f"against {REFERENCE}", *(f"{task}: {part}" for task in TASKS
                                 for part in ("loss", "gradients")),
       "zeros", "batches"], [cells for cells, _ in rows.values()])
  print(table)
  for name, (_, worst) in rows.items():
    print(f"{name}: differs most in {'; '.join(worst)}", file=sys.stderr)
  print(f"zeros: {zero}", file=sys.stderr)
  if options.output:
    pathlib.Path(options.output).write_text(table + "\n")


if __name__ == "__main__":
  main()
