"""Tables and words in Markdown."""

import re
from collections.abc import Sequence
from typing import Any


def table(headers: Sequence[str], rows: Sequence[Sequence[Any]],
          numbers: bool = True) -> str:
  """An aligned Markdown table; the first column is text.

  Args:
    numbers: whether the other columns are aligned to the right.
  """
  cells = [[cell if isinstance(cell, str) else f"{cell:.4g}" for cell in row]
           for row in (headers, *rows)]
  widths = [max(3, *map(len, column)) for column in zip(*cells, strict=True)]
  right = [numbers and i > 0 for i in range(len(widths))]
  align = lambda row: [cell.rjust(width) if r else cell.ljust(width)
                       for r, cell, width in zip(right, row, widths)]
  rule = ["-" * (width - 1) + "-:"[r] for r, width in zip(right, widths)]
  head, *body = map(align, cells)
  return "\n".join(f"| {' | '.join(row)} |" for row in (head, rule, *body))


def plain(text: str) -> str:
  """A text of anybody's on one line, read as it is written."""
  return re.sub(r"([\\`*_\[\]<>|#])", r"\\\1", " ".join(text.split()))


def code(text: str) -> str:
  """A text of anybody's as code, in a cell of a table or elsewhere."""
  return f"`{text.replace('`', chr(39)).replace('|', chr(92) + '|')}`"
