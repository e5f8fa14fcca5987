"""Replaced-token detection against its paper, computed by numpy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bert_jax.config import UserError
from bert_jax.objectives.base import part_totals
from bert_jax.objectives.replaced_tokens import ReplacedTokens, _sampled
from bert_jax.training.param_paths import leaves
from tests import tiny
from tests.test_text_objectives import corrupted


def test_losses_and_gradients_equal_a_reference():
  """Cross entropy of the generator, binary one of all tokens, weighted."""
  objective = ReplacedTokens(weight=7.0)
  recipe, params, batch = corrupted(objective)
  outputs = jax.jit(recipe.network.apply)(params, batch)
  totals, pull = jax.vjp(lambda logits: part_totals(
      objective, {**outputs, **logits}, batch),
      {name: outputs[name] for name in ("mlm", "replaced")})
  gradients, = pull({"mlm": jnp.ones(()), "replaced": jnp.ones(())})

  logits = np.asarray(outputs["mlm"], np.float64)
  labels, weights = (np.asarray(batch[f"masked_{name}"])
                     for name in ("labels", "weights"))
  exponentials = np.exp(logits - logits.max(-1, keepdims=True))
  probability = exponentials / exponentials.sum(-1, keepdims=True)
  right = np.eye(tiny.SIZE)[labels]
  assert float(totals["mlm"]) == pytest.approx(
      -(np.log((probability * right).sum(-1)) * weights).sum(), rel=1e-5)
  np.testing.assert_allclose(
      gradients["mlm"], (probability - right) * weights[..., None], atol=1e-5)

  original = np.asarray(tiny.batch()["input_ids"])
  drawn = np.asarray(batch["input_ids"]).copy()
  tokens = np.asarray(_sampled(outputs["mlm"], batch["sample"]))
  for b, p in zip(*np.nonzero(weights)):
    drawn[b, batch["masked_positions"][b, p]] = tokens[b, p]
  is_replaced = drawn != original
  assert 0 < is_replaced.sum() < weights.sum()
  np.testing.assert_array_equal(outputs["is_replaced"], is_replaced)
  chance = 1 / (1 + np.exp(-np.asarray(outputs["replaced"], np.float64)))
  real = np.asarray(batch["example_ids"]) > 0
  loss = -np.where(is_replaced, np.log(chance), np.log1p(-chance))
  assert float(totals["replaced"]) == pytest.approx(
      7 * (loss * real).sum(), rel=1e-5)
  np.testing.assert_allclose(gradients["replaced"],
                             7 * (chance - is_replaced) * real, atol=1e-5)


@pytest.mark.parametrize("generator", ["tied", "untied"])
def test_detection_teaches_the_generator_nothing(generator):
  objective = ReplacedTokens(generator=generator)
  recipe, params, batch = corrupted(objective)
  gradient = jax.jit(jax.grad(lambda params: part_totals(
      objective, recipe.network.apply(params, batch), batch)["replaced"]))(
          params)
  for path, value in leaves(gradient).items():
    assert value.any() == path.startswith(("encoder/", "replaced/")) or (
        "pooler" in path), path


def test_tied_generator_has_the_tables_of_the_encoder():
  tied, params, batch = corrupted(ReplacedTokens(), hidden_size=32,
                                  num_attention_heads=8)
  paths = [path for path in leaves(params) if "generator/embeddings" in path]
  assert {path.split("/")[2] for path in paths} == {"projection"}
  untied, _, _ = corrupted(ReplacedTokens(generator="untied"), hidden_size=32,
                           num_attention_heads=8)
  own = {**params, "generator": {**params["generator"], "embeddings": {
      **params["encoder"]["embeddings"],
      **params["generator"]["embeddings"]}}}
  for one, other in zip(*(jax.tree.leaves(jax.jit(recipe.network.apply)(
      params, batch)) for recipe, params in ((tied, params), (untied, own)))):
    np.testing.assert_allclose(one, other, rtol=1e-5)


def test_tokens_are_drawn_as_the_generator_says():
  rng = np.random.default_rng(0)
  logits_V = rng.normal(0, 2, 12).astype(np.float32)
  draws = 20_000
  tokens = jax.jit(_sampled)(
      jnp.broadcast_to(logits_V, (1, draws, 12)),
      jnp.asarray(rng.random((1, draws)), jnp.float32))
  counts = np.bincount(np.asarray(tokens)[0], minlength=12)
  expected = draws * np.asarray(jax.nn.softmax(logits_V))
  assert ((counts - expected)**2 / expected).sum() < 31.3  # p = .001
  edges = jnp.asarray([[0.0, 1 - 2**-24]], jnp.float32)
  certain = jnp.full((1, 2, 12), -1e9).at[..., 5].set(0.0)
  assert _sampled(certain, edges).tolist() == [[5, 5]]


def test_random_tokens_need_no_generator():
  recipe, params, batch = corrupted(ReplacedTokens(generator="random"))
  assert set(params) == {"encoder", "replaced"}
  outputs = recipe.network.apply(params, batch)
  original = tiny.batch()["input_ids"]
  np.testing.assert_array_equal(outputs["is_replaced"],
                                np.asarray(batch["input_ids"]) != original)
  share = np.asarray(outputs["is_replaced"]).sum() / np.asarray(
      batch["masked_weights"]).sum()
  assert share > 0.9  # The rest are drawn as they were.
  for options in ({"generator": "tide"}, {"generator_size": 0.0}):
    with pytest.raises(UserError, match="objective.generator"):
      ReplacedTokens(**options)
