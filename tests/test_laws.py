"""The laws of the house, read off the source: who may import whom, and names.

Each law is a function from source text to complaints, so that the tests can
show it both this repository and code that breaks it.
"""

import ast
import io
import pathlib
import re
import statistics
import subprocess
import sys
import tokenize
from collections.abc import Iterable, Iterator

import pytest

ROOT = pathlib.Path(__file__).parents[1]
PACKAGE = ROOT / "bert_jax"
SOURCES = sorted(PACKAGE.rglob("*.py"))

# From the top of the house to the bottom: a room may import those after it. A
# room is a file or folder of bert_jax/, and each folder of data/ by itself.
ROOMS = ("__init__", "__main__", "cli", "studies", "analysis", "runs",
         "interop", "checkpoints", "experiment", "parallel", "training",
         "objectives", "model", "data", "data/pretraining", "data/labeled",
         "data/text", "data/records", "data/tokenizers", "data/batches",
         "distributed", "reporting", "metrics", "files", "config",
         "memory")

# The map stays small: rooms, floors (the longest chain of imports) and arrows
# (pairs of rooms with an import between them).
MOST_ROOMS, MOST_FLOORS, MOST_ARROWS, MEDIAN_LINES = 26, 12, 120, 130

# The functional core: arrays and frozen options in, arrays out.
PURE = ("parallel", "training", "objectives", "model", "metrics")
# Disk, clock, processes, terminal, hidden randomness.
IMPURE = {
    "absl", "datetime", "io", "logging", "matplotlib", "multiprocessing", "os",
    "pathlib", "random", "rich", "shutil", "socket", "subprocess", "sys",
    "tempfile", "threading", "time", "tqdm", "orbax", "tensorboardX", "wandb",
    "mlflow", "trackio"}
IMPURE_CALLS = {"open", "print", "input"}
# Logging levels, warnings and hooks belong to the program that imports us.
OTHERS_SETTINGS = {"setLevel", "unraisablehook", "excepthook", "simplefilter",
                   "filterwarnings"}
WITHOUT_JAX = ("data", "metrics", "reporting", "files", "config", "memory")

# Loader workers start without these. What imports jax itself may be used in
# data/, but is imported when it is used.
JAX = {"jax", "jaxlib", "flax", "optax", "orbax", "chex"}
IMPORT_JAX = {"grain"}

# Letters of dimensions: the network's (rows, tokens, attended tokens, width,
# heads, head width, feed-forward width, vocabulary, predicted positions,
# examples in a row, classes, layers, experts, distances: how far apart, numbers
# of an input vector), the corpus's (tokens, words, sentences, documents,
# examples and rows of an epoch), a study's (replicates
# and items of a score), and 1: broadcasts, or one more.
DIMENSIONS = set("BLMDHKFVPECNGAJ" "TWSUXR" "RI" "1")

NAMELESS = {"utils", "util", "helpers", "helper", "common", "misc"}

# Plain American English. A name says what it holds; these words do not.
VAGUE = {"found", "told", "whole", "wanted", "wants"}
TERMS = {"whole_word", "not_found_error"}
# Phrases and British spellings that no code, message or document uses.
FOREIGN = re.compile(
    r"\b(so many|go(es)? on|went on|of one mind|a matter for|anew|wants|told"
    r"|for ever|cannot be had|mend(ed)?|labell(ed|ing)|modell(ed|ing)"
    r"|cancell(ed|ing)|licences?|behaviours?|colours?|favour\w*|neighbour\w*"
    r"|honour\w*|centred?|artefacts?|grey|analyse[sd]?|amongst|whilst"
    r"|(un)?(normal|initial|optim|token|serial|organ|recogn|general|summar"
    r"|random|character|minim|maxim|util|regular|parametr)is(ed?|es|ing"
    r"|ations?))\b", re.IGNORECASE)
# This file spells the words out and shows code that contains them.
UNSWEPT = ("tests/test_laws.py",)
# Python 3.12 splits f-strings into tokens.
FSTRING_MIDDLE = getattr(tokenize, "FSTRING_MIDDLE", tokenize.STRING)
PROSE = (*SOURCES, *sorted((ROOT / "configs").rglob("*.py")),
         *sorted((ROOT / "tests").glob("*.py")),
         *sorted((ROOT / "tools").glob("*.py")),
         ROOT / "README.md", ROOT / "LOG.md")


def imports(tree: ast.AST) -> Iterator[str]:
  """Full names of the modules that a tree imports, and of names in ours."""
  for node in ast.walk(tree):
    if isinstance(node, ast.Import):
      yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
      if node.level:
        yield "." * node.level + (node.module or "")
      elif node.module.split(".")[0] == "bert_jax":
        yield from (f"{node.module}.{alias.name}" for alias in node.names)
      else:
        yield node.module


class AtImport(ast.NodeTransformer):
  """Leaves what runs when a module is imported."""

  def visit_FunctionDef(self, node: ast.FunctionDef) -> None:
    return None


def room_of(module: str) -> str:
  """The room of bert_jax.data.text.lines, or of a name in it."""
  _, *parts = module.split(".")
  inside = parts[0] == "data" and (PACKAGE / "data" / parts[1]).is_dir()
  return "/".join(parts[:1 + inside])


def module_of(path: pathlib.Path) -> str:
  return ".".join(path.relative_to(ROOT).with_suffix("").parts)


def rooms_below(source: str) -> set[str]:
  return {room_of(name) for name in imports(ast.parse(source))
          if name.startswith("bert_jax.")}


def house() -> dict[str, set[str]]:
  """What each room imports."""
  below: dict[str, set[str]] = {}
  for path in SOURCES:
    room = room_of(module_of(path))
    below.setdefault(room, set()).update(
        rooms_below(path.read_text()) - {room})
  return below


def import_faults(room: str, source: str) -> list[str]:
  if room not in ROOMS:
    return [f"{room} has no place in the order of rooms"]
  tree, faults = ast.parse(source), []
  for name in imports(tree):
    top, _, _ = name.partition(".")
    if not top:
      faults.append(f"{name}: imports are absolute")
    elif name == "bert_jax":
      faults.append(f"{room} imports bert_jax, the top of the house")
    elif top == "bert_jax":
      other = room_of(name)
      if other not in ROOMS or ROOMS.index(other) < ROOMS.index(room):
        faults.append(f"{room} imports {other}, which does not lie below it")
    elif room in PURE and top in IMPURE:
      faults.append(f"{room} is pure and imports {name}")
    elif room.split("/")[0] in WITHOUT_JAX and top in JAX:
      faults.append(f"{room} imports {name}")
    elif room == "config" and top not in sys.stdlib_module_names:
      faults.append(f"config imports {name}: standard library only")
  if room.startswith("data"):
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
      match_ = re.fullmatch(r"_?[a-z][a-z0-9_]*_([A-Z1]*[A-Z][A-Z1]*)", name)
      return match_ and match_[1]
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
  faults = {str(path): import_faults(room_of(module_of(path)), path.read_text())
            for path in SOURCES}
  assert not {path: lines for path, lines in faults.items() if lines}


@pytest.mark.parametrize("room, source", [
    ("model", "from bert_jax import runs"),
    ("data", "import bert_jax.model.encoder"),
    ("data/text", "from bert_jax.data import sources"),
    ("model", "from ..config import Choice"),
    ("metrics", "from bert_jax.model.heads import MlmHead"),
    ("training", "def step():\n  import time"),
    ("objectives", "import os.path"),
    ("model", "print('here')"),
    ("data", "def row():\n  import jax.numpy as jnp"),
    ("data", "import grain"),
    ("config", "import numpy"),
    ("cli", "import bert_jax"),
    ("files", "import jax"),
    ("attic", ""),
])
def test_forbidden_import_is_reported(room, source):
  assert len(import_faults(room, source)) == 1


@pytest.mark.parametrize("room, source", [
    ("runs", "import time\nfrom bert_jax import training, checkpoints"),
    ("model", "from bert_jax.model.dropout import DropoutSite"),
    ("__init__", "from bert_jax import config"),
    ("data", "def batches():\n  import grain\n\nprint(open('x'))"),
])
def test_allowed_import_is_not_reported(room, source):
  assert not import_faults(room, source)


def floors(below: dict[str, set[str]]) -> dict[str, int]:
  """The height of each room: one more than the highest that it imports."""
  heights: dict[str, int] = {}
  for room in reversed(ROOMS):
    heights[room] = 1 + max(
        (heights[other] for other in below.get(room, ())), default=0)
  return heights


def test_house_stays_small():
  below = house()
  # A thin facade of the rooms below it.
  below.pop("__init__", None)
  heights = floors(below)
  lines = {str(path.relative_to(PACKAGE)): len(path.read_text().splitlines())
           for path in SOURCES}
  median = statistics.median(n for n in lines.values() if n > 5)
  for room in sorted(below, key=heights.__getitem__, reverse=True):
    print(f"{heights[room]:2} {room}: {' '.join(sorted(below[room]))}")
  sizes = (len(below), max(heights.values()), sum(map(len, below.values())),
           median)
  print("rooms {}, floors {}, arrows {}, median file {}".format(*sizes))
  limits = MOST_ROOMS, MOST_FLOORS, MOST_ARROWS, MEDIAN_LINES
  assert all(size <= limit for size, limit in zip(sizes, limits)), sizes
  assert not {name for name, n in lines.items() if n > 300}


def test_importing_the_package_brings_no_jax():
  code = f"import sys, bert_jax\nprint({JAX | IMPORT_JAX} & set(sys.modules))"
  run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, text=True,
                       capture_output=True)
  assert (run.stdout, run.stderr) == ("set()\n", "")


def side_effects(source: str) -> list[str]:
  """What a module changes for others when it is imported."""
  at_import = AtImport().visit(ast.parse(source))
  return [f"line {node.lineno}: {node.attr}" for node in ast.walk(at_import)
          if isinstance(node, ast.Attribute) and node.attr in OTHERS_SETTINGS]


def test_importing_changes_nothing_for_others():
  faults = {str(path): side_effects(path.read_text()) for path in SOURCES}
  assert not {path: lines for path, lines in faults.items() if lines}
  assert len(side_effects("logging.getLogger('absl').setLevel(0)\n"
                          "def quiet():\n  sys.unraisablehook = None\n"
                          "sys.unraisablehook = print")) == 2


def file_faults(source: str) -> list[str]:
  """Files that are written or decompressed other than by files.py."""
  tree = ast.parse(source)
  faults = [f"imports {name}" for name in imports(tree)
            if name in ("gzip", "lzma")]
  for node in ast.walk(tree):
    match node:
      case ast.Call(func=ast.Attribute(
          value=value, attr="write_text" | "write_bytes")) if (
              ast.unparse(value) != "files"):
        faults.append(f"line {node.lineno}: {ast.unparse(node.func)}")
  return faults


def test_files_has_the_one_writer_and_reader():
  faults = {str(path): file_faults(path.read_text()) for path in SOURCES
            if path != PACKAGE / "files.py"}
  assert not {path: lines for path, lines in faults.items() if lines}
  assert len(file_faults("import gzip\nfiles.write_text(path, '')\n"
                         "path.write_text('')")) == 2


def settings_faults(source: str) -> list[str]:
  """What settings of the process would change the types or random bits of."""
  return [f"line {node.lineno}: {ast.unparse(node)}"
          for node in ast.walk(ast.parse(source))
          if isinstance(node, ast.Attribute) and ast.unparse(node) in (
              "jax.jit", "jax.eval_shape", "jax.random.key",
              "jax.random.PRNGKey")]


def test_numerics_has_the_one_compiler_and_generator():
  # The flags of distributed.py are int32 by name.
  faults = {str(path): settings_faults(path.read_text()) for path in SOURCES
            if path.name not in ("numerics.py", "distributed.py")}
  assert not {path: lines for path, lines in faults.items() if lines}
  assert len(settings_faults("@jax.jit\ndef f(x):\n"
                             "  return numerics.jit(g)(jax.random.key(0))"
                             )) == 2


def test_importing_data_brings_no_jax():
  modules = [module_of(path) for path in SOURCES
             if room_of(module_of(path)).split("/")[0] in WITHOUT_JAX]
  code = (f"import sys, {', '.join(modules)}\n"
          f"print({JAX | IMPORT_JAX} & set(sys.modules))")
  run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, text=True,
                       capture_output=True)
  assert (run.stdout, run.stderr) == ("set()\n", "")


def test_names_and_einsum_subscripts_agree():
  faults = {str(path): dimension_faults(path.read_text()) for path in SOURCES}
  assert not {path: lines for path, lines in faults.items() if lines}


@pytest.mark.parametrize("source", [
    "y = jnp.einsum('BLHK,BMHK->BHLM', query_BLHK, key_BLHK)",
    "jnp.einsum('BLHK, BMHK -> BHLM', self.query_BLD, key_BMHK)",
    "score_BHML = jnp.einsum('BLHK,BMHK->BHLM', query_BLHK, key_BMHK)",
    "weight_BQ = 1",
    "def f(weight_BQ): pass",
])
def test_wrong_dimension_is_reported(source):
  assert len(dimension_faults(source)) == 1


def test_right_and_unnamed_dimensions_are_not_reported():
  assert not dimension_faults(
      "MAX_SIZE = jnp.einsum('BLD,DC->BLC', x, kernel_DC)\n"
      "query_BL1 = mask_B1M[0] + np.einsum(subscripts, x_BLD)")


def test_every_module_has_a_name():
  assert not [path for path in SOURCES if path.stem in NAMELESS]


def named(node: ast.AST) -> str:
  """The identifier that a node of the syntax tree introduces or uses."""
  match node:
    case (ast.Name(id=name) | ast.arg(arg=name) | ast.Attribute(attr=name)
          | ast.FunctionDef(name=name) | ast.ClassDef(name=name)
          | ast.keyword(arg=str(name))):
      return name
  return ""


def vague_names(source: str) -> list[str]:
  faults = []
  for node in ast.walk(ast.parse(source)):
    name = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", named(node)).lower()
    for term in TERMS:
      name = name.replace(term, "")
    if VAGUE & set(name.split("_")):
      faults.append(f"line {node.lineno}: {named(node)}")
  return faults


def prose_of(source: str) -> Iterator[tuple[int, str]]:
  """Lines of the comments and strings of a Python file."""
  for token in tokenize.generate_tokens(io.StringIO(source).readline):
    if token.type in (tokenize.COMMENT, tokenize.STRING, FSTRING_MIDDLE):
      yield from enumerate(token.string.splitlines(), token.start[0])


def foreign_words(lines: Iterable[tuple[int, str]]) -> list[str]:
  return [f"line {number}: {match[0]!r}" for number, line in lines
          for match in FOREIGN.finditer(line)]


def style_faults(path: pathlib.Path) -> list[str]:
  text = path.read_text()
  if path.suffix != ".py":
    return foreign_words(enumerate(text.splitlines(), 1))
  return vague_names(text) + foreign_words(prose_of(text))


def test_style_is_plain_american_english():
  faults = {name: style_faults(path) for path in PROSE
            if not (name := str(path.relative_to(ROOT))).startswith(UNSWEPT)}
  assert not {name: lines for name, lines in faults.items() if lines}


@pytest.mark.parametrize("source", [
    "found = 1", "def f(whole): pass", "x.is_wanted", "class Told: pass",
    "f(words_found_BL=1)", "'go on'  # as before", "x = 1  # so many steps",
    "def f():\n  'The behaviour of a step.'", "f'{x} of them are labelled'"])
def test_style_faults_are_reported(source):
  assert len(vague_names(source) + foreign_words(prose_of(source))) == 1


@pytest.mark.parametrize("source", [
    "whole_word = WholeWordMasking()", "except_ = FileNotFoundError",
    "x = 1  # none if nothing is found in the whole file",
    "foundation = 'normalized, initialized and labeled'"])
def test_style_allows_english(source):
  assert not vague_names(source) + foreign_words(prose_of(source))


def test_tests_are_named_after_what_and_behavior():
  names = [node.name for path in (ROOT / "tests").glob("*.py")
           for node in ast.walk(ast.parse(path.read_text()))
           if isinstance(node, ast.FunctionDef)]
  assert not [name for name in names
              if re.match(r"test_([a-z0-9]+$|(an?|the|what)_)", name)]
