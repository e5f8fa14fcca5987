"""Optimizers, schedules, and the tables over parameter paths."""

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

from bert_jax.checkpoints.checksums import checksums
from bert_jax.objectives.classification import Tagging
from bert_jax.objectives.mlm import MlmNsp
from bert_jax.parallel import mesh, rules
from bert_jax.training import param_paths
from bert_jax.training.optimizers import AdamW, BertAdam, DECAYED, Optimizer
from bert_jax.training.schedules import (
    ConstantSchedule, CosineSchedule, LinearSchedule, Schedule,
    TrapezoidSchedule)
from tests import tiny


@functools.cache
def parameters(objective=MlmNsp()):
  recipe = tiny.recipe(objective)
  return jax.eval_shape(recipe.init, np.int32(0), tiny.batch()).params


@pytest.mark.parametrize("table", [DECAYED, rules.SHARDING_RULES],
                         ids=["decay", "layout"])
@pytest.mark.parametrize("objective", [MlmNsp(), Tagging(labels=("O", "B"))])
def test_tables_match_every_parameter_once(table, objective):
  for path in param_paths.leaves(parameters(objective)):
    matching = [p for p, _ in table if re.search(p, path)]
    assert len(matching) == 1, (path, matching)


def test_parameter_without_a_rule_is_replicated_and_named():
  params = {"encoder": {"novel": {"weight": jnp.ones((8, 8))}},
            "classifier": {"kernel": jnp.ones((8, 8))}}
  specs = param_paths.leaves(jax.tree.map(
      lambda x: x.spec, rules.shardings(params, mesh.make_mesh(2, 2, 2))))
  assert all(not any(spec) for spec in specs.values())
  assert rules.without_rule(params) == ["encoder/novel/weight"]


@pytest.mark.parametrize("optimizer", [m() for m in
                                       Optimizer.members().values()],
                         ids=Optimizer.members())
def test_optimizers_reduce_the_loss(optimizer):
  rule = optimizer.build()
  loss = lambda p: jnp.sum(jnp.square(p["a"]["kernel"] - 1.0))
  params = {"a": {"kernel": jnp.zeros(3)}}
  state = rule.init(params)
  before = loss(params)
  for _ in range(5):
    updates, state = rule.update(jax.grad(loss)(params), state, params)
    params = jax.tree.map(lambda p, u: p - 0.01 * u, params, updates)
  assert loss(params) < before


@pytest.mark.parametrize("choice", [BertAdam(), AdamW()],
                         ids=lambda choice: choice.choice_name)
def test_adam_is_as_published(choice):
  """Against Google's optimization.py and torch's AdamW, written in float64."""
  rng = np.random.default_rng(0)
  gradients = rng.normal(size=(4, 5)) * 0.01  # below the clipping norm
  kernel, bias = np.ones(5), np.ones(5)
  m, v = np.zeros(5), np.zeros(5)
  optimizer = choice.build()
  params = {"kernel": jnp.ones(5), "bias": jnp.ones(5)}
  state = optimizer.init(params)
  for t, gradient in enumerate(gradients, 1):
    m, v = .9 * m + .1 * gradient, .999 * v + .001 * gradient**2
    scale = (1, 1) if choice == BertAdam() else (1 - .9**t, 1 - .999**t)
    update = (m / scale[0]) / (np.sqrt(v / scale[1]) + 1e-6)
    kernel, bias = kernel - .1 * (update + .01 * kernel), bias - .1 * update
    updates, state = optimizer.update(
        {name: jnp.asarray(gradient, jnp.float32) for name in params}, state,
        params)
    params = jax.tree.map(lambda p, u: p - 0.1 * u, params, updates)
  np.testing.assert_allclose(params["kernel"], kernel, rtol=1e-5)
  np.testing.assert_allclose(params["bias"], bias, rtol=1e-5)


def test_clipping_is_by_the_norm_of_all_gradients():
  optimizer = tiny.recipe().optimizer
  params = {"a": jnp.zeros(1), "b": jnp.zeros(1)}
  updates, _ = optimizer.update({"a": jnp.full(1, 3.), "b": jnp.full(1, 4.)},
                                optimizer.init(params), params)
  np.testing.assert_allclose([*updates["a"], *updates["b"]],
                             [.6, .8], rtol=1e-6)


@pytest.mark.parametrize("schedule, last", [
    (LinearSchedule(1.0, 0.1), 1 / 90), (CosineSchedule(1.0, 0.1, 0.5), 0.5),
    (ConstantSchedule(1.0, 0.1), 1.0),
    (TrapezoidSchedule(1.0, 0.1, 0.2), 1 / 18)])
def test_schedules_count_updates(schedule, last):
  rate = schedule.build(100)
  assert [float(rate(n)) for n in (0, 5, 10)] == pytest.approx([0, .5, 1])
  assert float(rate(99)) == pytest.approx(last, abs=1e-3)


def test_every_schedule_works_without_warmup():
  for member in Schedule.members().values():
    assert float(member(1e-3, 0.0).build(10)(0)) == pytest.approx(1e-3)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16, jnp.int32])
def test_checksum_detects_changes_on_every_placement(dtype):
  array = jnp.arange(1, 97).reshape(8, 12).astype(dtype)
  expected = checksums({"a": array})
  for spec in (P("data"), P(None, "tensor"), P(("data", "fsdp"), "tensor")):
    placed = jax.device_put(array, jax.sharding.NamedSharding(
        mesh.make_mesh(2, 2, 2), spec))
    assert checksums({"a": placed}) == expected
  assert checksums({"a": np.asarray(array)}) == expected
  swapped = array.at[0].set(array[1]).at[1].set(array[0])
  changed = [array.at[3, 5].set(0), swapped, array.T.reshape(8, 12)]
  assert expected["a"] not in [checksums({"a": x})["a"] for x in changed]
