"""Choices that are written in a notebook's cell or in a script.

A class of a config page travels with the checkpoints, as the page's text does.
A class of `__main__` has no page: one is written of its source, of what that
names, and is run; what the decorator gives is the class of that page.
"""

import ast
import dataclasses
import inspect
import linecache
import symtable
import sys
import types
import typing
from collections.abc import Iterator, Mapping
from typing import Any

from bert_jax.config.choices import Choice
from bert_jax.config.errors import UserError
from bert_jax.config.pages import Page, run_page

_PLAIN = (int, float, str, bytes, bool, type(None), tuple, frozenset)
_T = typing.TypeVar("_T", bound=Choice)
# The text of a class that a decorator has moved to a page, by the class.
_TEXTS: dict[type, list[str]] = {}
_PAGES: list[Page] = []  # the latest last


@typing.dataclass_transform(frozen_default=True)
def choice(cls: type[_T]) -> type[_T]:
  """Makes a class a member of its family: a frozen dataclass.

  In a notebook or a script, too: what it needs to exist elsewhere is kept in
  every checkpoint of a run that uses it.

  Raises:
    UserError: it is in no family, or names something that cannot be kept.
  """
  if not (isinstance(cls, type) and issubclass(cls, Choice)):
    raise UserError(f"{cls.__name__} is in no family; derive it from one, as "
                    f"in class {cls.__name__}(bert_jax.Norm).")
  if cls.__module__ != "__main__":
    return dataclasses.dataclass(frozen=True)(cls)
  caller = sys._getframe(1)
  lines = _definition(cls.__name__, caller.f_code.co_filename,
                      caller.f_globals, {cls.__name__})
  text = "\n\n".join([
      f'"""{cls.__name__}, as it was written outside of a page."""',
      *dict.fromkeys(lines), "experiment = None"]) + "\n"
  page = run_page(text, f"{cls.__name__}.py")
  _PAGES.append(page)
  made = vars(sys.modules[page.module])[cls.__name__]
  _TEXTS[made] = lines
  return made


def pages() -> list[Page]:
  """That were written of classes of this notebook or script, latest first."""
  return _PAGES[::-1]


def _definition(name: str, file: str, names: Mapping[str, Any],
                known: set[str]) -> list[str]:
  """The text of a class or function of a file, behind all that it needs.

  Args:
    names: what its names mean.
    known: names that are being defined.
  """
  source = "".join(linecache.getlines(file))
  nodes = [node for node in ast.parse(source).body
           if isinstance(node, (ast.ClassDef, ast.FunctionDef))
           and node.name == name]
  if not nodes:
    raise UserError(f"The source of {name} cannot be read; write it into a "
                    "config page.")
  node = nodes[-1]
  first = min([node.lineno, *(d.lineno for d in node.decorator_list)])
  text = "\n".join(source.splitlines()[first - 1:node.end_lineno])
  lines = []
  for used in _globals(symtable.symtable(text, file, "exec")):
    if used in names and used not in known:
      known.add(used)
      lines += _binding(used, names[used], name, known)
  return [*lines, text]


def _globals(scope: symtable.SymbolTable) -> Iterator[str]:
  """Names of the module that it and the scopes in it read."""
  top = scope.get_type() == "module"
  for symbol in scope.get_symbols():
    if symbol.is_referenced() and (symbol.is_global() or (
        top and not symbol.is_assigned())):
      yield symbol.get_name()
  for child in scope.get_children():
    yield from _globals(child)


def _binding(name: str, value: Any, user: str, known: set[str]) -> list[str]:
  """Lines that give a name its value."""
  if isinstance(value, types.ModuleType):
    return [f"import {value.__name__} as {name}"]
  if isinstance(value, type) and value in _TEXTS:
    return _TEXTS[value]
  module = getattr(value, "__module__", None)
  if isinstance(value, (type, types.FunctionType)) and module == "__main__":
    return _definition(value.__name__, _file(value), vars(sys.modules[module]),
                       known)
  if isinstance(module, str) and hasattr(value, "__qualname__") and (
      getattr(sys.modules.get(module), value.__qualname__, None) is value):
    return [f"from {module} import {value.__qualname__} as {name}"]
  if isinstance(value, _PLAIN):
    return [f"{name} = {value!r}"]
  raise UserError(
      f"{user} uses {name}, {type(value).__name__} of this notebook, which "
      "cannot be kept with a checkpoint; define it inside the class, or write "
      "both into a config page.")


def _file(value: Any) -> str:
  """Where a class or function of __main__ was written: of a class where its
  methods were."""
  parts = vars(value).values() if isinstance(value, type) else [value]
  for part in parts:
    code = getattr(inspect.unwrap(part) if callable(part) else part, "__code__",
                   None)
    if code is not None and linecache.getlines(code.co_filename):
      return code.co_filename
  raise UserError(f"The source of {value.__name__} cannot be read; write it "
                  "into a config page.")
