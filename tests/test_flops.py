"""FLOPs against XLA's compiled program, and how loops count."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bert_jax import config
from bert_jax.config import UserError
from bert_jax.data.sources import TextData
from bert_jax.experiment import Experiment, workload
from bert_jax.objectives.base import Objective
from bert_jax.parallel.mesh import make_mesh
from bert_jax.training.flops import count_flops
from bert_jax.training.optimizers import Optimizer
from bert_jax.training.step import train_step
from tests import tiny
from tests.compiled_flops import of_products

# Dropout has no products and takes most of the compiling.
EXPERIMENT = Experiment(
    model=dataclasses.replace(tiny.MODEL, hidden_dropout_prob=0.0,
                              attention_probs_dropout_prob=0.0),
    data=TextData(length=tiny.LENGTH), batch_size=8)
# What an objective cannot do without.
NEEDED = {
    "denoising": ["model.max_position_embeddings=64"],
    "mlm_sop": ["data.format=ordered_pairs"],
    "reconstruction": ["model.inputs=values", "model.inputs.width=3"]}


@pytest.mark.slow
@pytest.mark.parametrize("change", [
    [*NEEDED.get(name, []), f"objective={name}"]
    for name, member in Objective.members().items()
    if member.__module__.startswith("bert_jax.")]
    + [["adapter=lora"], ["optimizer=muon"],
       ["objective=mlm_distillation", "objective.hidden_weight=1",
        "objective.attention_weight=1"]], ids="".join)
def test_objectives_adapters_and_muon_cost_what_xla_computes(change):
  work = workload(config.override(EXPERIMENT, [
      "optimizer=sgd", *change, "data.examples_per_row=2",
      "model.num_hidden_layers=1"]))
  step = functools.partial(train_step, work.recipe)
  batch = work.rows(4)
  state = jax.eval_shape(work.recipe.init, np.int32(0), batch)
  program = jax.jit(step).lower(state, batch).compile().as_text()
  assert count_flops(step, state, batch) == pytest.approx(
      of_products(program), rel=0.01)


def test_products_cost_what_xla_says():
  def f(x, kernel):
    return jax.nn.relu(x @ kernel).sum()

  x, kernel = (jax.ShapeDtypeStruct((512, 512), jnp.float32),) * 2
  gradient = jax.value_and_grad(f, (0, 1))
  cost = jax.jit(gradient).lower(x, kernel).compile().cost_analysis()
  assert count_flops(gradient, x, kernel) == 3 * 2 * 512**3
  assert cost["flops"] == pytest.approx(3 * 2 * 512**3, rel=0.01)


def test_loops_count_trips_and_branches_their_maximum():
  x = jnp.ones((4, 4))
  product = 2 * 4**3
  twice = lambda x: x @ x @ x
  assert count_flops(lambda x: jax.lax.scan(
      lambda c, _: (c @ c, None), x, length=5)[0], x) == 5 * product
  assert count_flops(lambda x: jax.lax.fori_loop(
      0, 7, lambda _, c: jax.jit(jnp.matmul)(c, c), x), x) == 7 * product
  assert count_flops(lambda x: jax.lax.cond(
      x.sum() > 0, twice, lambda x: x, x), x) == 2 * product
  wave = lambda x: jnp.sin(jnp.sin(x @ x) @ x).sum()
  assert count_flops(jax.value_and_grad(wave), x) == 6 * product
  assert count_flops(jax.value_and_grad(jax.checkpoint(wave)),
                     x) == 8 * product
  assert count_flops(lambda x: (x @ x, x)[1], x) == 0  # Dead code.
  with pytest.raises(UserError, match="while loop"):
    count_flops(lambda x: jax.lax.while_loop(
        lambda c: c.sum() < 9, lambda c: c @ c, x), x)


def test_shard_map_counts_every_device():
  rows = jax.sharding.PartitionSpec("data")
  local = jax.shard_map(lambda x: x @ x.T @ x, mesh=make_mesh(8),
                        in_specs=rows, out_specs=rows)
  assert count_flops(local, jnp.ones((16, 4))) == 8 * 2 * 2 * (2 * 4 * 2)


def test_microbatches_and_scanned_layers_change_nothing():
  flops = lambda **options: count_flops(functools.partial(
      train_step, tiny.recipe(**options)), jax.eval_shape(
          tiny.recipe(**options).init, np.int32(0), tiny.batch()),
      tiny.batch())
  assert flops() == flops(microbatches=4) == flops(
      scan_unroll=tiny.MODEL.num_hidden_layers)


def test_optimizer_flops_are_counted():
  flops = lambda name: workload(config.override(EXPERIMENT, [
      f"optimizer={name}", "model.num_hidden_layers=1"])).flops
  assert {flops(name) for name in Optimizer.members()
          if name != "muon"} == {flops("sgd")}
  assert flops("muon") > flops("sgd")
