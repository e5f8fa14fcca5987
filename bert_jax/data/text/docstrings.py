"""The embedded default: English that every installation carries.

Docstrings of the standard library and of the packages that bert_jax needs, and
Python's help topics, parsed out of the source files; nothing is imported and
nothing is downloaded. The text differs a little between versions of Python and
of the packages, which `versions` tells.

Authors mark code with back-ticks, which makes a labeled task: find the marked
words without the marks (`code_paragraphs`). A paragraph is kept once, under the
first name that has it, so nothing leaks between splits by name.
"""

import ast
import contextlib
import functools
import gc
import importlib.metadata
import importlib.util
import inspect
import pathlib
import platform
import re
import sysconfig
import warnings
from collections.abc import Iterator

from bert_jax.data.text import sentences

# Import name to distribution: required by bert_jax, directly or indirectly. A
# package that is not there is left out.
PACKAGES = {
    "absl": "absl-py", "chex": "chex", "flax": "flax", "grain": "grain",
    "huggingface_hub": "huggingface-hub", "jax": "jax",
    "matplotlib": "matplotlib", "numpy": "numpy", "optax": "optax",
    "orbax": "orbax-checkpoint", "rich": "rich", "scipy": "scipy",
    "sklearn": "scikit-learn",
}
_SKIPPED_FOLDERS = frozenset(
    "test tests _test testing site-packages dist-packages idlelib lib2to3 "
    "turtledemo ensurepip __pycache__ node_modules _vendor externals".split())
_NOT_PROSE_LETTERS = .5
_LEAST_WORDS = 8
# Files with less text than that: a quarter of the time for .03 of the text.
_LEAST_SHARE = .1
_TEXT = re.compile(rb'"""(.*?)"""', re.DOTALL)

_MARK = re.compile(
    r"(?::([a-zA-Z][\w:+.-]*):)?"
    r"(?:``(?=\S)(.+?)(?<=\S)``(?!`)|`(?=\S)([^`]+?)(?<=\S)`)(__?(?!\w))?")
# Roles of reStructuredText whose content is not code.
_PROSE_ROLES = frozenset(
    "ref doc term math pep rfc cite sup sub emphasis strong abbr issue pr "
    "title-reference footcite numref eq user ghuser any bpo".split())
_OPEN, _CLOSE = "\x02", "\x03"


def versions() -> dict[str, str]:
  """What the text depends on."""
  versions_ = {"python": platform.python_version()}
  for distribution in sorted(PACKAGES.values()):
    try:
      versions_[distribution] = importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
      versions_[distribution] = "absent"
  return versions_


def documents() -> Iterator[tuple[str, list[str]]]:
  """(qualified name, sentences) of every documented object, without marks.

  Examples, tables and rules are there as they stand, a line a sentence.
  """
  for name, paragraphs in _harvest():
    kept = [s for text, is_prose in paragraphs for s in (
        sentences.split(_unmarked(text)) if is_prose else [_unmarked(text)])]
    if kept:
      yield name, kept


def code_paragraphs() -> Iterator[tuple[str, list[str], list[str]]]:
  """(qualified name, words, tags) of paragraphs in which authors marked code.

  Words are what white space separates, so that joined by spaces they are the
  text of `documents`. A word with marked code in it (its punctuation included)
  is `B-CODE` where a span begins and `I-CODE` where it continues; others `O`.
  """
  for name, paragraphs in _harvest():
    for paragraph, is_prose in paragraphs:
      if not is_prose or "`" not in paragraph:
        continue
      words, tags = _tagged(paragraph)
      if len(words) >= _LEAST_WORDS and 0 < tags.count("O") < len(words):
        yield name, words, tags


@functools.cache
def _harvest() -> tuple[tuple[str, tuple[tuple[str, bool], ...]], ...]:
  """All objects and their `_paragraphs`, sorted by name.

  Prose is kept once, under the first name that has it.
  """
  by_name: dict[str, list[str]] = {}
  with _no_garbage_collection():
    for name, docstring in _docstrings():
      by_name.setdefault(name, []).append(docstring)
  seen, kept = set(), []
  for name in sorted(by_name):
    paragraphs = []
    for docstring in by_name[name]:
      for text, is_prose in _paragraphs(docstring):
        plain = _unmarked(text)
        if not is_prose or plain not in seen:
          seen.add(plain)
          paragraphs.append((text, is_prose))
    if any(is_prose for _, is_prose in paragraphs):
      kept.append((name, tuple(paragraphs)))
  return tuple(kept)


def _docstrings() -> Iterator[tuple[str, str]]:
  """(qualified name, docstring) of everything that has one."""
  for name, path in _sources():
    source = path.read_bytes()
    if sum(map(len, _TEXT.findall(source))) < _LEAST_SHARE * len(source):
      continue
    try:
      with warnings.catch_warnings(action="ignore"):
        tree = ast.parse(source)
    except (SyntaxError, ValueError, RecursionError):
      continue  # templates and Python 2 that some packages carry
    yield from _of_tree(name, tree)
  yield from _topics()


@contextlib.contextmanager
def _no_garbage_collection() -> Iterator[None]:
  """Syntax trees have no cycles, and looking for some takes half the time."""
  enabled = gc.isenabled()
  gc.disable()
  try:
    yield
  finally:
    if enabled:
      gc.enable()


def _sources() -> Iterator[tuple[str, pathlib.Path]]:
  """(module name, file) of every module whose docstrings are taken."""
  roots = [("", pathlib.Path(sysconfig.get_path("stdlib")))]
  for package in sorted(PACKAGES):
    spec = importlib.util.find_spec(package)
    if spec is not None:
      roots += [(package, pathlib.Path(folder))
                for folder in spec.submodule_search_locations]
  for package, root in roots:
    for path in sorted(root.rglob("*.py")):
      parts = path.relative_to(root).with_suffix("").parts
      if not _skipped(parts):
        names = [*filter(None, [package]), *parts]
        yield ".".join(n for n in names if n != "__init__"), path


def _skipped(parts: tuple[str, ...]) -> bool:
  module = parts[-1]
  return (not _SKIPPED_FOLDERS.isdisjoint(parts[:-1])
          or module.startswith("test_") or module.endswith("_test"))


def _of_tree(name: str, tree: ast.Module) -> Iterator[tuple[str, str]]:
  nodes = [(name, tree)]
  for prefix, node in nodes:
    if isinstance(node, (ast.If, ast.Try, ast.With)):
      nodes += [(prefix, child) for child in ast.iter_child_nodes(node)]
    elif isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef,
                           ast.AsyncFunctionDef)):
      if not isinstance(node, ast.Module):
        prefix = f"{prefix}.{node.name}"
      docstring = ast.get_docstring(node, clean=False)
      if docstring:
        yield prefix, docstring
      if isinstance(node, (ast.Module, ast.ClassDef)):
        nodes += [(prefix, child) for child in node.body]
    elif isinstance(node, ast.Expr) and isinstance(node.value, ast.Call):
      yield from _added(prefix, node.value)


def _added(prefix: str, call: ast.Call) -> Iterator[tuple[str, str]]:
  """Docstrings that numpy and scipy attach with add_newdoc(..., text)."""
  if getattr(call.func, "id", "") != "add_newdoc" or not call.args:
    return
  *names, text = (c.value for a in call.args for c in ast.walk(a)
                  if isinstance(c, ast.Constant) and isinstance(c.value, str))
  yield ".".join([prefix, *names[-2:]]), text


def _topics() -> Iterator[tuple[str, str]]:
  try:
    from pydoc_data.topics import topics
  except ImportError:
    return
  for topic, text in topics.items():
    yield f"pydoc_data.topics.{topic}", text


def _paragraphs(docstring: str) -> Iterator[tuple[str, bool]]:
  """(text, whether it is prose): paragraphs, each on one line, with marks, and
  every line of what is no prose: examples, directives, rules and tables."""
  lines, indent, skipping, fenced = [], 0, False, False
  for line in inspect.cleandoc(docstring).split("\n") + [""]:
    text = line.strip()
    other = ""
    if text.startswith("```"):
      fenced, other, text = not fenced, text, ""
    if text.startswith((">>>", ".. ")):
      skipping = True  # a doctest or a directive, up to the next blank line
    if fenced or skipping or not _is_prose(text):
      skipping = skipping and bool(text)
      other, text = other or text, ""
    deeper = len(line) - len(line.lstrip())
    # Another indentation begins a paragraph, as in tables of parameters.
    if lines and (not text or deeper != indent):
      yield " ".join(" ".join(lines).split()), True
      lines = []
    if text:
      lines.append(text)
      indent = deeper
    if other:
      yield other, False


def _is_prose(text: str) -> bool:
  solid = text.replace(" ", "")
  return sum(map(str.isalpha, solid)) > _NOT_PROSE_LETTERS * len(solid)


def _unmarked(paragraph: str) -> str:
  if "`" not in paragraph:
    return paragraph
  return _MARK.sub(lambda m: _content(m)[0], paragraph)


def _content(mark: re.Match) -> tuple[str, bool]:
  """The text of a mark and whether it is code."""
  role, double, single, link = mark.groups()
  text = double or single
  if double is None and (role or link):
    text = re.sub(r"\s*<[^<>]*>$", "", text) or text
  if single:
    text = text.lstrip("~!") or text
  return text, not link and (role or "").split(":")[-1] not in _PROSE_ROLES


def _tagged(paragraph: str) -> tuple[list[str], list[str]]:
  def bracket(mark: re.Match) -> str:
    text, is_code = _content(mark)
    return f"{_OPEN}{text}{_CLOSE}" if is_code else text

  words, tags, inside = [], [], False
  for word in _MARK.sub(bracket, paragraph).split():
    begins = _OPEN in word
    tags.append("B-CODE" if begins else "I-CODE" if inside else "O")
    inside = word.rfind(_OPEN) > word.rfind(_CLOSE) or (
        inside and _CLOSE not in word)
    words.append(word.replace(_OPEN, "").replace(_CLOSE, ""))
  return words, tags
