"""Several examples in a row."""

import numpy as np

from bert_jax.config import UserError


def pack(lengths_X: np.ndarray, row_length: int,
         examples_per_row: int) -> np.ndarray:
  """Packs examples into rows: best fit, longest first.

  Examples of one length, and rows with one number of tokens left, are handled
  together, so the cost hardly grows with the number of examples. Examples of
  one length are taken in their order: permute them for random company.

  Returns:
    Example indices of each row, shape (R, examples_per_row), -1 where none.
    With one example a row they keep their order, else rows opened by longer
    examples come first.
  """
  count = len(lengths_X)
  if count and lengths_X.max() > row_length:
    raise UserError(f"An example of {lengths_X.max()} tokens does not fit into "
                    f"a row of {row_length}.")
  if examples_per_row == 1:
    return np.arange(count, dtype=np.int32)[:, None]
  rows_by_room = [[] for _ in range(row_length + 1)]  # of (slots used, rows)
  row_RE = np.full((count, examples_per_row), -1, np.int32)
  opened = 0
  longest_first_X = np.argsort(-lengths_X, kind="stable").astype(np.int32)
  for group in np.split(longest_first_X, np.flatnonzero(
      np.diff(lengths_X[longest_first_X])) + 1) if count else ():
    size = int(lengths_X[group[0]])
    while len(group):
      room = next((r for r in range(size, row_length + 1) if rows_by_room[r]),
                  None)
      if room is None:
        room, each = row_length, min(row_length // size, examples_per_row)
        more = -(-len(group) // each)
        rows_by_room[room].append((0, np.arange(opened, opened + more)))
        opened += more
      used, rows = rows_by_room[room].pop()
      taken, left = rows[:len(group)], rows[len(group):]
      row_RE[taken, used], group = group[:len(taken)], group[len(taken):]
      if len(left):
        rows_by_room[room].append((used, left))
      if used + 1 < examples_per_row:
        rows_by_room[room - size].append((used + 1, taken))
  return row_RE[:opened]
