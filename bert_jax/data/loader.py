"""Steps to batches: the batch of a step is a function of rows and step alone.

Grain reads ahead with threads; nothing of it needs to be saved or restored, as
an iterator is started at any step.
"""

import dataclasses
import itertools
from collections.abc import Iterator, Sequence

import numpy as np

from bert_jax.config import UserError
from bert_jax.data.rows import Rows

Batch = dict[str, np.ndarray]


def batch(rows: Rows, batch_size: int, step: int, *, process_index: int = 0,
          process_count: int = 1) -> Batch:
  """This process's slice of the global batch of a step.

  Rows are counted through all epochs. Beside the keys of a row there is `row`,
  the position in the global batch, which keys masks and dropout.
  """
  positions = _positions(batch_size, process_index, process_count)
  return _stack([rows.row(*divmod(step * batch_size + p, len(rows)))
                 for p in positions], positions)


def batches(rows: Rows, batch_size: int, start_step: int, stop_step: int, *,
            process_index: int = 0, process_count: int = 1,
            threads: int = 2) -> Iterator[Batch]:
  """The batches of the steps `start_step` to `stop_step` (exclusive)."""
  _positions(batch_size, process_index, process_count)
  return _read_ahead(
      _Steps(rows, batch_size, start_step, stop_step, process_index,
             process_count), threads)


def evaluation_batches(rows: Rows, batch_size: int, *, process_index: int = 0,
                       process_count: int = 1,
                       threads: int = 2) -> Iterator[Batch]:
  """Every row of epoch 0 once; the last batch is filled with empty rows.

  `row` counts over the whole set, so that a row's masks stay the same whatever
  the batch size. Rows made with `shuffle=False` keep the order of the data.
  """
  _positions(batch_size, process_index, process_count)
  return _read_ahead(
      _EvaluationSteps(rows, batch_size, 0, -(-len(rows) // batch_size),
                       process_index, process_count), threads)


def _positions(batch_size: int, process_index: int,
               process_count: int) -> range:
  if batch_size < 1 or batch_size % process_count:
    raise UserError(
        f"batch_size={batch_size} is not divisible by {process_count} "
        f"processes; the nearest that is: "
        f"{max(1, round(batch_size / process_count)) * process_count}.")
  local = batch_size // process_count
  return range(process_index * local, (process_index + 1) * local)


def _stack(rows: list[Batch], positions: Sequence[int]) -> Batch:
  return {key: np.stack([row[key] for row in rows]) for key in rows[0]} | dict(
      row=np.array(positions, np.int32))


@dataclasses.dataclass(frozen=True)
class _Steps:
  """A random access source whose elements are whole batches."""

  rows: Rows
  batch_size: int
  start: int
  stop: int
  process_index: int
  process_count: int

  def __len__(self) -> int:
    return max(0, self.stop - self.start)

  def __getitem__(self, index: int) -> Batch:
    return batch(self.rows, self.batch_size, self.start + index,
                 process_index=self.process_index,
                 process_count=self.process_count)


class _EvaluationSteps(_Steps):

  def __getitem__(self, index: int) -> Batch:
    numbers = [index * self.batch_size + p for p in _positions(
        self.batch_size, self.process_index, self.process_count)]
    return _stack([
        self.rows.row(0, n) if n < len(self.rows) else self.rows.empty()
        for n in numbers], numbers)


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
