"""The parts of a layer against the papers, in float64 loops."""

import functools
import math
import operator

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bert_jax import config
from bert_jax.model import norms, positions
from bert_jax.model.bert import BertConfig
from bert_jax.model.feed_forward import (
    AUXILIARY, ExpertsFeedForward, GatedFeedForward)
from bert_jax.model.norms import LayerNorm, RmsNorm
from bert_jax.model.visibility import (
    AlternatingLocality, Context, WindowLocality, visible)

OPTIONS = BertConfig(vocab_size=9, hidden_size=8, num_attention_heads=2,
                     intermediate_size=6)
ROWS = np.array([[1, 1, 1, 2, 2, 0]])  # example ids
CONTEXT = Context(jnp.asarray(ROWS), None, jnp.arange(6)[None], None)


def random(*shape):
  return np.random.default_rng(0).normal(size=shape).astype(np.float32)


def run(module, *inputs):
  """Outputs on random parameters, the parameters, and the sown values."""
  shapes = jax.eval_shape(module.init, jax.random.key(0), *inputs)
  params = jax.tree.map(lambda x: random(*x.shape), shapes.get("params", {}))
  output, sown = module.apply({"params": params}, *inputs, mutable=[AUXILIARY])
  return np.asarray(output), params, sown


@pytest.mark.parametrize("fraction", [1.0, 0.5])
def test_rotary_positions_rotate_pairs(fraction):
  """Su et al. 2021, equation 15, with the pairs (k, k + n)."""
  x_BLHK, ids = random(1, 3, 2, 8), np.array([[0, 5, 2]])
  choice = positions.RotaryPositions(base=100.0, fraction=fraction)
  got, _, _ = run(choice.rotation(OPTIONS), x_BLHK, ids, 0)
  expected, n = x_BLHK.astype(np.float64), int(8 * fraction) // 2
  for place, position in enumerate(ids[0]):
    for k in range(n):
      turn = np.exp(1j * position * 100.0 ** (-2 * k / (2 * n)))
      pair = x_BLHK[0, place, :, k] + 1j * x_BLHK[0, place, :, k + n]
      expected[0, place, :, k] = (pair * turn).real
      expected[0, place, :, k + n] = (pair * turn).imag
  np.testing.assert_allclose(got, expected, atol=1e-6)


def test_rotary_scores_depend_on_the_distance_alone():
  turn = positions.RotaryPositions().rotation(OPTIONS)
  query, key = random(1, 1, 1, 8), random(1, 1, 1, 8)[..., ::-1]
  score = lambda i, j: np.sum(
      np.asarray(turn.apply({}, query, np.array([[i]]), 0))
      * np.asarray(turn.apply({}, key, np.array([[j]]), 0)))
  assert score(3, 7) == pytest.approx(score(103, 107), abs=1e-4)
  assert abs(score(3, 7) - score(7, 3)) > 1e-2


def test_alibi_slopes_are_the_published_ones():
  assert positions.slopes(8) == [2.0**-n for n in range(1, 9)]
  # 12 heads, as the authors' get_slopes(12).
  assert positions.slopes(12) == [2.0**-n for n in range(1, 9)] + [
      2.0**-(n + 0.5) for n in range(4)]
  bias_HA, _, _ = run(positions.Alibi(2), np.arange(-2, 3))
  np.testing.assert_allclose(bias_HA[1], -np.abs(np.arange(-2, 3)) / 256)


def test_distances_are_those_of_keys_after_their_queries():
  distances_HA = jnp.stack([jnp.arange(-3, 4), 10 + jnp.arange(-3, 4)])
  distance_LM = np.arange(4)[None] - np.arange(4)[:, None]
  np.testing.assert_array_equal(positions.by_pairs(distances_HA),
                                [[distance_LM, 10 + distance_LM]])


def test_relative_buckets_are_those_of_t5():
  """Mesh TensorFlow's _relative_position_bucket, a distance at a time."""
  def reference(distance, buckets=32, most=128):
    half = buckets // 2
    start, away = half * (distance > 0), abs(distance)
    if away < half // 2:
      return start + away
    wide = half // 2 + int(math.log(away / (half // 2)) / math.log(
        most / (half // 2)) * (half - half // 2))
    return start + min(wide, half - 1)

  distances = [d for d in range(-300, 301) if abs(d) not in (16, 32, 64)]
  got = positions.bucket(jnp.asarray(distances), 32, 128)
  assert got.tolist() == [reference(d) for d in distances]
  assert set(got.tolist()) == set(range(32)) - {16}


def test_gated_layer_is_geglu():
  """Shazeer 2020, equation 6: (GELU(x W) * x V) W2."""
  x_BLD = random(1, 6, 8)
  got, p, _ = run(GatedFeedForward().build(OPTIONS), x_BLD, CONTEXT)
  p = jax.tree.map(lambda a: a.astype(np.float64), p)
  gate = x_BLD @ p["gate"]["kernel"]
  gate = gate * (1 + np.vectorize(math.erf)(gate / math.sqrt(2))) / 2
  inner = gate * (x_BLD @ p["intermediate"]["kernel"])
  np.testing.assert_allclose(got, inner @ p["output"]["kernel"], atol=1e-5)


@pytest.mark.parametrize("choice", [RmsNorm(), RmsNorm(bias=True), LayerNorm(),
                                    LayerNorm(bias=False)], ids=str)
def test_norms_are_as_published(choice):
  x = random(2, 8) + 3
  got, p, _ = run(choice.build(1e-12), x)
  x = x.astype(np.float64)
  if isinstance(choice, LayerNorm):
    x = x - x.mean(-1, keepdims=True)
  expected = x / np.sqrt((x * x).mean(-1, keepdims=True)) * p["scale"]
  assert ("bias" in p) == choice.bias
  np.testing.assert_allclose(got, expected + p.get("bias", 0), atol=1e-5)


def test_experts_are_mixed_by_the_router():
  choice = ExpertsFeedForward(experts=4, top=2, balance=0.5)
  x_BLD = random(1, 6, 8)
  got, p, sown = run(choice.build(OPTIONS), x_BLD, CONTEXT)
  gelu = lambda x: x * (1 + np.vectorize(math.erf)(x / math.sqrt(2))) / 2
  chosen, probabilities = np.zeros((6, 4)), np.zeros((6, 4))
  for token, x in enumerate(x_BLD[0].astype(np.float64)):
    odds = np.exp(x @ p["router"]["kernel"])
    probabilities[token] = odds / odds.sum()
    best = np.argsort(odds)[-2:]
    chosen[token, best] = 1
    expected = sum(
        odds[g] / odds[best].sum()
        * gelu(x @ p["expert_intermediate"]["kernel"][g])
        @ p["expert_output"]["kernel"][g] for g in best)
    np.testing.assert_allclose(got[0, token], expected, atol=1e-5)
  loss = 4 / 2 * np.sum(chosen[:5].mean(0) * probabilities[:5].mean(0))
  assert sown[AUXILIARY]["expert_balance"][0] == pytest.approx(
      0.5 * loss * 5, rel=1e-5)


def test_visibility_is_example_order_and_reach():
  order = np.array([[0, 1, 2, 0, 0, 0]])
  got = np.asarray(visible(jnp.asarray(ROWS), jnp.asarray(order), 1))[0]
  for i in range(5):  # A padding query is free to see anything.
    for j in range(6):
      assert got[i, j] == (ROWS[0, i] == ROWS[0, j] and abs(i - j) <= 1
                           and order[0, j] <= order[0, i])
  everything = np.asarray(visible(jnp.asarray(ROWS)))[0]
  assert (everything[:5] == (ROWS[0, :5, None] == ROWS)).all()
  assert (everything[5] == (ROWS[0] != 0)).all()


def test_localities_reach_as_far_as_they_say():
  assert WindowLocality(3).reach(5) == 3
  alternating = AlternatingLocality(every=3, size=2, window_base=10.0)
  assert [int(alternating.reach(n)) for n in range(4)] == [
      2**31 - 1, 2, 2, 2**31 - 1]
  assert [float(alternating.rotary_base(n, 99.0)) for n in range(4)] == [
      99, 10, 10, 99]


@pytest.mark.parametrize("change, words", [
    (["stack=shared", "stack.groups=5"], "groups=5: num_hidden_layers=12"),
    (["stack=pattern", "stack.pattern=hidden_size=4"], "no option of a block"),
    (["feed_forward=experts", "feed_forward.top=9"], "top=9: from 1 to"),
    (["positions=rotray"], "did you mean 'rotary'"),
    (["locality=window", "locality.size=-1"], "size=-1: at least 0")])
def test_family_errors_say_what_is_allowed(change, words):
  with pytest.raises(config.UserError, match=words):
    config.override(OPTIONS, change)


@pytest.mark.parametrize("placement, expected", [
    ("post", 10 * (2 + 7 * 2)), ("pre", 2 + 7 * 10 * 2),
    ("sandwich", 2 + 100 * 7 * 10 * 2)])
def test_norm_placement_is_where_the_papers_have_it(placement, expected):
  """Vaswani et al. 2017; Xiong et al. 2020, figure 1; Ding et al. 2021, 2.4."""
  norm, outer_norm, sublayer = (
      functools.partial(operator.mul, factor) for factor in (10, 100, 7))
  assert norms.residual(placement, 2, sublayer, norm, outer_norm) == expected
  assert norms.finish(placement, 2, norm) == (2 if placement == "post" else 20)
