"""`import bert_jax as bj`: what notebooks and pages see."""

import ast
import dataclasses
import importlib
import linecache
import os
import pathlib
import platform
import subprocess
import sys
import types

import jax
import numpy as np
import pytest
import scipy.special

import bert_jax as bj
from bert_jax import config
from bert_jax.checkpoints.manifest import Manifest
from bert_jax.checkpoints.reading import Checkpoint
from bert_jax.cli.main import main
from bert_jax.config import UserError
from bert_jax.data.sources import TableData
from bert_jax.data.tokenizers.choices import WordPieceTokenizer
from bert_jax.experiment import compose
from bert_jax.objectives.classification import Classification
from bert_jax.objectives.mlm import Mlm
from bert_jax.studies.arms import make_arms
from bert_jax.training import numerics
from tests import small_run

CELL = '''\
import flax.linen as nn
import jax.numpy as jnp
import bert_jax as bj

SCALE = 2.0
x = jnp.ones(3)

def bend(x):
  return jnp.tanh(x) * SCALE

class Bent(nn.Module):
  """Uses what the notebook defines."""

  @nn.compact
  def __call__(self, x):
    return bend(x)

@bj.choice
class BentNorm(bj.Norm):
  """tanh."""

  gain: float = 1.0

  def build(self, epsilon, name=None):
    return Bent(name=name)
'''


# Pages that the kernel gives to the second of two blocks of 100 MB that are
# allocated and freed one after another, as XLA does in a thread of its own.
BLOCKS = """\
import bert_jax, ctypes, resource, threading
library = ctypes.CDLL(None)
library.malloc.restype = ctypes.c_void_p
def work():
  for _ in range(2):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    block = library.malloc(ctypes.c_size_t(10**8))
    ctypes.memset(block, 1, 10**8)
    pages = resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
    library.free(ctypes.c_void_p(block))
  print(pages)
thread = threading.Thread(target=work)
thread.start()
thread.join()
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="needs glibc")
@pytest.mark.parametrize("keep", ["0", "1"])
def test_freed_memory_stays_with_the_process_unless_denied(keep):
  pages = int(subprocess.run(
      [sys.executable, "-c", BLOCKS], check=True, text=True,
      env=os.environ | {"BERT_JAX_KEEP_MEMORY": keep},
      stdout=subprocess.PIPE).stdout)
  assert (pages < 100) == (keep == "1")


def test_every_name_of_the_face_exists_and_is_typed():
  tree = ast.parse(pathlib.Path(bj.__file__).read_text())
  typed = next(node for node in tree.body if isinstance(node, ast.If))
  imported = {(node.module.removeprefix("bert_jax."), name.name)
              for node in typed.body for name in node.names}
  assert imported == {(home, name) for home, names in bj._HOMES.items()
                      for name in names}
  assert set(dir(bj)) == {name for _, name in imported} | {
      "import_weights", "load"}
  for home, name in imported:
    module = importlib.import_module(f"bert_jax.{home}")
    assert getattr(bj, name) is getattr(module, name)
    assert getattr(bj, name).__doc__
  with pytest.raises(AttributeError, match="no attribute 'laod'"):
    bj.laod


def test_page_and_run_say_what_they_are(folder, tmp_path):
  page = bj.page("tiny", "model.norm=rms", "steps=7")
  assert page.changes() == ["model.norm=rms", "steps=7"]
  assert repr(page).splitlines()[1:] == ["  model.norm=rms", "  steps=7"]
  experiment = small_run.pretraining(folder, objective=Mlm())
  run = bj.train(experiment, tmp_path / "run", "steps=2")
  assert run.record.state == "finished" and run.record.step == 2
  assert f"loss {run.scores['loss']:.4g}" in repr(run)
  assert len(run.curves().axes) == 2
  assert run.curves()._repr_png_().startswith(b"\x89PNG")
  again = bj.run(tmp_path / "run")
  small_run.equal(run.params, again.params)
  assert bj.load(str(tmp_path / "run")).params.keys() == {"encoder", "mlm"}
  with pytest.raises(UserError, match="is no run"):
    bj.run(tmp_path)


def bert(experiment) -> bj.Bert:
  """With its initial parameters."""
  run = compose(experiment)
  state = numerics.jit(run.recipe.init)(run.seed(), run.row())
  params = jax.device_get(state.params)
  return bj.Bert(Checkpoint(params, Manifest.of_run(run), 0), "small")


def test_network_shows_what_it_computes(folder):
  asked = bert(small_run.pretraining(folder, objective=Mlm()))
  texts = ["red green blue.", "tall short old new warm."]
  outputs = asked(texts, attention=True)
  vectors = asked.embed(texts, pooling="tokens")
  for tokens, states_LD, vector_LD in zip(
      outputs.tokens, outputs.hidden_states_NBLD[-1], vectors):
    assert tokens[0] == "[CLS]" and tokens[-1] == "[SEP]"
    np.testing.assert_allclose(states_LD[:len(tokens)], vector_LD, atol=1e-6)
  weights_NBHLM, count = outputs.attention_NBHLM, len(outputs.tokens[0])
  assert weights_NBHLM.shape[:3] == (1, 2, 2)
  np.testing.assert_allclose(weights_NBHLM.sum(-1), 1, atol=1e-6)
  assert not weights_NBHLM[0, 0, :, :count, count:].any()
  assert "mlm (2, " in repr(outputs) and "objective=mlm" in repr(asked)
  assert asked(texts).attention_NBHLM is None


def test_masked_words_are_filled_in(folder):
  asked = bert(small_run.pretraining(folder, objective=Mlm()))
  first, second = asked.fill_mask("red [MASK] blue [MASK].", top=60)
  assert len(first) == 60 and sum(p for _, p in first) == pytest.approx(1)
  assert first[0][1] >= first[1][1] and first != second
  with pytest.raises(UserError, match=r"Write \[MASK\]"):
    asked.fill_mask("red")
  with pytest.raises(UserError, match="gives no labels"):
    asked.predict(["red"])


def test_labels_are_predicted(folder):
  asked = bert(dataclasses.replace(
      small_run.pretraining(folder), objective=Classification(),
      data=TableData(length=32, train=str(folder / "train.tsv"),
                     tokenizer=WordPieceTokenizer(vocab_size=60))))
  texts = ["a warm light.", "old", "new dark blue."]
  predicted = asked.predict(texts)
  logits_XC = asked(texts).logits["classifier"][:, 0]
  for record, logits_C in zip(predicted, logits_XC):
    assert record["predicted_label"] == ["other", "warm"][logits_C.argmax()]
    assert record["probability_warm"] == pytest.approx(
        scipy.special.softmax(logits_C)[1], abs=1e-5)
  with pytest.raises(UserError, match="no head|masked-LM head"):
    asked.fill_mask("a [MASK].")


def run_cell(monkeypatch, text: str, name: str) -> dict:
  """What a notebook has after a cell."""
  notebook = types.ModuleType("__main__")
  monkeypatch.setitem(sys.modules, "__main__", notebook)
  linecache.cache[name] = (len(text), None, text.splitlines(True), name)
  exec(compile(text, name, "exec"), vars(notebook))
  return vars(notebook)


def test_class_of_a_cell_travels_with_its_source(monkeypatch):
  names = run_cell(monkeypatch, CELL, "cell 1")
  page = bj.page("tiny", "model.norm=bent", "model.norm.gain=2")
  assert page.experiment.model.norm == names["BentNorm"](gain=2.0)
  _, arm = make_arms(config.load_page("tiny"), [], {"bent": "model.norm=bent"})
  assert arm.experiment.model.norm == names["BentNorm"]()
  source, = config.pages_of(page.experiment)
  assert "SCALE = 2.0" in source.source and "x = " not in source.source
  # In a process that has no notebook.
  code = f"""
from bert_jax import config
from bert_jax.experiment import Experiment
page = config.run_page({source.source!r}, "stored")
made = config.override(Experiment(), ["model.norm=bent"], [page])
import numpy as np
print(made.model.norm.build(0.0).apply({{}}, np.zeros((1, 2))).shape)"""
  run = subprocess.run([sys.executable, "-c", code], capture_output=True,
                       text=True)
  assert run.stdout == "(1, 2)\n", run.stderr


@pytest.mark.parametrize("before, after, message", [
    ("return bend(x)", "return bend(x) + x0", "uses x0, .* cannot be kept"),
    ("(bj.Norm)", "", "BentNorm is in no family")])
def test_class_that_cannot_travel_says_why(monkeypatch, before, after, message):
  text = CELL.replace(before, after).replace("x = jnp", "x0 = jnp")
  with pytest.raises(UserError, match=message):
    run_cell(monkeypatch, text, message)


PAGE = """\
import dataclasses
from bert_jax import config
from bert_jax.model.norms import Norm

class PlainNorm(Norm):
  def build(self, epsilon, name=None):
    return None

experiment = config.load_page("tiny").experiment
{}
"""


@pytest.mark.parametrize("line, words, message", [
    ("n = experiment.stepz", [], "line 10:\n    n = experiment.stepz\n"
     "AttributeError: 'Experiment' object has no attribute 'stepz'"),
    ("n = (3", [], "line 10:\n    n = (3\nSyntaxError: '(' was never closed"),
    ("config.override(experiment, ['lr=3'])", [],
     "line 10:\n    config.override(experiment, ['lr=3'])\nlr: Experiment has "
     "no option 'lr'; did you mean schedule.learning_rate?"),
    ("", ["model.norm=plain"], "the class PlainNorm has no decorator")])
def test_fault_of_a_page_shows_its_line(tmp_path, capsys, line, words, message):
  page = tmp_path / "mine.py"
  page.write_text(PAGE.format(line))
  assert main(["show", str(page), *words]) == 1
  error = capsys.readouterr().err
  assert message in error and len(error.splitlines()) <= 5
  if not words:
    assert f"{page}, line" in error
  if message.endswith(("'stepz'", "closed")):
    with pytest.raises((AttributeError, SyntaxError)):
      main(["show", str(page), "--traceback"])


def test_notebook_shows_the_users_line(monkeypatch):
  with pytest.raises(UserError) as error:
    run_cell(monkeypatch, "import bert_jax as bj\nbj.page('tiny', 'lr=3')\n",
             "cell 2")
  shown = "\n".join(error.value._render_traceback_())
  assert shown.startswith("cell 2, line 2:\n    bj.page('tiny', 'lr=3')\n")
  assert "did you mean schedule.learning_rate?" in shown
