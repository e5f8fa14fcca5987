"""A training step: a pure function of state and batch on every layout."""

import functools

import jax
import numpy as np
import pytest

from bert_jax.config import UserError
from bert_jax.metrics import weighted
from bert_jax.parallel.layouts import MeshLayout, PmapLayout, ShardMapLayout
from bert_jax.training.optimizers import BertAdam
from bert_jax.training.step import evaluation_step, train_step
from tests import tiny
from tests.small_run import FirstDevices


def run(layout, microbatches: int = 1, steps: int = 2):
  """Parameters and means after some steps; with dropout and uneven masks."""
  recipe = tiny.recipe(microbatches=microbatches)
  batch = tiny.batch()
  shape = jax.eval_shape(recipe.init, np.int32(3), batch)
  runner = layout.build(recipe, shape, tiny.BATCH, batch)
  state = jax.jit(recipe.init, out_shardings=runner.shardings)(
      np.int32(3), batch)
  for step in range(steps):
    state, pairs = runner.step(state, runner.put(tiny.batch(step)))
  return (jax.device_get(state.params),
          weighted.summarize(weighted.merge([jax.device_get(pairs)])))


@functools.cache
def one_device():
  return run(FirstDevices())


@pytest.mark.parametrize("layout, microbatches", [
    (FirstDevices(), 4), (MeshLayout(1, 8, 1), 1), (MeshLayout(2, 2, 2), 2),
    (PmapLayout(), 2), (ShardMapLayout(), 2)],
    ids=["accumulation 4", "fsdp 8", "2 x 2 x 2, accumulation 2",
         "pmap 8, accumulation 2",
         "shard_map 8, accumulation 2"])
def test_step_is_the_same_on_every_layout(layout, microbatches):
  """With plain SGD the parameters show all of the gradients."""
  params, means = one_device()
  other_params, other_means = run(layout, microbatches)
  # As parts of the largest update, which clipping makes of the order of 1.
  jax.tree.map(functools.partial(np.testing.assert_allclose, atol=1e-6,
                                 rtol=0), other_params, params)
  for name, value in means.items():
    np.testing.assert_allclose(other_means[name], value, rtol=2e-6)


def test_step_changes_all_params():
  recipe = tiny.recipe(optimizer=BertAdam())
  batch = tiny.batch()
  state = jax.jit(recipe.init)(np.int32(0), batch)
  new, _ = jax.jit(functools.partial(train_step, recipe))(state, batch)
  moved = jax.tree.map(lambda a, b: bool((a != b).any()), state.params,
                       new.params)
  assert all(jax.tree.leaves(moved)), moved
  assert int(new.step) == 1


def test_step_compiled_as_users_do_is_the_same():
  """All other tests compile with few optimizations."""
  recipe, batch = tiny.recipe(), tiny.batch()
  state = jax.jit(recipe.init)(np.int32(0), batch)
  step = jax.jit(functools.partial(train_step, recipe))
  usual = step.lower(state, batch).compile(
      {"xla_backend_optimization_level": 3})
  jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=2e-6,
                                 atol=1e-6), step(state, batch),
               usual(state, batch))


def test_random_numbers_depend_on_seed_step_and_row():
  recipe = tiny.recipe()
  batch = tiny.batch()
  step = jax.jit(functools.partial(train_step, recipe))
  state = jax.jit(recipe.init)(np.int32(0), batch)
  loss = lambda state, batch: weighted.summarize(step(state, batch)[1])["loss"]
  first = loss(state, batch)
  assert loss(state, batch) == first
  assert loss(state.replace(seed=np.int32(1)), batch) != first
  assert loss(state.replace(step=np.int32(1)), batch) != first
  assert loss(state, {**batch, "row": batch["row"] + 1}) != first


def test_evaluation_masks_depend_on_the_row_alone():
  recipe = tiny.recipe()
  batch = tiny.batch()
  state = jax.jit(recipe.init)(np.int32(0), batch)
  evaluate = jax.jit(lambda batch: evaluation_step(recipe, state.params,
                                                   batch)[0])
  complete = weighted.merge([evaluate(batch)])
  part = lambda rows: {key: value[rows] for key, value in batch.items()}
  pad = lambda b: {k: np.concatenate([v, np.zeros_like(v)])
                   for k, v in b.items()}
  halves = weighted.merge([evaluate(pad(part(slice(0, 8)))),
                           evaluate(pad(part(slice(8, 16))))])
  for name, (total, weight) in complete.items():
    assert halves[name][1] == weight
    np.testing.assert_allclose(halves[name][0], total, rtol=1e-5)


def test_batch_that_cannot_be_split_is_refused():
  with pytest.raises(UserError, match="batch_size=12 .* nearest .* 8 and 16"):
    MeshLayout(data=8).build(tiny.recipe(), jax.eval_shape(
        tiny.recipe().init, np.int32(0), tiny.batch()), 12, tiny.batch())
