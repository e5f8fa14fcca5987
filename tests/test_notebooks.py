"""The notebooks are kept clean, and run from top to bottom in a new kernel."""

import ast
import os
import pathlib
import time

import IPython.core.inputtransformer2
import jupyter_client.manager
import nbclient
import nbformat
import pytest

import bert_jax as bj
from bert_jax.checkpoints import reading
from bert_jax.runs import record
from tests.small_run import curve
from tests.test_docs import link_faults
from tests.test_laws import ROOT, foreign_words, imports, vague_names

NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
# Kept between runs of the tests, as compiled programs are.
CACHE = ROOT / ".pytest_cache" / "corpora"
COLUMNS = 80
SHORT = "steps=4 epochs=none log_every=1 evaluation_batches=1"
# Of the study, too, whose runs are all scored: little text.
SMALL = "data.held_out_percent=50 data.tokenizer.vocab_size=60 data.text="
RUNS = {"ablation": 9, "first_hour": 2, "your_own_data": 1}


def read(path: pathlib.Path) -> nbformat.NotebookNode:
  return nbformat.read(path, as_version=nbformat.NO_CONVERT)


def cells(notebook: nbformat.NotebookNode, kind: str) -> list[str]:
  return [cell.source for cell in notebook.cells if cell.cell_type == kind]


def python_of(cell: str) -> ast.Module:
  """Of a cell, its magics as calls."""
  transformer = IPython.core.inputtransformer2.TransformerManager()
  return ast.parse(transformer.transform_cell(cell))


def output_faults(notebook: nbformat.NotebookNode) -> list[str]:
  return [f"cell {i}: has outputs" for i, cell in enumerate(notebook.cells)
          if cell.get("outputs") or cell.get("execution_count")]


def face_faults(notebook: nbformat.NotebookNode) -> list[str]:
  """What is used of bert_jax that is not in its face."""
  faults = []
  for tree in map(python_of, cells(notebook, "code")):
    faults += [name for name in imports(tree)
               if name.startswith("bert_jax.")]
    faults += [f"bj.{node.attr}" for node in ast.walk(tree)
               if isinstance(node, ast.Attribute)
               and ast.unparse(node.value) == "bj"
               and node.attr not in bj.__all__]
  return faults


def text_faults(notebook: nbformat.NotebookNode) -> list[str]:
  """Of prose and code: links, English, width."""
  prose, code = ("\n".join(cells(notebook, kind))
                 for kind in ("markdown", "code"))
  return [*link_faults(prose, ROOT / "notebooks"),
          *foreign_words(enumerate(f"{prose}\n{code}".splitlines(), 1)),
          *(fault for cell in cells(notebook, "code")
            for fault in vague_names(ast.unparse(python_of(cell)))),
          *(line for line in f"{prose}\n{code}".splitlines()
            if len(line) > COLUMNS)]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_is_kept_clean(path):
  notebook = read(path)
  nbformat.validate(notebook)
  assert not [*output_faults(notebook), *face_faults(notebook),
              *text_faults(notebook)]


def test_unclean_notebook_is_reported():
  new = nbformat.v4
  notebook = new.new_notebook(cells=[
      new.new_code_cell("%pip install x\nbj.laod('x')", execution_count=1),
      new.new_code_cell("from bert_jax import runs\nwhole = 1",
                        outputs=[new.new_output("stream", text="1")]),
      new.new_markdown_cell("[a](no.md)\n" + "x" * 81)])
  assert len(output_faults(notebook)) == 2
  assert face_faults(notebook) == ["bj.laod", "bert_jax.runs"]
  assert len(text_faults(notebook)) == 3


@pytest.fixture
def kernel(tmp_path) -> dict[str, object]:
  """How a kernel is started: on one device and without a network, with the
  settings of a user, not of the tests."""
  return {"cwd": str(tmp_path), "env": os.environ | {
      "PYTHONPATH": str(ROOT), "IPYTHONDIR": str(tmp_path / "ipython"),
      "BERT_JAX_CACHE": str(CACHE), "HF_HUB_OFFLINE": "1",
      "JAX_NUM_CPU_DEVICES": "1", "JAX_NUMPY_RANK_PROMOTION": "allow",
      "JAX_NUMPY_DTYPE_PROMOTION": "standard", "BERT_JAX_OPTIONS": SHORT}}


@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_runs_from_top_to_bottom(path, tmp_path, kernel, folder):
  notebook = read(path)
  if path.stem == "ablation":
    kernel["env"]["BERT_JAX_OPTIONS"] += f" {SMALL}{folder / 'text.txt'}"
  nbclient.NotebookClient(notebook, timeout=600).execute(**kernel)
  pictures = [output for cell in notebook.cells
              for output in cell.get("outputs", ())
              if "image/png" in output.get("data", {})]
  assert len(pictures) == 1
  workdirs = [about.parent for about in tmp_path.rglob("run.json")]
  assert [bj.run(workdir).record.state for workdir in workdirs] == [
      "finished"] * RUNS[path.stem]


@pytest.mark.slow
def test_interrupted_cell_saves_and_resumes(tmp_path, kernel):
  steps = 60
  kernel["env"]["BERT_JAX_OPTIONS"] = SHORT.replace("steps=4", f"steps={steps}")
  code = cells(read(ROOT / "notebooks" / "first_hour.ipynb"), "code")
  training = next(i for i, cell in enumerate(code) if "bj.train(" in cell)
  workdir = tmp_path / "runs" / "first_hour" / "pretrained"
  metrics = workdir / "metrics.jsonl"
  manager, client = jupyter_client.manager.start_new_kernel(**kernel)

  def run(cell: str) -> dict[str, str]:
    return client.execute_interactive(cell, output_hook=lambda message: None,
                                      timeout=600)["content"]

  try:
    assert run("\n".join(code[:training]))["status"] == "ok"
    client.execute(code[training])
    until = time.monotonic() + 600
    while (not metrics.exists() or not metrics.stat().st_size
           ) and time.monotonic() < until:
      time.sleep(.05)
    manager.interrupt_kernel()
    reply = client.get_shell_msg(timeout=600)["content"]
    assert reply["ename"] == "Stopped", reply
    saved, = reading.saved_steps(workdir)
    assert 0 < saved < steps
    assert run(code[training])["status"] == "ok"
  finally:
    client.stop_channels()
    manager.shutdown_kernel(now=True)
  assert record.read(workdir).step == steps
  assert saved in reading.saved_steps(workdir)
  # None was taken twice.
  trained = [line["step"] for line in curve(workdir) if "train/loss" in line]
  assert trained == list(range(1, steps + 1))
