"""The laws of the house, read off the source: who may import whom, and names.

Each law is a function from source text to complaints, so that the tests can
show it both this repository and code that breaks it.
"""

import ast
import pathlib
import re
import subprocess
import sys
from collections.abc import Iterator

import pytest

ROOT = pathlib.Path(__file__).parents[1]
PACKAGE = ROOT / "bert_jax"
SOURCES = sorted(PACKAGE.rglob("*.py"))

# From the top of the house to the bottom: a room may import those after it.
ROOMS = ("__main__", "commands", "quickstart", "glue", "sweep", "outcomes",
         "interop", "show", "embed", "replay", "loop", "start", "evaluate",
         "checkpoint", "stored", "facts", "log", "watch", "hosts", "writers",
         "compiled", "experiment", "budget", "training", "objectives", "model",
         "data", "metrics", "answers", "spread", "config", "__init__")

# The functional core: arrays and frozen options in, arrays out.
PURE = ("training", "objectives", "model", "metrics", "answers")
# Disk, clock, processes, terminal, hidden randomness.
IMPURE = {
    "absl", "datetime", "io", "logging", "matplotlib", "multiprocessing", "os",
    "pathlib", "random", "rich", "shutil", "socket", "subprocess", "sys",
    "tempfile", "threading", "time", "tqdm", "orbax", "tensorboardX"}
IMPURE_CALLS = {"open", "print", "input"}

# Loader workers start without these. What imports jax itself may be used in
# data/, but is imported when it is used.
JAX = {"jax", "jaxlib", "flax", "optax", "orbax", "chex"}
IMPORT_JAX = {"grain"}

# Letters of dimensions: the network's (rows, tokens, attended tokens, width,
# heads, head width, feed-forward width, vocabulary, predicted positions,
# examples in a row, classes, layers), the corpus's (tokens, words, sentences,
# documents, examples and rows of an epoch), and 1: broadcasts, or one more.
DIMENSIONS = set("BLMDHKFVPECN" "TWSUXR" "1")

NAMELESS = {"utils", "util", "helpers", "helper", "common", "misc"}


def imports(tree: ast.AST) -> Iterator[str]:
  """Full names of the modules that a tree imports."""
  for node in ast.walk(tree):
    if isinstance(node, ast.Import):
      yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
      if node.level:
        yield "." * node.level + (node.module or "")
      elif node.module == "bert_jax":
        yield from (f"bert_jax.{alias.name}" for alias in node.names)
      else:
        yield node.module


class AtImport(ast.NodeTransformer):
  """Leaves what runs when a module is imported."""

  def visit_FunctionDef(self, node: ast.FunctionDef) -> None:
    return None


def room_of(path: pathlib.Path) -> str:
  return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def import_faults(room: str, source: str) -> list[str]:
  if room not in ROOMS:
    return [f"{room} has no place in the order of rooms"]
  tree, faults = ast.parse(source), []
  for name in imports(tree):
    top, _, rest = name.partition(".")
    other = rest.split(".")[0]
    if not top:
      faults.append(f"{name}: imports are absolute")
    elif top == "bert_jax":
      if other not in ROOMS or ROOMS.index(other) < ROOMS.index(room):
        faults.append(f"{room} imports {other}, which does not lie below it")
    elif room in PURE and top in IMPURE:
      faults.append(f"{room} is pure and imports {name}")
    elif room in ("data", "metrics", "answers") and top in JAX:
      faults.append(f"{room} imports {name}")
    elif room == "config" and top not in sys.stdlib_module_names:
      faults.append(f"config imports {name}: standard library only")
  if room == "data":
    early = imports(AtImport().visit(ast.parse(source)))
    faults += [f"data imports {name} before it is used"
               for name in early if name in IMPORT_JAX]
  if room in PURE:
    faults += [f"{room} is pure and calls {node.func.id}()"
               for node in ast.walk(tree)
               if isinstance(node, ast.Call) and
               isinstance(node.func, ast.Name) and
               node.func.id in IMPURE_CALLS]
  return faults


def dimensions(node: ast.AST) -> str | None:
  """The dimensions that a variable's or attribute's name ends in."""
  match node:
    case ast.Name(id=name) | ast.Attribute(attr=name) | ast.arg(arg=name):
      found = re.fullmatch(r"_?[a-z][a-z0-9_]*_([A-Z1]*[A-Z][A-Z1]*)", name)
      return found and found[1]
  return None


def dimension_faults(source: str) -> list[str]:
  faults, tree = [], ast.parse(source)
  for node in ast.walk(tree):
    letters = dimensions(node)
    if letters and not set(letters) <= DIMENSIONS:
      faults.append(f"line {node.lineno}: _{letters} is not of the dimensions "
                    f"{''.join(sorted(DIMENSIONS))}")
    match node:
      case ast.Assign(targets=[target], value=ast.Call() as call):
        faults += einsum_faults(call, target)
      case ast.Call():
        faults += einsum_faults(node)
  return faults


def einsum_faults(call: ast.Call, target: ast.AST | None = None) -> list[str]:
  """Names of an einsum against its subscripts; with a target, of its output."""
  match call:
    case ast.Call(func=ast.Attribute(attr="einsum"),
                  args=[ast.Constant(value=str(subscripts)), *operands]):
      inputs, _, output = subscripts.replace(" ", "").partition("->")
      pairs = zip(inputs.split(","), operands)
      if target is not None:
        pairs = [(output, target)]
      return [f"line {call.lineno}: einsum calls {ast.unparse(array)} {letters}"
              for letters, array in pairs
              if dimensions(array) not in (None, letters)]
  return []


def test_rooms_import_only_those_below():
  faults = {str(path): import_faults(room_of(path), path.read_text())
            for path in SOURCES}
  assert not {path: found for path, found in faults.items() if found}


@pytest.mark.parametrize("room, source", [
    ("model", "from bert_jax import loop"),
    ("data", "import bert_jax.model.encoder"),
    ("model", "from ..config import Choice"),
    ("metrics", "from bert_jax.model.heads import MlmHead"),
    ("training", "def step():\n  import time"),
    ("objectives", "import os.path"),
    ("model", "print('here')"),
    ("data", "def row():\n  import jax.numpy as jnp"),
    ("data", "import grain"),
    ("config", "import numpy"),
    ("__init__", "from bert_jax import config"),
    ("attic", ""),
])
def test_a_forbidden_import_is_found(room, source):
  assert len(import_faults(room, source)) == 1


@pytest.mark.parametrize("room, source", [
    ("loop", "import time\nfrom bert_jax import training, checkpoint"),
    ("model", "from bert_jax.model.layers import Site"),
    ("data", "def batches():\n  import grain\n\nprint(open('x'))"),
])
def test_an_allowed_import_is_not(room, source):
  assert not import_faults(room, source)


def test_importing_data_brings_no_jax():
  modules = [".".join(path.relative_to(ROOT).with_suffix("").parts)
             for path in SOURCES
             if room_of(path) in ("data", "metrics", "answers")]
  code = (f"import sys, {', '.join(modules)}\n"
          f"print({JAX | IMPORT_JAX} & set(sys.modules))")
  run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, text=True,
                       capture_output=True)
  assert (run.stdout, run.stderr) == ("set()\n", "")


def test_names_and_einsum_subscripts_agree():
  faults = {str(path): dimension_faults(path.read_text()) for path in SOURCES}
  assert not {path: found for path, found in faults.items() if found}


@pytest.mark.parametrize("source", [
    "y = jnp.einsum('BLHK,BMHK->BHLM', query_BLHK, key_BLHK)",
    "jnp.einsum('BLHK, BMHK -> BHLM', self.query_BLD, key_BMHK)",
    "score_BHML = jnp.einsum('BLHK,BMHK->BHLM', query_BLHK, key_BMHK)",
    "weight_BQ = 1",
    "def f(weight_BQ): pass",
])
def test_a_wrong_dimension_is_found(source):
  assert len(dimension_faults(source)) == 1


def test_right_and_unnamed_dimensions_are_not():
  assert not dimension_faults(
      "MAX_SIZE = jnp.einsum('BLD,DC->BLC', x, kernel_DC)\n"
      "query_BL1 = mask_B1M[0] + np.einsum(subscripts, x_BLD)")


def test_every_module_has_a_name():
  assert not [path for path in SOURCES if path.stem in NAMELESS]
