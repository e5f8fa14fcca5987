"""Statistics of the masks for masked language modeling."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bert_jax.config import UserError
from bert_jax.objectives import masking as maskings
from bert_jax.objectives.masking import (
    Masking, SpanMasking, TokenMasking, WholeWordMasking)
from bert_jax.objectives.phrases import PhraseMasking
from tests import tiny

ROWS, LENGTH = 512, 128


def text() -> dict[str, np.ndarray]:
  """Rows [CLS] A [SEP] B [SEP] of different lengths, the rest padding."""
  rng = np.random.default_rng(0)
  ids_BL = rng.integers(5, tiny.SIZE, (ROWS, LENGTH)).astype(np.int32)
  end_B = rng.integers(10, LENGTH + 1, ROWS)
  ids_BL[:, 0] = 2
  ids_BL[np.arange(ROWS), end_B // 2] = 3
  ids_BL[np.arange(ROWS), end_B - 1] = 3
  real_BL = np.arange(LENGTH)[None] < end_B[:, None]
  return {"input_ids": np.where(real_BL, ids_BL, 0),
          "example_ids": real_BL.astype(np.int32)}


def masked(masking: Masking, batch=None, seed: int = 0, step=None):
  keys_B = jax.random.split(jax.random.key(seed), ROWS)
  batch = batch or text()
  return batch, jax.device_get(compiled(masking)(batch, keys_B, step))


@functools.cache
def compiled(masking: Masking):
  return jax.jit(lambda batch, keys_B, step: masking.apply(
      batch, keys_B, tiny.VOCABULARY, step))


@pytest.fixture(params=Masking.members().values(), ids=Masking.members())
def masking(request) -> Masking:
  return request.param()


def test_every_masking_keeps_the_contract(masking):
  batch, out = masked(masking)
  weights_BP = out["masked_weights"]
  predicted = masking.predictions_per_row(LENGTH)
  assert weights_BP.shape == (ROWS, predicted) == (ROWS, 20)
  assert {key: (out[key].shape, out[key].dtype)
          for key in set(out) - set(batch)} == {
              key: ((ROWS, predicted), spec.dtype)
              for key, spec in masking.keys.items()}
  for b in range(ROWS):
    chosen = out["masked_positions"][b][weights_BP[b] > 0]
    assert len(set(chosen)) == len(chosen)
    assert (batch["input_ids"][b][chosen] >= 5).all()  # never special
    np.testing.assert_array_equal(
        out["masked_labels"][b][weights_BP[b] > 0],
        batch["input_ids"][b][chosen])
    others = np.setdiff1d(np.arange(LENGTH), chosen)
    np.testing.assert_array_equal(out["input_ids"][b][others],
                                  batch["input_ids"][b][others])
  real_B = batch["example_ids"].sum(-1)
  expected_B = np.clip(np.round(0.15 * real_B), 1, predicted)
  # What does not fit is skipped for what does, so that the rate is reached.
  chosen_B = weights_BP.sum(-1)
  assert (chosen_B <= expected_B).all() and (chosen_B > 0).all()
  assert chosen_B.sum() >= 0.995 * expected_B.sum()
  if isinstance(masking, TokenMasking):
    np.testing.assert_array_equal(chosen_B, expected_B)


def test_masked_tokens_are_shown_in_the_published_shares(masking):
  batch, out = masked(masking)
  rows_B1 = np.arange(ROWS)[:, None]
  chosen_BP = out["masked_weights"] > 0
  shown = out["input_ids"][rows_B1, out["masked_positions"]][chosen_BP]
  label = out["masked_labels"][chosen_BP]
  count, ordinary = len(label), tiny.SIZE - 5
  if masking.units_look_alike:
    count /= 8  # Tokens of a span are shown alike: fewer draws.
  close = lambda share, p: abs(share - p) < 4 * (p * (1 - p) / count)**.5
  assert close((shown == 4).mean(), 0.8)
  assert close((shown == label).mean(), 0.1 + 0.1 / ordinary)
  assert set(shown) - {4} <= set(range(5, tiny.SIZE))


def test_rows_are_masked_by_their_own_keys(masking):
  """The same row and key give the same masks in any batch."""
  batch = text()
  keys_B = jax.random.split(jax.random.key(0), ROWS)
  part = jax.tree.map(lambda x: jnp.asarray(x[7:9]), batch)
  _, together = masked(masking)
  alone = masking.apply(part, keys_B[7:9], tiny.VOCABULARY)
  for key, value in alone.items():
    np.testing.assert_array_equal(value, together[key][7:9])


@pytest.mark.parametrize("masking", [WholeWordMasking(), SpanMasking()],
                         ids=lambda m: m.choice_name)
def test_words_are_masked_completely(masking):
  batch, out = masked(masking)
  starts_V = tiny.VOCABULARY.word_start_V
  cut = 0
  for b in range(ROWS):
    ids = batch["input_ids"][b]
    chosen = set(out["masked_positions"][b][out["masked_weights"][b] > 0])
    if batch["example_ids"][b].sum() < 60:
      continue  # Its quota may be smaller than a word.
    for position in chosen:
      following = position + 1
      while following < LENGTH and ids[following] >= 5 and not starts_V[
          ids[following]]:
        assert following in chosen, (b, position)
        following += 1
      cut += not starts_V[ids[position]]
  assert cut > 100  # some words have several pieces


def test_parts_are_taken_as_google_takes_words():
  """In their order, skipping those that do not fit."""
  rng = np.random.default_rng(0)
  begins_BL = rng.random((ROWS, 32)) < rng.choice([0.2, 0.5, 0.9], (ROWS, 1))
  part_BL = np.cumsum(begins_BL, axis=-1)
  candidate_BL = np.arange(32) < np.repeat(
      np.where(np.diff(part_BL, axis=-1).any(-1), 32, 0), 32).reshape(ROWS, 32)
  count_B = rng.integers(1, 12, ROWS)
  expected_BL, skipped = np.zeros_like(begins_BL), 0
  for b in np.flatnonzero(candidate_BL.any(-1)):
    left, full = count_B[b], False
    for part in dict.fromkeys(part_BL[b]):
      size = (part_BL[b] == part).sum()
      skipped += full and size <= left
      full |= size > left
      if size <= left:
        expected_BL[b, part_BL[b] == part] = True
        left -= size
  assert skipped > 100
  np.testing.assert_array_equal(
      maskings._that_fit(jnp.asarray(part_BL), jnp.asarray(candidate_BL),
                        jnp.asarray(count_B)), expected_BL)


@pytest.mark.parametrize("masking, unit", [
    (WholeWordMasking(), "word"), (SpanMasking(), "word"),
    (WholeWordMasking(), "row")])
def test_units_beyond_the_quota_are_divided(masking, unit, monkeypatch):
  """A row that is a single word, as text without spaces may be, or of words
  that are to be chosen together."""
  batch = text()
  if unit == "row":
    monkeypatch.setattr(type(masking), "units", lambda self, starts_BL, keys_B:
                        jnp.zeros(starts_BL.shape, jnp.int32))
  else:
    batch["input_ids"] = np.where(batch["input_ids"] > 4, 6, batch["input_ids"])
  _, out = masked(masking, batch)
  expected_B = np.clip(np.round(0.15 * batch["example_ids"].sum(-1)), 1, 20)
  chosen_B = out["masked_weights"].sum(-1)
  assert chosen_B.sum() >= 0.99 * expected_B.sum() and (chosen_B > 0).all()
  # Not always at the beginning.
  assert out["masked_positions"].mean() > 20


def test_empty_row_predicts_nothing():
  empty = {key: np.zeros_like(value) for key, value in text().items()}
  _, out = masked(TokenMasking(), empty)
  assert not out["masked_weights"].any() and not out["input_ids"].any()


def test_span_lengths_are_a_truncated_geometric():
  keys_B = jax.random.split(jax.random.key(0), 4000)
  lengths = np.asarray(SpanMasking().lengths(keys_B, 20))
  expected = 0.2 * 0.8 ** np.arange(10) / (1 - 0.8**10)
  share = np.bincount(lengths.ravel(), minlength=11)[1:] / lengths.size
  np.testing.assert_allclose(
      share, expected, atol=4 * (expected / lengths.size).max()**.5)
  assert lengths.mean() == pytest.approx(3.8, abs=0.03)  # SpanBERT's figure


def test_spans_cover_consecutive_words_up_to_the_rate():
  """Rows without padding; a token is a word: masks come in runs."""
  ids_BL = np.random.default_rng(0).integers(1, 15, (ROWS, LENGTH)) * 3 + 2
  batch = {"input_ids": ids_BL.astype(np.int32),
           "example_ids": np.ones((ROWS, LENGTH), np.int32)}
  keys_B = jax.random.split(jax.random.key(0), ROWS)

  def runs(masking: Masking) -> float:
    _, out = masked(masking, batch)
    assert (out["masked_weights"].sum(-1) == 19).all()  # 15% of 128
    hidden = np.zeros((ROWS, LENGTH + 1), int)
    np.put_along_axis(hidden, out["masked_positions"], 1, -1)
    hidden[:, 0] = 0  # where unused slots point
    return hidden.sum() / (np.diff(hidden, axis=-1) > 0).sum()

  # Neighbors are masked with the rate, so runs are longer than spans.
  assert 1.1 < runs(TokenMasking()) < 1.3
  assert 3.2 < runs(SpanMasking()) < 5
  unit_BL = SpanMasking().units(
      None, np.ones((ROWS, LENGTH), bool), keys_B)
  lengths = np.diff(np.flatnonzero(np.diff(np.asarray(unit_BL).ravel())))
  assert lengths.max() <= 10


def test_spans_end_at_special_tokens_and_are_shown_alike():
  batch, out = masked(SpanMasking(span_p=0.01, longest_span=10))
  alike = runs = 0
  for b in range(ROWS):
    positions = np.sort(out["masked_positions"][b][
        out["masked_weights"][b] > 0])
    shown = out["input_ids"][b]
    for left, right in zip(positions, positions[1:]):
      if right == left + 1:
        runs += 1
        alike += (shown[left] == 4) == (shown[right] == 4)
  assert alike / runs > 0.95  # by chance: 0.8 ** 2 + 0.2 ** 2


def test_rate_moves_linearly_but_not_in_evaluation():
  constant = TokenMasking(rate=0.15)
  moving = TokenMasking(rate=0.15, initial_rate=0.3, rate_steps=100)
  real_B = text()["example_ids"].sum(-1)
  predicted = moving.predictions_per_row(LENGTH)
  assert predicted == TokenMasking(rate=0.3).predictions_per_row(LENGTH)
  for step, rate in ((0, 0.3), (50, 0.225), (100, 0.15), (900, 0.15)):
    _, out = masked(moving, step=jnp.int32(step))
    assert out["masked_weights"].shape == (ROWS, predicted)
    np.testing.assert_allclose(
        out["masked_weights"].sum(-1),
        np.clip(np.round(rate * real_B), 1, predicted), atol=1)
    assert out["masked_weights"].sum() == pytest.approx(
        rate * real_B.sum(), rel=0.01)
  jax.tree.map(np.testing.assert_array_equal, masked(moving)[1],
               masked(constant)[1])


@pytest.mark.parametrize("options, message", [
    ({"rate": 1.0}, "masking.rate=1.0: must lie between"),
    ({"initial_rate": 0.0, "rate_steps": 5}, "masking.initial_rate=0.0"),
    ({"initial_rate": 0.3}, "needs both, as in"),
    ({"rate_steps": 3}, "needs both"),
    ({"mask_fraction": 0.95}, "at most 1"),
    ({"mask_fraction": -0.5}, "mask_fraction=-0.5 .*each at least 0"),
    ({"random_fraction": -0.1}, "random_fraction=-0.1: each at least 0")])
def test_masking_options_are_checked(options, message):
  with pytest.raises(UserError, match=message):
    SpanMasking(**options)


class Numbers:
  """A word is a number; its pieces are its digits, from token 6 on, the first
  of a word that does not divide by 3."""

  def encode_words(self, words_batch):
    return [[[5 + int(word)] for word in words if word != "a"]
            if words[0] != "a" else [[0], *([5 + int(w)] for w in words[1:])]
            for words in words_batch]


def test_phrases_are_masked_together_and_the_longest_first():
  masking = PhraseMasking(phrases=("2 3", "2 3 5 6", "3 5", "8 9"), rate=0.5,
                          mask_fraction=1.0, random_fraction=0.0)
  masking = masking.tokenized(Numbers())
  assert masking.phrase_ids == ("13,14", "7,8", "7,8,10,11", "8,10")
  words = [1, 2, 3, 5, 6, 8, 9, 2, 3, 8, 3, 5]
  ids_BL = jnp.array([[2, *(5 + word for word in words), 3]] * ROWS)
  starts_BL = jnp.ones(ids_BL.shape, bool)
  unit_L = masking.units(ids_BL, starts_BL, None)[0].tolist()
  # [CLS] 1 (2 3 5 6) (8 9) (2 3) 8 (3 5) [SEP]
  assert unit_L == [0, 1, 2, 2, 2, 2, 3, 3, 4, 4, 5, 6, 6, 7]
  vocabulary = dataclasses.replace(tiny.VOCABULARY,
                                   word_start_V=np.ones(tiny.SIZE, bool))
  out = jax.jit(lambda keys_B: masking.apply(
      {"input_ids": ids_BL, "example_ids": jnp.ones_like(ids_BL)}, keys_B,
      vocabulary))(jax.random.split(jax.random.key(0), ROWS))
  masked_BL = np.asarray(out["input_ids"]) == vocabulary.mask_id
  for unit in set(unit_L):
    here = masked_BL[:, np.array(unit_L) == unit]
    assert (here.all(1) == here.any(1)).all()
  assert masked_BL.sum(1).max() == 7 and masked_BL.sum(1).mean() > 6
  for phrases, message in (((), "needs a list"), (("one",), "several words")):
    with pytest.raises(UserError, match=message):
      PhraseMasking(phrases=phrases).tokenized(Numbers())
