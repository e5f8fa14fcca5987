"""A training step: a pure function of state and batch on every layout."""

import functools

import jax
import numpy as np
import pytest

from bert_jax.config import UserError
from bert_jax.metrics import weighted
from bert_jax.model.attention import FlashAttention
from bert_jax.model.positions import RelativeBiasPositions
from bert_jax.parallel.layouts import (
    MeshLayout, PmapLayout, ShardMapLayout, overwritten)
from bert_jax.training.step import Recipe, evaluation_step
from tests import tiny
from tests.small_run import FirstDevices, equal


@functools.cache
def recipe(microbatches: int, **options) -> Recipe:
  """Of a loss that one row of the first batch, `ill_row`, could make NaN."""
  return tiny.recipe(tiny.Ill(divisor=ill_row()[1]), microbatches=microbatches,
                     **options)


def ill_row() -> tuple[int, int]:
  """A row of the first batch, and what divides the sum of its tokens alone."""
  sum_B = tiny.batch()["input_ids"].sum(axis=1)
  return next((i, int(s)) for i, s in enumerate(sum_B)
              if (sum_B % s == 0).sum() == 1)


def well(batch):
  """The batch with another token in that row."""
  batch = {**batch, "input_ids": batch["input_ids"].copy()}
  batch["input_ids"][ill_row()[0], 1] += 1
  return batch


@functools.cache
def started(layout, microbatches: int, **options):
  """What takes steps, and what makes its first state."""
  steps_of = recipe(microbatches, **options)
  shape = jax.eval_shape(steps_of.init, np.int32(3), tiny.batch())
  runner = layout.build(steps_of, shape, tiny.BATCH, tiny.batch())
  return runner, jax.jit(steps_of.init, out_shardings=runner.shardings)


@functools.cache
def run(layout, microbatches: int, **options):
  """Parameters and means after two steps; with dropout and uneven masks."""
  runner, first = started(layout, microbatches, **options)
  state = first(np.int32(3), tiny.batch())
  for step in range(2):
    state, pairs = runner.step(state, runner.put(well(tiny.batch(step))))
  return (jax.device_get(state.params),
          weighted.summarize(weighted.merge([jax.device_get(pairs)])))


on_layouts = pytest.mark.parametrize("layout, microbatches", [
    pytest.param(MeshLayout(1, 8, 1), 1, marks=pytest.mark.slow),
    (MeshLayout(2, 2, 2), 2), (PmapLayout(), 2), (ShardMapLayout(), 1)],
    ids=["fsdp 8", "2 x 2 x 2, accumulation 2", "pmap 8, accumulation 2",
         "shard_map 8"])


@on_layouts
def test_step_is_the_same_on_every_layout(layout, microbatches):
  """With plain SGD the parameters show all of the gradients."""
  assert_same(run(layout, microbatches), run(FirstDevices(), 1))


@pytest.mark.slow
@on_layouts
def test_step_with_the_kernel_is_the_same_on_every_layout(layout,
                                                          microbatches):
  """And learned biases of scores have the same gradient, which devices share
  and each has a part of."""
  positions = RelativeBiasPositions()
  assert_same(run(layout, microbatches, positions=positions,
                  attention=FlashAttention(interpret=True)),
              run(FirstDevices(), 1, positions=positions))


def assert_same(other, expected):
  """Of results of `run`."""
  (other_params, other_means), (params, means) = other, expected
  # As parts of the largest update, which clipping makes of the order of 1.
  jax.tree.map(functools.partial(np.testing.assert_allclose, atol=1e-6,
                                 rtol=0), other_params, params)
  for name, value in means.items():
    np.testing.assert_allclose(other_means[name], value, rtol=2e-6)


@on_layouts
def test_non_finite_step_changes_nothing(layout, microbatches):
  """If a single row, of one device and microbatch, has a NaN loss."""
  (runner, first), batch = started(layout, microbatches), tiny.batch()
  state = first(np.int32(0), batch)
  before = jax.device_get(state)
  state, pairs = runner.step(state, runner.put(batch))
  after, pairs = jax.device_get(state), jax.device_get(pairs)
  equal((after.params, after.opt_state), (before.params, before.opt_state))
  assert int(after.step) == 1 and float(pairs["skipped"][0]) == 1
  assert not any(np.any(x) for name, pair in pairs.items()
                 if name != "skipped" for x in pair)
  state, pairs = runner.step(state, runner.put(well(batch)))
  assert float(jax.device_get(pairs)["skipped"][0]) == 0
  moved = jax.tree.map(lambda a, b: bool(np.any(a != b)), before.params,
                       jax.device_get(state.params))
  assert all(jax.tree.leaves(moved)), moved
  # Where every token is unknown, every layout says that nothing was predicted.
  unknown = {**batch, "input_ids": np.where(
      batch["input_ids"] > 4, tiny.VOCABULARY.unk_id, batch["input_ids"])}
  _, pairs = runner.step(state, runner.put(unknown))
  assert weighted.without_weight(jax.device_get(pairs)) == ["mlm_loss"]


@pytest.mark.slow
def test_step_compiled_as_users_do_is_the_same():
  """All other tests compile with few optimizations."""
  (runner, first), batch = started(FirstDevices(), 1), well(tiny.batch())
  batch = runner.put(batch)
  usual = runner.step.lower(first(np.int32(0), batch), batch).compile(
      {"xla_backend_optimization_level": 3})
  jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=2e-6,
                                 atol=1e-6),
               runner.step(first(np.int32(0), batch), batch),
               usual(first(np.int32(0), batch), batch))


def test_random_numbers_depend_on_seed_step_and_row():
  (runner, first), batch = started(FirstDevices(), 1), well(tiny.batch())

  def loss(rows=batch["row"], **of_state) -> float:
    state = first(np.int32(0), batch).replace(**of_state)
    _, pairs = runner.step(state, runner.put({**batch, "row": rows}))
    return weighted.summarize(jax.device_get(pairs))["loss"]

  usual = loss()
  assert loss() == usual
  for other in ({"seed": np.int32(1)}, {"step": np.int32(1)},
                {"rows": batch["row"] + 1}):
    assert loss(**other) != usual


def test_evaluation_masks_depend_on_the_row_alone():
  batch = tiny.batch()
  params = started(FirstDevices(), 1)[1](np.int32(0), batch).params
  evaluate = jax.jit(lambda batch: evaluation_step(recipe(1), params,
                                                   batch)[0])
  batch = well(batch)
  complete = weighted.merge([evaluate(batch)])
  # At other places of the batch, too.
  part = lambda rows: {key: np.concatenate([x[rows], np.zeros_like(x[rows])])
                       for key, x in batch.items()}
  halves = weighted.merge([evaluate(part(slice(0, 8))),
                           evaluate(part(slice(8, 16)))])
  for name, (total, weight) in complete.items():
    assert halves[name][1] == weight
    np.testing.assert_allclose(halves[name][0], total, rtol=1e-5)


@pytest.mark.parametrize("version, backend, places", [
    ((0, 7, 2), "cpu", ()), ((0, 7, 2), "tpu", (0,)),
    ((0, 10, 2), "cpu", (0,))])
def test_state_is_kept_where_overwriting_it_is_wrong(
    version, backend, places, monkeypatch):
  monkeypatch.setattr(jax, "__version_info__", version)
  monkeypatch.setattr(jax, "default_backend", lambda: backend)
  assert overwritten() == places


def test_batch_that_cannot_be_split_is_refused():
  with pytest.raises(UserError, match="batch_size=12 .* nearest .* 8 and 16"):
    MeshLayout(data=8).build(tiny.recipe(), jax.eval_shape(
        tiny.recipe().init, np.int32(0), tiny.batch()), 12, tiny.batch())
