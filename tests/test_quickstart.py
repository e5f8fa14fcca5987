"""The baselines of the quickstart."""

import types

import numpy as np
import pytest

from bert_jax.data.labeled.tagging import tagged
from bert_jax.studies import quickstart
from tests.memory_corpus import memory_corpus


def test_unigram_loss_uses_smoothed_counts():
  train, held_out = memory_corpus([[8]]), memory_corpus([[4]])
  train.tokens_T[:] = [5, 5, 5, 5, 5, 5, 6, 6]
  held_out.tokens_T[:] = [5, 6, 6, 7]
  splits = types.SimpleNamespace(train=train, held_out=held_out)
  # One more of each of the 13 types: 7, 3 and 1 of 21.
  assert quickstart.unigram_loss(splits) == pytest.approx(
      -np.mean(np.log([7 / 21, 3 / 21, 3 / 21, 1 / 21])))


def test_lexicon_has_the_most_frequent_tag_of_each_word():
  labeled = tagged([
      ("a", ["print", "it", "None"], ["B-CODE", "O", "B-CODE"]),
      ("b", ["print", "None"], ["O", "B-CODE"]), ("c", ["print"], ["O"])])
  tags = {word: labeled.label_names[tag] for word, tag in
          quickstart.most_frequent_tags(labeled).items()}
  assert tags == {"print": "O", "it": "O", "None": "B-CODE"}
