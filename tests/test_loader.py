import threading

import numpy as np
import pytest

from bert_jax.data.batches import loader
from bert_jax.data.pretraining.formats import PairsFormat
from bert_jax.data.pretraining.rows import PretrainingRows
from tests.memory_corpus import random_corpus, vocabulary

CORPUS = random_corpus(30, 12, 8)


def make_rows(seed: int = 0, shuffle: bool = True, examples_per_row: int = 2
              ) -> PretrainingRows:
  return PretrainingRows(CORPUS, vocabulary(CORPUS.vocabulary_size),
                         PairsFormat(), 32, examples_per_row, seed, shuffle)


def assert_equal(batch: dict, other: dict):
  assert batch.keys() == other.keys()
  for key in batch:
    assert batch[key].dtype == other[key].dtype
    np.testing.assert_array_equal(batch[key], other[key])


def test_batch_is_a_function_of_seed_and_step():
  rows, fresh = make_rows(), make_rows()
  late = 10**9  # more rows than 32 bits count
  fresh_late = loader.batch(fresh, 8, late)
  for step in (0, 1, late):
    batch = loader.batch(rows, 8, step)
    assert_equal(batch, loader.batch(fresh, 8, step))
  assert_equal(batch, fresh_late)
  for other in (loader.batch(rows, 8, late + 1),
                loader.batch(make_rows(seed=1), 8, late)):
    assert (other["input_ids"] != batch["input_ids"]).any()


def test_iterator_yields_the_batches_of_its_steps_and_ends():
  rows = make_rows()
  steps = range(3, 3 + 2 * len(rows) // 8)  # over the ends of epochs
  yielded = list(loader.batches(rows, 8, steps.start, steps.stop, threads=3))
  assert len(yielded) == len(steps)
  for step, batch in zip(steps, yielded):
    assert_equal(batch, loader.batch(make_rows(), 8, step))
  assert list(loader.batches(rows, 8, 5, 5)) == []


def test_epochs_show_every_row_once():
  rows = make_rows()
  seen = np.concatenate([loader.batch(rows, 5, step)["input_ids"]
                         for step in range(2 * len(rows) // 5)])
  for epoch in range(2):
    expected = [rows.row(epoch, i)["input_ids"] for i in range(len(rows))]
    np.testing.assert_array_equal(seen[:len(rows)], expected[:len(seen)])
    seen = seen[len(rows):]


@pytest.mark.parametrize("positions", [[0, 1, 2, 3], [2, 5, 7], [6]])
def test_part_of_a_batch_equals_that_part_of_the_full_batch(positions):
  rows, batch = make_rows(), loader.batch(make_rows(), 8, 7)
  np.testing.assert_array_equal(batch["row"], np.arange(8))
  part = next(loader.batches(rows, 8, 7, 8, np.array(positions)))
  assert_equal(part, {key: x[positions] for key, x in batch.items()})


@pytest.mark.parametrize("hosts", [1, 2])
def test_evaluation_counts_every_row_once_in_order(hosts):
  rows = make_rows(shuffle=False)
  batch_size = 8 if len(rows) % 8 else 6
  per_host = [list(loader.evaluation_batches(rows, batch_size, positions))
              for positions in np.split(np.arange(batch_size), hosts)]
  batches = [{key: np.concatenate([b[key] for b in parts])
              for key in parts[0]} for parts in zip(*per_host)]
  everything = {key: np.concatenate([b[key] for b in batches])
                for key in batches[0]}
  count = len(rows)
  assert len(everything["row"]) % batch_size == 0 and (
      len(everything["row"]) > count)
  np.testing.assert_array_equal(everything["row"],
                                np.arange(len(everything["row"])))
  for key in rows.row(0, 0):
    np.testing.assert_array_equal(
        everything[key][:count],
        np.stack([rows.row(0, i)[key] for i in range(count)]))
    assert not everything[key][count:].any()


def test_closing_the_iterator_stops_its_threads():
  rows, before = make_rows(), threading.active_count()
  iterator = loader.batches(rows, 8, 0, 10_000)
  next(iterator)
  iterator.close()
  for thread in threading.enumerate():
    if thread is not threading.current_thread() and not thread.daemon:
      thread.join(timeout=5)
  assert threading.active_count() <= before + 1
