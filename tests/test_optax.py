"""Optimizers of optax: by name, by word, and as optax applies them."""

import dataclasses
import functools

import jax
import numpy as np
import optax
import pytest

from bert_jax import config
from bert_jax.config import UserError
from bert_jax.experiment import Experiment
from bert_jax.parallel.layouts import MeshLayout
from bert_jax.training.optax_optimizer import OptaxOptimizer
from bert_jax.training.optimizers import Lion, Muon, decayed
from bert_jax.training.param_paths import leaves
from tests import tiny


class Devices(MeshLayout):

  def devices(self):
    return jax.devices()[:self.data * self.tensor]


@functools.cache
def drawn(seed: int):
  """Parameters, or gradients, in the shapes of the tiny network."""
  rng = np.random.default_rng(seed)
  recipe = tiny.recipe()
  shape = jax.eval_shape(recipe.init, np.int32(0), tiny.batch()).params
  return jax.tree.map(lambda x: rng.normal(size=x.shape).astype(np.float32),
                      shape)


def updates(rule, of=lambda tree: tree):
  """The second update, by path, of the parameters that `of` selects."""
  state = rule.init(of(drawn(0)))
  with jax.numpy_dtype_promotion("standard"):
    for seed in (1, 2):
      update, state = jax.jit(rule.update)(of(drawn(seed)), state,
                                           of(drawn(0)))
  return leaves(jax.device_get(update))


def assert_close(actual, expected, **tolerance):
  for path, update in expected.items():
    np.testing.assert_allclose(actual[path], update, err_msg=path, **tolerance)


def test_lion_equals_that_of_optax():
  by_hand = updates(optax.lion(0.1, 0.9, 0.99, weight_decay=0.1, mask=decayed))
  ours = updates(Lion(clip_norm=0.0).build())
  assert_close({path: -0.1 * update for path, update in ours.items()}, by_hand,
               rtol=1e-5, atol=1e-7)
  named = updates(OptaxOptimizer(0.0, "lion", ("weight_decay=0.1",)).build())
  assert_close(named, ours, rtol=1e-5, atol=1e-7)


def test_muon_equals_that_of_optax_on_each_matrix():
  """Per layer, with concatenated heads; other parameters use Adam."""
  ours = updates(Muon(clip_norm=0.0, weight_decay=0.0).build())
  for path, columns in (("attention/query", 16), ("attention/output", 16),
                        ("intermediate", 32), ("output", 16)):
    path = f"encoder/layers/{path}/kernel"
    for layer in range(2):
      by_hand = updates(
          optax.contrib.muon(1.0, consistent_rms=0.2),
          lambda tree: leaves(tree)[path][layer].reshape(-1, columns))[""]
      np.testing.assert_allclose(ours[path][layer].reshape(by_hand.shape),
                                 -by_hand, atol=1e-5, err_msg=path)
  adam = updates(optax.adam(1.0, nesterov=True))
  for path in ("encoder/embeddings/word_embeddings/embedding", "nsp/kernel",
               "encoder/layers/output/bias"):
    np.testing.assert_allclose(ours[path], -adam[path], rtol=1e-4)


def test_weight_decay_skips_norms_and_biases():
  plain, decaying = (updates(OptaxOptimizer(0.0, "adamw", (
      f"weight_decay={rate}",)).build()) for rate in (0.0, 0.5))
  for path, update in decaying.items():
    decay = 0.0 if path.endswith(("bias", "scale")) else 0.5
    np.testing.assert_allclose(
        update, plain[path] + decay * leaves(drawn(0))[path], atol=1e-5,
        err_msg=path)


def trained(optimizer, layout):
  """Parameters before and after two steps."""
  recipe = dataclasses.replace(
      tiny.recipe(optimizer=optimizer), schedule=lambda step: 0.01)
  batch = tiny.batch()
  runner = layout.build(recipe, jax.eval_shape(recipe.init, np.int32(3), batch),
                        tiny.BATCH, batch)
  state = jax.jit(recipe.init, out_shardings=runner.shardings)(
      np.int32(3), batch)
  first = jax.device_get(state.params)
  for step in range(2):
    state, _ = runner.step(state, runner.put(tiny.batch(step)))
  return leaves(first), leaves(jax.device_get(state.params))


@pytest.mark.slow
def test_muon_trains_on_a_mesh_as_on_one_device():
  first, alone = trained(Muon(), Devices(1, 1, 1))
  _, split = trained(Muon(), Devices(2, 1, 2))
  for path, before in first.items():
    if path.endswith("kernel"):
      assert (alone[path] != before).any(), path
    if path.endswith("key/bias"):
      continue  # Its gradient is zero up to rounding, which has a sign.
    # Values near zero may have the other sign.
    same = np.isclose(split[path], alone[path], atol=1e-5)
    assert same.mean() > 0.99, (path, same.mean())


@pytest.mark.parametrize("overrides", [
    ["optimizer=lion"], ["optimizer=muon", "optimizer.rms=0.1"],
    ["optimizer=optax", "optimizer.name=adafactor"],
    ["optimizer=optax", "optimizer.name=radam",
     "optimizer.options=b1=0.95,nesterov=true"]], ids=" ".join)
def test_optimizers_are_chosen_by_one_word(overrides):
  experiment = config.override(Experiment(), overrides)
  assert config.override(Experiment(), config.changes(
      Experiment(), experiment)) == experiment
  experiment.optimizer.build()


@pytest.mark.parametrize("name, options, message", [
    ("lino", (), "name=lino: no optimizer.*did you mean 'lion'"),
    ("lion", ("beta=0.9",), "lion has the options b1=0.9,.*weight_decay=0.001"),
    ("lion", ("b1",), "optimizer.options=b1: lion has the options"),
    ("lion", ("b1=fast",), "name=lion optimizer.options=b1=fast: "),
    ("fromage", (), "fromage: its update is not proportional"),
    ("lbfgs", (), "optimizer.name=lbfgs")])
def test_bad_optimizer_options_name_the_valid_ones(name, options, message):
  with pytest.raises(UserError, match=message):
    OptaxOptimizer(name=name, options=options).build()
