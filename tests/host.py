"""One of the processes that test_hosts starts, and the scenarios they run.

  python -m tests.host FOLDER PORT PROCESSES PROCESS SCENARIO...

The results of the scenarios are written to FOLDER/PROCESSES_PROCESS.json.
"""

import contextlib
import dataclasses
import io
import json
import os
import pathlib
import signal
import sys
import time
from typing import Any

import jax
import numpy as np

from bert_jax import distributed
from bert_jax.analysis import predict
from bert_jax.config import UserError
from bert_jax.data.batches import loader
from bert_jax.data.sources import TableData
from bert_jax.experiment import Experiment
from bert_jax.metrics import weighted
from bert_jax.objectives.classification import Classification
from bert_jax.parallel.layouts import MeshLayout, PmapLayout
from bert_jax.parallel.mesh import AXES, collect, local_rows, share
from bert_jax.runs import loop, train
from bert_jax.runs.observers import Observers
from bert_jax.training.optimizers import Sgd
from bert_jax.training.param_paths import leaves
from bert_jax.training.schedules import ConstantSchedule
from tests import small_run, tiny

DEVICES = 4  # of all processes together


def plain(folder: pathlib.Path, **options) -> Experiment:
  """With SGD: Adam would amplify rounding errors in gradients that are zero."""
  return small_run.pretraining(folder, **{
      "layout": MeshLayout(), "optimizer": Sgd(),
      "schedule": ConstantSchedule(0.1, 0.0), "steps": 6, **options})


def task(folder: pathlib.Path, **options) -> Experiment:
  """Initialized from the run in FOLDER/one."""
  return plain(
      folder, init_from=str(folder / "one"), objective=Classification(),
      data=TableData(length=32, examples_per_row=4,
                     train=str(folder / "train.tsv"),
                     evaluation=str(folder / "dev.tsv")),
      evaluate_every=6, **options)


def arrays(params: Any) -> dict[str, Any]:
  """Parameters by path, as JSON."""
  mesh = jax.sharding.Mesh(np.array(jax.devices()), ("device",))
  return {path: x.tolist()
          for path, x in leaves(collect(params, mesh)).items()}


def outputs(result: train.Result) -> dict[str, Any]:
  return {"scores": result.scores, "params": arrays(result.params)}


def finetune(folder: pathlib.Path) -> Any:
  """With every large parameter sharded across the processes."""
  workdir = folder / "two_task"
  trained = outputs(
      train.train(task(folder, layout=MeshLayout(1, 4, 1)), workdir))
  count = predict.predict_file(str(workdir), str(folder / "dev.tsv"),
                               str(folder / "two_task.tsv"))
  return trained | {"count": count}


def resume(folder: pathlib.Path) -> str:
  """From where one process stopped, until another process gets SIGTERM."""

  def on_step(step: int) -> None:
    if step == 3 and not distributed.first():
      os.kill(os.getpid(), signal.SIGTERM)

  try:
    train.train(plain(folder, save_every=100, layout=MeshLayout(1, 4, 1)),
                folder / "legs", observers=Observers(on_step))
  except loop.Stopped as stopped:
    return str(stopped)
  return "ran to the end"


def rows(folder: pathlib.Path) -> Any:
  """The rows of each process; asserts that together they are the batch."""
  answer, batch = {}, np.arange(24.0).reshape(8, 3)
  devices = np.array(jax.devices())
  for name, order, shape in (("in turn", [0, 2, 1, 3], (2, 2, 1)),
                             ("shared", [0, 1, 2, 3], (1, 1, 4)),
                             ("across", [0, 2, 1, 3], (2, 1, 2))):
    mesh = jax.sharding.Mesh(devices[order].reshape(shape), AXES)
    local = local_rows(mesh, 8)
    shared = share(mesh, {"x": batch[local]})
    answer[name] = local.tolist()
    np.testing.assert_array_equal(collect(shared, mesh)["x"], batch)
  return answer


def steps(folder: pathlib.Path) -> Any:
  """Two steps by pmap, which has its own way to place rows."""
  # Dropout takes most of the compiling, and `finetune` has it.
  recipe = tiny.recipe(hidden_dropout_prob=0.0,
                       attention_probs_dropout_prob=0.0)
  first = tiny.batch()
  shape = jax.eval_shape(recipe.init, np.int32(3), first)
  runner = PmapLayout().build(recipe, shape, tiny.BATCH, first)
  state = jax.jit(recipe.init, out_shardings=runner.shardings)(
      np.int32(3), first)
  for step in range(2):
    rows = loader.batch(tiny.rows(), tiny.BATCH, step, runner.rows(tiny.BATCH))
    state, sums = runner.step(state, runner.put(rows))
  means = weighted.summarize(weighted.merge([jax.device_get(sums)]))
  return {"scores": means, "params": arrays(state.params)}


def flags(folder: pathlib.Path) -> Any:
  """Requested some steps before they are read."""
  me = jax.process_index()
  asked = [distributed.any_host([me == 1, False, step == me])
           for step in range(3)]
  return [answer() for answer in asked]


def disagree(folder: pathlib.Path) -> list[str]:
  """The error message for each kind of difference."""
  last = jax.process_index() == jax.process_count() - 1
  answers = []

  def attempt(experiment: Experiment) -> None:
    try:
      train.train(experiment, folder / "never")
    except UserError as error:
      answers.append(str(error))

  attempt(plain(folder, seed=int(last)))
  if last:
    time.sleep(1.5)
  data = plain(folder).data
  attempt(plain(folder, data=dataclasses.replace(data, text="missing.txt")
                if last else data))
  return answers


def doctor(folder: pathlib.Path) -> tuple[int, str]:
  """Exit code and output, where process 1 has another work directory."""
  from bert_jax.cli import doctor as doctor_command, main as main_command
  doctor_command.compiler = lambda: doctor_command.Finding("compiler", "")
  workdir = folder if distributed.first() else "/proc/none"
  with (contextlib.redirect_stdout(io.StringIO()) as out,
        contextlib.redirect_stderr(out)):
    code = main_command.main(["doctor", "--workdir", str(workdir)])
  return code, out.getvalue()


def agree(folder: pathlib.Path) -> str:
  try:
    distributed.assert_equal({"seed": "01"[jax.process_index() == 2]})
  except UserError as error:
    return str(error)
  return ""


def main(folder: str, port: str, processes: str, process: str,
         *scenarios: str) -> None:
  distributed.start("coordinator", f"localhost:{port}", int(processes),
                    int(process))
  answers = {}
  for name in scenarios:
    begun = time.monotonic()
    answers[name] = globals()[name](pathlib.Path(folder))
    print(f"{name}: {time.monotonic() - begun:.1f} s", flush=True)
  (pathlib.Path(folder) / f"{processes}_{process}.json").write_text(
      json.dumps(answers))


if __name__ == "__main__":
  main(*sys.argv[1:])
