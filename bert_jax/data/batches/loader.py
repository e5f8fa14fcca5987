"""Steps to batches: the batch of a step is a function of rows and step alone.

Grain reads ahead with threads; nothing of it needs to be saved or restored, as
an iterator is started at any step.
"""

import dataclasses
import itertools
from collections.abc import Iterator

import numpy as np

from bert_jax.data.batches.rows import Rows

Batch = dict[str, np.ndarray]


def batch(rows: Rows, batch_size: int, step: int,
          positions: np.ndarray | None = None) -> Batch:
  """The rows at `positions` of the global batch of a step; None: all of them.

  Rows are counted through all epochs. Beside the keys of a row there is `row`,
  the position in the global batch, which keys masks and dropout.
  """
  positions = _positions(batch_size, positions)
  return _stack([rows.row(*divmod(step * batch_size + p, len(rows)))
                 for p in positions.tolist()], positions)


def batches(rows: Rows, batch_size: int, start_step: int, stop_step: int,
            positions: np.ndarray | None = None, *,
            threads: int = 2) -> Iterator[Batch]:
  """The batches of the steps `start_step` to `stop_step` (exclusive)."""
  return _read_ahead(_Steps(rows, batch_size, start_step, stop_step,
                            _positions(batch_size, positions)), threads)


def evaluation_batches(rows: Rows, batch_size: int,
                       positions: np.ndarray | None = None, *,
                       threads: int = 2) -> Iterator[Batch]:
  """Every row of epoch 0 once; the last batch is filled with empty rows.

  `row` counts over the whole set, so that a row's masks stay the same whatever
  the batch size. Rows made with `shuffle=False` keep the order of the data.
  """
  return _read_ahead(
      _EvaluationSteps(rows, batch_size, 0, -(-len(rows) // batch_size),
                       _positions(batch_size, positions)), threads)


def _positions(batch_size: int, positions: np.ndarray | None) -> np.ndarray:
  return np.arange(batch_size) if positions is None else positions


def _stack(rows: list[Batch], numbers: np.ndarray) -> Batch:
  return {key: np.stack([row[key] for row in rows]) for key in rows[0]} | dict(
      row=numbers.astype(np.int32))


@dataclasses.dataclass(frozen=True)
class _Steps:
  """A random access source whose elements are whole batches."""

  rows: Rows
  batch_size: int
  start: int
  stop: int
  positions: np.ndarray

  def __len__(self) -> int:
    return max(0, self.stop - self.start)

  def __getitem__(self, index: int) -> Batch:
    return batch(self.rows, self.batch_size, self.start + index,
                 self.positions)


class _EvaluationSteps(_Steps):

  def __getitem__(self, index: int) -> Batch:
    numbers = index * self.batch_size + self.positions
    return _stack([
        self.rows.row(0, n) if n < len(self.rows) else self.rows.empty()
        for n in numbers.tolist()], numbers)


def _read_ahead(steps: _Steps, threads: int) -> Iterator[Batch]:
  import grain  # Late, as it imports jax, and workers of data/ shall not.
  options = grain.ReadOptions(num_threads=threads,
                              prefetch_buffer_size=4 * threads)
  if not len(steps):
    return
  iterator = iter(grain.MapDataset.source(steps).to_iter_dataset(options))
  try:
    yield from itertools.islice(iterator, len(steps))
  finally:
    iterator.close()
