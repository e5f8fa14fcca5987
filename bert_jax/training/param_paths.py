"""Ordered tables over parameter paths: decay, layout, freezing, conversion.

A table is a sequence of (pattern, value). A pattern is a regular expression
searched in the path, as in `encoder/layers/attention/query/kernel`; the first
that matches gives the value.

The layers of a network are stacked in one array a kind. Where layers differ,
as in freezing, patterns are searched in the paths of `expand`.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

import flax.traverse_util
import jax

from bert_jax.config import UserError

Value = TypeVar("Value")
Rules = Sequence[tuple[str, Value]]

_STACK = (r"(?P<stack>[^/]+/layers/)"
          r"(block_(?P<block>\d+)_of_(?P<blocks>\d+)/)?")
# How many of a kernel's last dimensions a product contracts, and how many it
# gives.
_KERNELS: Rules[tuple[int, int]] = (
    (r"attention/output/kernel$", (2, 1)),
    (r"attention/(query|key|value)/kernel$", (1, 2)),
    (r"kernel$", (1, 1)))


def path_of(keys: Sequence[Any]) -> str:
  """The path of a leaf from the key entries jax.tree_util gives."""
  return jax.tree_util.keystr(tuple(keys), simple=True, separator="/")


def leaves(tree: Any) -> dict[str, Any]:
  """Every leaf by its path."""
  return {path_of(keys): leaf
          for keys, leaf in jax.tree_util.tree_leaves_with_path(tree)}


def nested(leaves_by_path: Mapping[str, Any]) -> dict[str, Any]:
  """The dictionaries of dictionaries whose `leaves` these are."""
  return flax.traverse_util.unflatten_dict(leaves_by_path, sep="/")


def expand(path: str, leaf: Any) -> list[str]:
  """The path of each layer in a stack of them, in order; else the path alone.

  Those of encoder/layers/attention/query/kernel, which leads with the layers,
  are encoder/layers/0/attention/query/kernel, and so on. Of a pattern of 3,
  encoder/layers/block_2_of_3/ are the layers 1, 4, 7, ...
  """
  match = re.match(_STACK, path)
  if not match:
    return [path]
  block, blocks = int(match["block"] or 1), int(match["blocks"] or 1)
  return [f"{match['stack']}{n * blocks + block - 1}/{path[match.end():]}"
          for n in range(leaf.shape[0])]


def look_up(table: Rules[Value], path: str) -> Value:
  """The value of the first pattern that matches `path`."""
  return table[first_match(table, path)][1]


def first_match(table: Rules[Any], path: str) -> int:
  """The place in the table of the first pattern that matches `path`."""
  for row, (pattern, _) in enumerate(table):
    if re.search(pattern, path):
      return row
  raise ValueError(f"No rule matches the parameter {path!r}; the patterns are "
                   f"{[pattern for pattern, _ in table]}.")


def kernel_axes(path: str, dimensions: int) -> tuple[int, int]:
  """The first of the dimensions that are a kernel's inputs, and the first of
  those that are its outputs; what leads (layers, experts) is neither."""
  inputs, outputs = look_up(_KERNELS, path)
  return dimensions - inputs - outputs, dimensions - outputs


def check_pattern(option: str, pattern: str) -> None:
  """
  Raises:
    UserError: it is not a regular expression.
  """
  try:
    re.compile(pattern)
  except re.error as error:
    raise UserError(f"{option}: {pattern!r} is no regular expression: {error}."
                    ) from None


def map_table(table: Rules[Value], tree: Any) -> Any:
  """A tree like `tree` with each leaf replaced by its value in the table."""
  return jax.tree_util.tree_map_with_path(
      lambda keys, _: look_up(table, path_of(keys)), tree)
