"""Ordered tables over parameter paths: decay, layout, freezing, conversion.

A table is a sequence of (pattern, value). A pattern is a regular expression
searched in the path, as in `encoder/layers/attention/query/kernel`; the first
that matches gives the value.
"""

import re
from collections.abc import Sequence
from typing import Any, TypeVar

import jax

Value = TypeVar("Value")
Table = Sequence[tuple[str, Value]]


def path_of(keys: Sequence[Any]) -> str:
  """The path of a leaf from the key entries jax.tree_util gives."""
  return jax.tree_util.keystr(tuple(keys), simple=True, separator="/")


def leaves(tree: Any) -> dict[str, Any]:
  """Every leaf by its path."""
  return {path_of(keys): leaf
          for keys, leaf in jax.tree_util.tree_leaves_with_path(tree)}


def look_up(table: Table[Value], path: str) -> Value:
  """The value of the first pattern that is found in `path`."""
  for pattern, value in table:
    if re.search(pattern, path):
      return value
  raise ValueError(f"No rule matches the parameter {path!r}; the patterns are "
                   f"{[pattern for pattern, _ in table]}.")


def map_table(table: Table[Value], tree: Any) -> Any:
  """A tree like `tree` with each leaf replaced by its value in the table."""
  return jax.tree_util.tree_map_with_path(
      lambda keys, _: look_up(table, path_of(keys)), tree)
