"""Tables in Markdown."""

from collections.abc import Sequence
from typing import Any


def table(headers: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
  """An aligned Markdown table; the first column is text, the others numbers."""
  cells = [[cell if isinstance(cell, str) else f"{cell:.4g}" for cell in row]
           for row in (headers, *rows)]
  widths = [max(3, *map(len, column)) for column in zip(*cells, strict=True)]
  align = lambda row: [cell.rjust(width) if i else cell.ljust(width)
                       for i, (cell, width) in enumerate(zip(row, widths))]
  rule = ["-" * (width - 1) + ("-:"[i > 0]) for i, width in enumerate(widths)]
  head, *body = map(align, cells)
  return "\n".join(f"| {' | '.join(row)} |" for row in (head, rule, *body))
