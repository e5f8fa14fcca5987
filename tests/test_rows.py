import dataclasses
import importlib.util
import pathlib
import pickle
import random
import re
import sys

import numpy as np
import pytest
from hypothesis import given, strategies as st

from bert_jax.config import UserError
from bert_jax.data.batches import examples as examples_lib, loader
from bert_jax.data.batches.packing import pack
from bert_jax.data.pretraining import formats
from bert_jax.data.pretraining.formats import (
    BlocksFormat, Format, FullSentencesFormat, OrderedPairsFormat, PairsFormat)
from bert_jax.data.pretraining.rows import PretrainingRows
from bert_jax.data.sources import TextData
from bert_jax.experiment import Experiment
from bert_jax.objectives.sentence_order import MlmSop
from tests.memory_corpus import (
    SPECIAL, MemoryCorpus, memory_corpus, random_corpus, vocabulary)


def make_rows(corpus: MemoryCorpus, format: Format = PairsFormat(),
              length: int = 32, examples_per_row: int = 1, seed: int = 0,
              shuffle: bool = True) -> PretrainingRows:
  return PretrainingRows(corpus, vocabulary(corpus.vocabulary_size), format,
                         length, examples_per_row, seed, shuffle)


def segments(row: dict) -> list[tuple[np.ndarray, np.ndarray, int]]:
  """(positions of A, of B, is random) of each example, read off a row."""
  examples = []
  for slot in range(int(row["example_mask"].sum())):
    here = row["example_ids"] == slot + 1
    ids, types = row["input_ids"][here], row["token_type_ids"][here]
    text = ids >= SPECIAL
    examples.append((ids[text & (types == 0)] - SPECIAL,
                     ids[text & (types == 1)] - SPECIAL,
                     int(row["next_sentence_labels"][slot])))
  return examples


def epoch_segments(rows: PretrainingRows, epoch: int = 0) -> list:
  return [example for i in range(len(rows.plan(epoch)[1]))
          for example in segments(rows.row(epoch, i))]


@pytest.mark.parametrize("name", Format.members())
@pytest.mark.parametrize("examples_per_row", [1, 3])
def test_rows_of_every_format_are_well_formed(name, examples_per_row):
  corpus = random_corpus(20, 12, 25)
  rows = make_rows(corpus, Format.members()[name](), 24, examples_per_row)
  for i in range(len(rows)):
    row = rows.row(0, i)
    assert {k: (v.shape, v.dtype.name) for k, v in row.items()} == dict(
        dict.fromkeys(("input_ids", "token_type_ids", "position_ids",
                       "example_ids"), ((24,), "int32")),
        cls_positions=((examples_per_row,), "int32"),
        next_sentence_labels=((examples_per_row,), "int32"),
        example_mask=((examples_per_row,), "float32"))
    count = int(row["example_mask"].sum())
    used = row["example_ids"] > 0
    assert count >= 1 and row["example_mask"][:count].all()
    assert (row["input_ids"][~used] == 0).all() and (
        row["input_ids"][used] > 0).all()
    for slot in range(count):
      here = np.flatnonzero(row["example_ids"] == slot + 1)
      assert row["cls_positions"][slot] == here[0]
      np.testing.assert_array_equal(here, here[0] + np.arange(len(here)))
      np.testing.assert_array_equal(row["position_ids"][here],
                                    np.arange(len(here)))
      ids = row["input_ids"][here]
      separators = 1 + row["token_type_ids"][here].max()
      assert ids[0] == 2 and ids[-1] == 3 and (ids == 3).sum() == separators
      assert (np.diff(row["token_type_ids"][here]) >= 0).all()
  empty = rows.empty()
  assert not any(empty[key].any() for key in empty)
  assert empty.keys() == rows.row(0, 0).keys()


def test_unused_sentences_are_put_back_and_none_is_used_twice():
  # Sentences of one token: no pair is ever truncated.
  corpus = memory_corpus([[1] * n for n in (1, 2, 50, 333, 7)])
  examples = epoch_segments(make_rows(corpus))
  assert {label for _, _, label in examples} == {0, 1}
  text = [a for a, _, _ in examples] + [b for _, b, r in examples if not r]
  np.testing.assert_array_equal(np.sort(np.concatenate(text)),
                                np.arange(len(corpus.tokens_T)))


def test_b_continues_a_or_is_of_another_document():
  corpus = random_corpus(30, 20, 9)
  for a, b, is_random in epoch_segments(make_rows(corpus)):
    np.testing.assert_array_equal(np.diff(a), 1)
    np.testing.assert_array_equal(np.diff(b), 1)
    documents = corpus.document_of(a), corpus.document_of(b)
    assert len(set(documents[0])) == len(set(documents[1])) == 1
    assert (documents[0][0] == documents[1][0]) == (not is_random)
    if not is_random:
      truncated = len(a) + len(b) == 29
      assert b[0] == a[-1] + 1 or truncated and b[0] > a[-1]


def test_single_document_is_its_own_random_next():
  corpus = memory_corpus([[3] * 40])
  examples = epoch_segments(make_rows(corpus))
  assert any(is_random for _, _, is_random in examples)


@pytest.mark.parametrize("documents, random, overlap, odd", [
    ([[5] * 30] * 9, r"[45].%", "0%", False), ([[5]] * 99, "100%", "0%", True),
    ([[5] * 99], r"[45].%", r"\d+%", False), ([[9]], "100%", "100%", True)])
def test_pairs_that_are_no_task_are_said(documents, random, overlap, odd):
  description = make_rows(memory_corpus(documents)).describe_pairs()
  assert re.search(f"^{random} of .* random second part, {overlap} one that "
                   "overlaps the first", description), description
  assert ("little to learn" in description) == odd
  if len(documents) == 1 and not odd:
    assert ", 0% one" not in description
  full = make_rows(memory_corpus(documents), FullSentencesFormat())
  assert full.describe_pairs() == ""


def sequential_examples(documents, maximum, rng, short_seq_prob=0.1):
  """create_pretraining_data as published, one sentence at a time."""
  for own, document in enumerate(documents):
    target = maximum
    if rng.random() < short_seq_prob:
      target = rng.randint(2, maximum)
    at = 0
    while at < len(document):
      chunk = []
      while at < len(document):
        chunk.append(document[at])
        at += 1
        if sum(map(len, chunk)) >= target:
          break
      split = rng.randint(1, len(chunk) - 1) if len(chunk) > 1 else 1
      a = [token for sentence in chunk[:split] for token in sentence]
      is_random = len(chunk) == 1 or rng.random() < 0.5
      if is_random:
        other = own
        while other == own:
          other = rng.randrange(len(documents))
        b = []
        for sentence in documents[other][
            rng.randrange(len(documents[other])):]:
          b += sentence
          if len(b) >= target - len(a):
            break
        at -= len(chunk) - split
      else:
        b = [token for sentence in chunk[split:] for token in sentence]
      while len(a) + len(b) > maximum:
        longer = a if len(a) > len(b) else b
        del longer[0 if rng.random() < 0.5 else -1]
      yield a, b, is_random


def pair_statistics(corpus: MemoryCorpus, examples: list) -> list[float]:
  lengths = np.array([(len(a), len(b)) for a, b, _ in examples])
  label = np.array([r for _, _, r in examples], float)
  front = np.array([(a[0], b[0]) for a, b, _ in examples])
  front = front - corpus.sentence_starts_S1[corpus.sentence_of(front)]
  total = lengths.sum(1)
  return [len(examples), label.mean(), *lengths.mean(0), *lengths.std(0),
          (total == 29).mean(), (total < 15).mean(), total.std(),
          (lengths[:, 0] * label).mean(), (lengths[:, 1] * label).mean(),
          *front.mean(0), (lengths[:, 0] == 15).mean(),
          (lengths[:, 1] == 15).mean()]


def test_pairs_are_distributed_as_in_googles_script():
  corpus = random_corpus(30, 25, 14, seed=3)
  starts = corpus.sentence_starts_S1
  documents = [
      [list(range(starts[s], starts[s + 1])) for s in range(low, high)]
      for low, high in zip(corpus.document_starts_U1[:-1],
                           corpus.document_starts_U1[1:])]
  epochs, rng = 120, random.Random(0)
  theirs = np.array([pair_statistics(corpus, list(sequential_examples(
      documents, 29, rng))) for _ in range(epochs)])
  rows, ours = make_rows(corpus), []
  for epoch in range(epochs):
    e = rows.examples(epoch)
    ours.append(pair_statistics(corpus, [
        (range(a, a + n), range(b, b + m), r) for a, n, b, m, r in zip(
            e.a_start_X.tolist(), e.a_length_X.tolist(),
            e.b_start_X.tolist(), e.b_length_X.tolist(), e.is_random_X)]))
  ours = np.array(ours)
  error = np.sqrt((ours.var(0) + theirs.var(0)) / epochs)
  deviation = (ours.mean(0) - theirs.mean(0)) / error
  assert np.abs(deviation).max() < 4, deviation


def statistics_tool():
  path = pathlib.Path(__file__).parents[1] / "tools" / "data_statistics.py"
  spec = importlib.util.spec_from_file_location("data_statistics", path)
  module = importlib.util.module_from_spec(spec)
  sys.modules[spec.name] = module  # where dataclasses look up their module
  spec.loader.exec_module(module)
  return module


def test_statistics_hold_and_detect_faults(monkeypatch):
  tool, corpus = statistics_tool(), random_corpus(300, 25, 14)
  for format in (PairsFormat(), PairsFormat(0.3, "example")):
    checks = list(tool.pair_checks(make_rows(corpus, format), 20_000))
    assert len(checks) == 7
    assert all(check.passed for check in checks), list(map(str, checks))
  rows = make_rows(corpus)
  plan = rows.examples

  def spoiled(epoch):
    """Flips one label in twenty and doubles the number of short examples."""
    examples = plan(epoch)
    wrong_X = np.arange(len(examples)) % 20 == 0
    return dataclasses.replace(
        examples, is_random_X=examples.is_random_X ^ wrong_X,
        target_X=np.where(corpus.document_of(examples.a_start_X) % 10 == 0, 2,
                          examples.target_X))

  monkeypatch.setattr(rows, "examples", spoiled)
  failed = {c.name for c in tool.pair_checks(rows, 20_000) if not c.passed}
  for name in ("random next, where the", "random B", "true B", "short lengths",
               "mean of the short"):
    assert any(f.startswith(name) for f in failed), (name, failed)


@pytest.mark.parametrize("maximum", [4, 5])
def test_truncation_takes_from_the_longer_side(maximum):
  for a, b in np.ndindex(12, 12):
    kept_a, kept_b = a, b
    while kept_a + kept_b > maximum:
      if kept_a > kept_b:
        kept_a -= 1
      else:
        kept_b -= 1
    assert examples_lib.truncated(a, b, maximum) == (kept_a, kept_b)


def test_short_sequences_are_drawn_for_documents_or_for_examples():
  corpus = memory_corpus([[3] * 60] * 400)
  per_document = make_rows(corpus, PairsFormat(0.3)).examples(0)
  document = corpus.document_of(per_document.a_start_X)
  short = per_document.target_X < 29
  first = np.unique(document, return_index=True)[1]
  np.testing.assert_array_equal(short, short[first][document])
  assert abs(short[first].mean() - 0.3) < 0.1
  assert short.mean() > 0.4
  per_example = make_rows(corpus, PairsFormat(0.3, "example")).examples(0)
  assert abs((per_example.target_X < 29).mean() - 0.3) < 0.05


def test_full_sentences_hold_all_text_once_and_in_order():
  corpus = memory_corpus([[5, 100, 1], [30], [31, 2], [1] * 90])
  rows = make_rows(corpus, FullSentencesFormat(), shuffle=False)
  examples = epoch_segments(rows)
  np.testing.assert_array_equal(np.concatenate([a for a, _, _ in examples]),
                                np.arange(len(corpus.tokens_T)))
  for a, b, label in examples:
    assert len(a) <= 30 and not len(b) and not label
    assert len(set(corpus.document_of(a))) == 1
  full = make_rows(corpus, FullSentencesFormat(0.0), shuffle=False)
  # [5] [30 30 30] [10 + 1] | [30] | [30] [1 + 2] | [30 30 30]
  assert [len(a) for a, _, _ in epoch_segments(full)] == [
      5, 30, 30, 30, 11, 30, 30, 3, 30, 30, 30]


def test_ordered_pairs_are_consecutive_and_half_are_swapped():
  corpus = random_corpus(120, 9, 12)
  pairs = epoch_segments(make_rows(corpus, OrderedPairsFormat(), length=128))
  swapped = 0
  for a, b, label in pairs:
    first, second = (b, a) if label else (a, b)
    assert first[-1] + 1 == second[0] and len(first) and len(second)
    assert len(set(corpus.document_of(np.concatenate([a, b])))) == 1
    swapped += label
  assert abs(swapped - len(pairs) / 2) < 2 * len(pairs)**.5
  text = np.concatenate([np.concatenate([a, b]) for a, b, _ in pairs])
  lost = np.setdiff1d(np.arange(len(corpus.tokens_T)), text)
  assert len(np.unique(text)) == len(text)
  # Sentences of one token that were left alone at the end of a document.
  assert len(lost) < 12 and np.isin(lost + 1, corpus.sentence_starts_S1[
      corpus.document_starts_U1]).all()


def test_blocks_hold_all_text_and_move_from_epoch_to_epoch():
  corpus = memory_corpus([[5, 100, 1], [30], [31, 2], [1] * 90])
  rows = make_rows(corpus, BlocksFormat(), shuffle=False)
  starts = []
  for epoch in (0, 1):
    blocks = [a for a, _, _ in epoch_segments(rows, epoch)]
    np.testing.assert_array_equal(np.concatenate(blocks),
                                  np.arange(len(corpus.tokens_T)))
    assert all(len(set(corpus.document_of(a))) == 1 for a in blocks)
    document_X = [corpus.document_of(a)[0] for a in blocks]
    assert all(len(a) == 30 for i, a in enumerate(blocks)
               if document_X[i] in document_X[:i] and (
                   document_X[i] in document_X[i + 1:]))
    starts.append([a[0] for a in blocks])
  assert starts[0] != starts[1]


def test_pairs_of_another_question_are_refused():
  with pytest.raises(UserError, match="data.format=ordered_pairs$|ordered_p"):
    Experiment(objective=MlmSop())
  with pytest.raises(UserError, match="set data.format=pairs"):
    Experiment(data=TextData(format=OrderedPairsFormat()))
  Experiment(objective=MlmSop(), data=TextData(format=OrderedPairsFormat()))


def test_documents_planned_in_blocks_are_complete(monkeypatch):
  monkeypatch.setattr(formats, "SENTENCES_AT_ONCE", 10)
  corpus = memory_corpus([[1] * n for n in (4, 4, 30, 1, 9, 2)])
  examples = epoch_segments(make_rows(corpus))
  text = [a for a, _, _ in examples] + [b for _, b, r in examples if not r]
  np.testing.assert_array_equal(np.sort(np.concatenate(text)),
                                np.arange(len(corpus.tokens_T)))
  for a, b, r in examples:
    assert (corpus.document_of(a[0]) == corpus.document_of(b[0])) == (not r)


@given(st.data(), st.integers(1, 64), st.integers(1, 9))
def test_packing_places_every_example_once_and_never_overfills(
    data, row_length, examples_per_row):
  lengths = np.array(data.draw(st.lists(st.integers(1, row_length),
                                        max_size=200)), np.int64)
  packed = pack(lengths, row_length, examples_per_row)
  assert packed.shape[1] == examples_per_row
  np.testing.assert_array_equal(np.sort(packed[packed >= 0]),
                                np.arange(len(lengths)))
  if len(lengths):
    filled = np.where(packed >= 0, lengths[packed], 0).sum(1)
    assert filled.max() <= row_length and filled.min() > 0
  # Slots are used from the left.
  assert (np.diff((packed < 0).astype(int)) >= 0).all()


def test_packing_is_best_fit_with_the_longest_first():
  lengths = np.random.default_rng(0).integers(3, 33, 1000)
  assert lengths.sum() / (64 * len(pack(lengths, 64, 64))) > 0.98
  # 6 + 4 twice, not 6 + 3 and 6 + 3 and 4 + 4.
  assert len(pack(np.array([6, 3, 4, 3, 6, 4, 4]), 10, 3)) == 3
  assert pack(np.array([2] * 6), 10, 2).tolist() == [[0, 3], [1, 4], [2, 5]]


def test_example_longer_than_a_row_is_refused():
  with pytest.raises(UserError, match="11 tokens .* a row of 10"):
    pack(np.array([3, 11]), 10, 2)


def test_packed_rows_hold_the_same_examples():
  corpus = random_corpus(40, 15, 8)
  def contents(rows):
    return sorted((a.tolist(), b.tolist(), r)
                  for a, b, r in epoch_segments(rows, epoch=1))
  unpacked, packed = make_rows(corpus), make_rows(corpus, examples_per_row=4)
  assert contents(unpacked) == contents(packed)
  assert len(packed) < len(unpacked)


def test_epochs_differ_and_have_equally_many_rows():
  corpus = random_corpus(40, 15, 8)
  rows = make_rows(corpus)
  assert (rows.row(0, 0)["input_ids"] != rows.row(1, 0)["input_ids"]).any()
  counts = [len(rows.plan(epoch)[1]) for epoch in range(20)]
  fewer = int(np.argmin(counts))
  assert counts[fewer] < len(rows) == counts[0]
  np.testing.assert_array_equal(
      rows.row(fewer, counts[fewer])["input_ids"],
      rows.row(fewer, 0)["input_ids"])


def test_without_shuffling_rows_follow_the_text():
  rows = make_rows(random_corpus(40, 15, 8), shuffle=False)
  first = [a[0] for a, _, _ in epoch_segments(rows)]
  assert first == sorted(first)
  shuffled = [a[0] for a, _, _ in epoch_segments(make_rows(rows.corpus))]
  assert shuffled != first


def test_rows_with_another_seed_equal_rows_made_with_it():
  corpus = random_corpus(40, 15, 8)
  counts = {seed: len(make_rows(corpus, seed=seed)) for seed in range(9)}
  least, most = (find(counts, key=counts.get) for find in (min, max))
  assert counts[least] < counts[most]
  rows, expected = make_rows(corpus, seed=least), make_rows(corpus, seed=most)
  assert len(rows) == counts[least]
  rows = rows.with_seed(most)
  assert len(rows) == counts[most]
  assert rows.fingerprint == expected.fingerprint
  np.testing.assert_equal(rows.row(1, 3), expected.row(1, 3))


def test_rows_are_pickled_without_their_plans():
  rows = make_rows(random_corpus(40, 15, 8), seed=5)
  size = len(pickle.dumps(rows))
  rows.row(3, 1)
  assert len(pickle.dumps(rows)) == size
  copy = pickle.loads(pickle.dumps(rows))
  assert copy.fingerprint == rows.fingerprint
  for key, value in rows.row(3, 1).items():
    np.testing.assert_array_equal(copy.row(3, 1)[key], value)


def test_fingerprint_covers_everything_that_rows_depend_on():
  corpus = random_corpus(5, 5, 8)
  variants = [
      dict(), dict(length=40), dict(examples_per_row=2), dict(seed=1),
      dict(shuffle=False), dict(format=PairsFormat(0.2)),
      dict(format=FullSentencesFormat())]
  fingerprints = {make_rows(corpus, **variant).fingerprint
                  for variant in variants}
  other = MemoryCorpus(corpus.tokens_T, corpus.sentence_starts_S1,
                       corpus.document_starts_U1, "other")
  assert len(fingerprints | {make_rows(other).fingerprint}) == len(variants) + 1


def test_bad_row_options_are_refused():
  corpus = random_corpus(5, 5, 8)
  with pytest.raises(UserError, match="Rows of 4 tokens.*allowed: 5 or more"):
    make_rows(corpus, length=4)
  with pytest.raises(UserError, match="short_seq_prob=1.5"):
    PairsFormat(1.5)
  with pytest.raises(UserError, match="examples_per_row=0"):
    make_rows(corpus, examples_per_row=0)
  with pytest.raises(UserError, match="but the tokenizer has 7"):
    PretrainingRows(corpus, vocabulary(7), PairsFormat(), 32, 1, 0)


def test_corpus_without_documents_has_no_rows():
  rows = make_rows(memory_corpus([]))
  assert len(rows) == 0 and not list(loader.evaluation_batches(rows, 4))
