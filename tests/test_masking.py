"""What masked language modeling hides, counted."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bert_jax.objectives.masking import Masking, TokenMasking, WholeWordMasking
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


def masked(masking: Masking, batch=None, seed: int = 0):
  keys_B = jax.random.split(jax.random.key(seed), ROWS)
  batch = batch or text()
  return batch, jax.device_get(jax.jit(
      lambda b: masking.apply(b, keys_B, tiny.VOCABULARY))(batch))


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
  wanted_B = np.clip(np.round(0.15 * real_B), 1, predicted)
  assert (weights_BP.sum(-1) <= wanted_B).all()
  if isinstance(masking, TokenMasking):
    np.testing.assert_array_equal(weights_BP.sum(-1), wanted_B)


def test_shares_of_what_is_shown(masking):
  batch, out = masked(masking)
  rows_B1 = np.arange(ROWS)[:, None]
  chosen_BP = out["masked_weights"] > 0
  shown = out["input_ids"][rows_B1, out["masked_positions"]][chosen_BP]
  label = out["masked_labels"][chosen_BP]
  count, ordinary = len(label), tiny.SIZE - 5
  close = lambda share, p: abs(share - p) < 4 * (p * (1 - p) / count)**.5
  assert close((shown == 4).mean(), 0.8)
  assert close((shown == label).mean(), 0.1 + 0.1 / ordinary)
  assert set(shown) - {4} <= set(range(5, tiny.SIZE))


def test_rows_are_masked_by_their_own_keys(masking):
  """The same row and key give the same masks in any company."""
  batch = text()
  keys_B = jax.random.split(jax.random.key(0), ROWS)
  part = jax.tree.map(lambda x: jnp.asarray(x[7:9]), batch)
  _, whole = masked(masking)
  alone = masking.apply(part, keys_B[7:9], tiny.VOCABULARY)
  for key, value in alone.items():
    np.testing.assert_array_equal(value, whole[key][7:9])


def test_words_are_masked_whole():
  batch, out = masked(WholeWordMasking())
  starts_V = tiny.VOCABULARY.word_start_V
  cut = 0
  for b in range(ROWS):
    ids = batch["input_ids"][b]
    chosen = set(out["masked_positions"][b][out["masked_weights"][b] > 0])
    for position in chosen:
      following = position + 1
      while following < LENGTH and ids[following] >= 5 and not starts_V[
          ids[following]]:
        assert following in chosen, (b, position)
        following += 1
      cut += not starts_V[ids[position]]
  assert cut > 100  # there were words of several pieces


def test_an_empty_row_predicts_nothing():
  empty = {key: np.zeros_like(value) for key, value in text().items()}
  _, out = masked(TokenMasking(), empty)
  assert not out["masked_weights"].any() and not out["input_ids"].any()
