"""One step in many ways on one device, and a run that is resumed."""

import dataclasses
import os
import pathlib
import tempfile

import numpy as np

from gpu import report

TYPES = ("float32", "bfloat16")
TASKS = ("MLM + NSP", "task")
BASE = "plain, a mesh of one"
NO_DROPOUT = {"attention_probs_dropout_prob": 0.0}


@dataclasses.dataclass(frozen=True)
class Way:
  """How a step is computed: options of the network, a layout, and parts."""

  options: dict = dataclasses.field(default_factory=dict)
  layout: str = "mesh"
  microbatches: int = 1


def ways(members, short):
  """By name, each with the name of the way that it is compared with."""
  plain = {"attention": members["plain"]()}
  yield BASE, "", Way(plain)
  yield "again", BASE, Way(plain)
  if short:
    return
  yield "2 microbatches", BASE, Way(plain, microbatches=2)
  yield "8 microbatches", BASE, Way(plain, microbatches=8)
  yield "shard_map", BASE, Way(plain, "shard_map")
  yield "pmap", BASE, Way(plain, "pmap")
  yield "remat", BASE, Way(plain | {"remat": True})
  yield "layers unrolled", BASE, Way(plain | {"scan_unroll": 4})


def attentions(members):
  """The same for the members of model.attention."""
  plain = {"attention": members["plain"]()}
  yield BASE, "", Way(plain)
  # Not all have a dropout of weights, so that they are seen without, too.
  yield f"{BASE}, weights not dropped", "", Way(plain | NO_DROPOUT)
  # The first are those for TPUs, which are interpreted elsewhere.
  for name, member in reversed(members.items()):
    if name != "plain":
      attention = {"attention": member()}
      yield f"attention={name}", BASE, Way(attention)
      yield (f"attention={name}, weights not dropped",
             f"{BASE}, weights not dropped", Way(attention | NO_DROPOUT))


def check(options):
  if not options.short:
    # Products in full float32, where the device has faster, rounded ones; the
    # same sums at every run.
    os.environ["JAX_DEFAULT_MATMUL_PRECISION"] = "highest"
    os.environ["XLA_FLAGS"] = (os.environ.get("XLA_FLAGS", "")
                               + " --xla_gpu_deterministic_ops=true")
  from bert_jax.model.attention import Attention

  members = Attention.members()
  report.note(
      "One step, dropout on: the norm of the difference over the norm, of all "
      "gradients together and of the parameter where it is largest, those "
      "aside whose gradient is a ten-thousandth of all or less. float32 by "
      "products in full precision.")
  for task in TASKS[:1] if options.short else TASKS:
    compare(task, list(ways(members, options.short)), options.short)
  resumed(options.short)
  if not options.short:
    compare(TASKS[0], list(attentions(members)), False)


def compare(task, ways, short):
  """Rows for these ways of a step."""
  full = {}
  for dtype in TYPES:
    results = {}
    for name, other, way in ways:
      label = f"{task}, {dtype}: {name}"
      report.progress(label)
      try:
        results[name] = gradients(task, way, dtype, short)
      except Exception as error:
        report.row("one step", label, against=other, remark=(
            f"{type(error).__name__}: {str(error)[:200]}"))
        continue
      values = difference(results[name], results.get(other))
      if dtype == "float32":
        full[name] = results[name]
      elif name in full:
        values |= apart(results[name][1], full[name][1], "from float32")
      report.row("one step", label, against=other or "itself", **values)


def gradients(task, way, dtype, short):
  """Loss and gradients by path, on the host."""
  import jax

  from bert_jax import config
  from bert_jax.experiment import Experiment
  from bert_jax.metrics import weighted
  from bert_jax.parallel.mesh import collect
  from bert_jax.training import numerics
  from bert_jax.training.param_paths import leaves
  from tools.equivalence import ROWS, SEED, problem

  rows, sizes = ROWS, {}
  if short:
    rows, sizes = 8, {"length": 32, "hidden_size": 32, "num_hidden_layers": 2,
                      "num_attention_heads": 2, "intermediate_size": 64}
  recipe, batch_of = problem(task, way.microbatches, rows, dtype=dtype,
                             **sizes | way.options)
  layout = config.override(Experiment(), [f"layout={way.layout}"]).layout
  first = batch_of(np.array([0]))
  runner = layout.build(recipe, numerics.eval_shape(
      recipe.init, np.int32(SEED), first), rows, first)
  state = numerics.jit(recipe.init, out_shardings=runner.shardings)(
      np.int32(SEED), first)
  state, sums = runner.step(state, runner.put(batch_of(runner.rows(rows))))
  # The optimizer of the problem keeps gradients as its state.
  return (weighted.summarize(weighted.merge([jax.device_get(sums)]))["loss"],
          leaves(collect(state.opt_state, runner.mesh)))


def difference(one, two):
  """Of losses and gradients; None: there is nothing to compare with."""
  if two is None:
    return {"loss": one[0]}
  return {"loss": abs(one[0] - two[0]) / abs(two[0]),
          **apart(one[1], two[1])}


def apart(one, two, name="gradients"):
  """Relative differences of all gradients, and the largest of a parameter."""
  wide = {path: np.asarray(x, np.float64) for path, x in two.items()}
  norm = {path: np.linalg.norm(x) for path, x in wide.items()}
  off = {path: np.linalg.norm(np.asarray(one[path], np.float64) - x)
         for path, x in wide.items()}
  total = np.linalg.norm(list(norm.values()))
  return {name: np.linalg.norm(list(off.values())) / total,
          f"{name}, the worst": max(
              off[path] / norm[path] for path in wide
              if norm[path] > 1e-4 * total)}


class _Pulled(Exception):
  """The plug."""


def resumed(short):
  """Runs one experiment at a stretch and, resumed after a cut, another time."""
  import jax

  from bert_jax.checkpoints.reading import read_checkpoint
  from bert_jax.runs import train
  from bert_jax.runs.observers import Observers

  def pull(step):
    if step == 3:
      raise _Pulled

  for dtype in TYPES[:1] if short else TYPES:
    report.progress(f"resumed, {dtype}")
    with tempfile.TemporaryDirectory() as folder:
      page, params = run_page(dtype), []
      for name in ("whole", "cut"):
        workdir = pathlib.Path(folder) / name
        if name == "cut":
          try:
            train.train(page, workdir, observers=Observers(pull))
          except _Pulled:
            pass
        train.train(page, workdir)
        params.append(jax.tree.leaves(read_checkpoint(workdir).params))
    apart = max(float(np.max(np.abs(a - b))) for a, b in zip(*params))
    report.row("a run of 4 steps, cut at 3 and resumed from 2", dtype, **{
        "largest difference of a parameter": apart,
        "the same bits": "yes" if apart == 0 else "no"})


def run_page(dtype):
  """Four steps on the project's own pages of documentation."""
  from bert_jax import config
  from bert_jax.experiment import Experiment

  docs = pathlib.Path(__file__).resolve().parents[2] / "docs"
  return config.override(Experiment(), [
      f"data.text={docs / '*.md'}", "data.length=32",
      "data.tokenizer.vocab_size=600", "model.hidden_size=32",
      "model.num_hidden_layers=2", "model.num_attention_heads=2",
      "model.intermediate_size=64", f"model.dtype={dtype}", "steps=4",
      "save_every=2", "evaluate_every=4", "evaluation_batches=1",
      "batch_size=8", "tracker=jsonl"])
