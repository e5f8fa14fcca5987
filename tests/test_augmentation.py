"""Augmentations: what they change, and what they keep."""

import dataclasses

import numpy as np
import pytest

from bert_jax.config import UserError
from bert_jax.data.labeled.augmentation import (
    Augmentation, DroppingAugmentation, MaskingAugmentation, NoAugmentation,
    SwappingAugmentation)
from bert_jax.data.labeled.base import LabeledSet
from tests.test_kinds import MADE, Tiny
from tests.test_tasks import classes, words_and_tags

MEMBERS = Augmentation.members()
CHANGING = [name for name in MEMBERS if name != "none"]


def texts(labeled: LabeledSet, augmentation: Augmentation, seed: int = 0,
          epoch: int = 0, examples_per_row: int = 4) -> list[list[list[int]]]:
  """Token ids of each example's texts in the rows of an epoch."""
  rows = labeled.rows(Tiny(), 64, examples_per_row, seed,
                      augmentation=augmentation)
  texts_of = {}
  for i in range(len(rows.plan(epoch)[1])):
    row = rows.row(epoch, i)
    for slot, example in enumerate(row["example_index"].tolist()):
      if example >= 0:
        ids = row["input_ids"][row["example_ids"] == slot + 1].tolist()
        assert ids[0] == 2 and ids[-1] == 3  # [CLS] and [SEP] stay
        ends = [0, *(j for j, t in enumerate(ids) if t == 3)]
        texts_of[example] = [ids[a + 1:b] for a, b in zip(ends, ends[1:])]
  return [texts_of[i] for i in range(len(labeled))]


@pytest.mark.parametrize("name", CHANGING)
@pytest.mark.parametrize("pairs", [False, True])
def test_change_depends_on_seed_epoch_and_example(name, pairs):
  labeled, change = classes(60, pairs=pairs), MEMBERS[name](rate=0.3)
  once = texts(labeled, change, epoch=2)
  assert once == texts(labeled, change, epoch=2, examples_per_row=1)
  plain = texts(labeled, NoAugmentation())
  for other in (plain, texts(labeled, change, epoch=3),
                texts(labeled, change, seed=1, epoch=2)):
    assert other != once and len(other) == len(once)
  assert [len(t) for t in once] == [len(t) for t in plain]
  assert texts(labeled, dataclasses.replace(change, rate=0.0)) == plain
  rows = [labeled.rows(Tiny(), 64, 4, 0, augmentation=a)
          for a in (change, NoAugmentation())]
  assert rows[0].fingerprint != rows[1].fingerprint


def flat(examples: list) -> list[list[int]]:
  return [text for example in examples for text in example]


def test_dropping_keeps_the_order():
  labeled = classes(300, pairs=True)
  plain, dropped = (flat(texts(labeled, change)) for change in (
      NoAugmentation(), DroppingAugmentation(rate=0.4)))
  unchanged = [len(a) == len(b) for a, b in zip(plain, dropped)]
  for a, b in zip(plain, dropped):
    rest = iter(a)
    assert b and all(token in rest for token in b)
  tokens = sum(map(len, plain))
  assert 1 - sum(map(len, dropped)) / tokens == pytest.approx(0.4, abs=0.03)
  # A text of one token is never dropped.
  assert all(same for same, a in zip(unchanged, plain) if len(a) == 1)


def test_swapping_keeps_the_tokens_of_a_text():
  labeled = classes(300, pairs=True)
  plain, swapped = (flat(texts(labeled, change)) for change in (
      NoAugmentation(), SwappingAugmentation(rate=0.3)))
  moved = 0
  for a, b in zip(plain, swapped):
    assert sorted(a) == sorted(b)
    i = 0
    while i < len(a):
      if a[i] == b[i]:
        i += 1
      else:  # with its neighbor, and neither again
        assert [a[i], a[i + 1]] == [b[i + 1], b[i]]
        i, moved = i + 2, moved + 1
  assert moved / sum(len(a) - 1 for a in plain) == pytest.approx(
      0.3 * 0.7, abs=0.05)


def test_masking_replaces_tokens_at_its_rate():
  labeled = words_and_tags(40)
  plain, shown = (texts(labeled, change) for change in (
      NoAugmentation(), MaskingAugmentation(rate=0.25)))
  pairs = [(a, b) for x, y in zip(flat(plain), flat(shown))
           for a, b in zip(x, y)]
  masked = [b == Tiny.vocabulary.mask_id for _, b in pairs]
  assert np.mean(masked) == pytest.approx(0.25, abs=0.06)
  assert all(a == b for (a, b), m in zip(pairs, masked) if not m)


@pytest.mark.parametrize("name", MEMBERS)
def test_token_labels_stay_with_their_tokens(name):
  labeled = MADE["tagging"]()
  rows = lambda change: labeled.rows(Tiny(), 64, 2, 0, augmentation=change)
  if name in ("none", "masking"):
    np.testing.assert_array_equal(rows(MEMBERS[name]()).row(0, 0)["labels"],
                                  rows(NoAugmentation()).row(0, 0)["labels"])
    return
  with pytest.raises(UserError, match=f"augmentation={name} moves tokens"):
    rows(MEMBERS[name]())


def test_rate_is_a_probability():
  with pytest.raises(UserError, match="data.augmentation.rate=1.0"):
    DroppingAugmentation(rate=1.0)
