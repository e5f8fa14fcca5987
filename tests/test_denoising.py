"""Objectives that write a part of the text: what is source and what target."""

import collections
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bert_jax.config import UserError
from bert_jax.objectives.denoising import Denoising
from bert_jax.objectives.prefix import Prefix
from bert_jax.training import numerics
from tests import tiny

V = tiny.VOCABULARY
CLS, SEP, MASK, PAD = V.cls_id, V.sep_id, V.mask_id, V.pad_id


def row(*lengths: int, length: int) -> dict[str, np.ndarray]:
  """Examples of that many tokens of text, all tokens of a row different."""
  batch = {name: np.zeros((1, length), np.int32) for name in (
      "input_ids", "token_type_ids", "position_ids", "example_ids")}
  batch |= {"cls_positions": np.zeros((1, len(lengths)), np.int32),
            "example_mask": np.ones((1, len(lengths)), np.float32),
            "row": np.zeros(1, np.int32)}
  at, token = 0, 5
  for number, count in enumerate(lengths, 1):
    here = slice(at, at + count + 2)
    batch["input_ids"][0, here] = [CLS, *range(token, token + count), SEP]
    batch["position_ids"][0, here] = np.arange(count + 2)
    batch["example_ids"][0, here] = number
    batch["cls_positions"][0, number - 1] = at
    at, token = at + count + 2, token + count
  assert token <= tiny.SIZE and at <= length
  return batch


@functools.cache
def compiled(objective):
  return jax.jit(lambda batch, key: objective.corrupt(batch, key[None], V,
                                                      jnp.int32(0)))


def corrupted(objective, batch, seed: int):
  key = jax.random.fold_in(numerics.key(0), seed)
  return jax.tree.map(lambda x: np.asarray(x)[0],
                      compiled(objective)(batch, key))


def spans_of(ids: list[int]) -> tuple[list[int], list[list[int]]]:
  """The source, and the spans of the target, of an example."""
  end = ids.index(SEP) + 1
  source, target, spans = ids[:end], ids[end:], []
  assert not target or target[0] == MASK and target.pop() == SEP
  for token in target:
    if token == MASK:
      spans.append([])
    else:
      spans[-1].append(token)
  return source, spans


def test_spans_are_as_many_and_as_long_as_t5_draws_them():
  """Counts exactly; the lengths of two spans of 6 tokens uniformly."""
  objective, first = Denoising(rate=0.3, span=3.0), collections.Counter()
  batch = row(20, length=24)
  for seed in range(1500):
    out = corrupted(objective, batch, seed)
    _, spans = spans_of(out["input_ids"][out["example_ids"] > 0].tolist())
    assert len(spans) == 2 and sum(map(len, spans)) == 6
    first[len(spans[0])] += 1
  assert set(first) == {1, 2, 3, 4, 5}
  chi_square = sum((n - 300)**2 / 300 for n in first.values())
  assert chi_square < 18.5  # p = .001 of 4 degrees of freedom


@pytest.mark.parametrize("rate, span, lengths", [
    (0.15, 3.0, (20,)), (0.5, 1.0, (12, 1, 2, 9)), (0.15, 3.0, (1, 1, 1)),
    (0.4, 8.0, (30, 5)), (0.9, 1.0, (3, 3, 3, 3, 3, 3))])
def test_source_and_target_are_the_text(rate, span, lengths):
  objective = Denoising(rate=rate, span=span)
  total = sum(lengths) + 2 * len(lengths)
  batch = row(*lengths, length=total)
  for seed in range(20):
    out = corrupted(objective, batch, seed)
    for number, count in enumerate(lengths, 1):
      here = out["example_ids"] == number
      ids = out["input_ids"][here].tolist()
      source, spans = spans_of(ids)
      hidden = min(max(1, round(count * rate)), count - 1)
      assert sum(map(len, spans)) == hidden
      filled = [token for piece in source for token in (
          spans.pop(0) if piece == MASK else [piece])]
      original = batch["input_ids"][0][batch["example_ids"][0] == number]
      assert filled == original.tolist() and not spans
      assert out["position_ids"][here].tolist() == list(range(len(ids)))
      written = len(ids) - len(source)
      assert out["order"][here].tolist() == (
          [0] * len(source) + list(range(1, written + 1)))
      assert out["cls_positions"][number - 1] == np.flatnonzero(here)[0]
      # All of the target but its first [MASK] is predicted.
      asked = [l for l, w in zip(out["next_positions"], out["next_weights"])
               if w and here[l]]
      assert [int(out["input_ids"][l + 1]) for l in asked] == ids[
          len(source) + 1:]
    np.testing.assert_array_equal(
        out["next_ids"][out["next_weights"] > 0],
        out["input_ids"][out["next_positions"] + 1][out["next_weights"] > 0])


def test_rows_too_long_for_the_positions_are_refused():
  recipe = tiny.recipe(Denoising())
  with pytest.raises(UserError, match="data.length smaller"):
    jax.eval_shape(recipe.init, np.int32(0), tiny.batch())


def test_prefix_asks_for_the_second_text_or_for_what_follows_a_cut():
  pair = row(9, length=16)
  pair["input_ids"][0, 5] = SEP
  out = corrupted(Prefix(), pair, 0)
  assert out["order"][:11].tolist() == [0] * 6 + [1, 2, 3, 4, 5]
  assert np.flatnonzero(out["next_weights"]).tolist() == [5, 6, 7, 8, 9]
  cuts = collections.Counter()
  for seed in range(300):
    out = corrupted(Prefix(), row(4, 1, length=16), seed)
    first = np.flatnonzero(out["order"][:6])[0]
    cuts[int(first)] += 1
    assert np.flatnonzero(out["next_weights"][:6]).tolist() == list(
        range(first - 1, 5))
    # Of a single token the end is left.
    assert out["order"][6:9].tolist() == [0, 0, 1]
  assert set(cuts) == {2, 3, 4} and min(cuts.values()) > 70
