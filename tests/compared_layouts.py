"""One device against a mesh with microbatches."""

import dataclasses

import jax
import numpy as np
import pytest

from bert_jax.metrics import weighted
from bert_jax.parallel.layouts import MeshLayout
from bert_jax.training.param_paths import leaves
from tests import tiny


class Devices(MeshLayout):

  def devices(self):
    return jax.devices()[:self.data * self.fsdp * self.tensor]


def two_steps(objective, layout, microbatches: int = 1, **options):
  """Parameters and values after two steps."""
  recipe = dataclasses.replace(
      tiny.recipe(objective, microbatches=microbatches, **options),
      schedule=lambda step: 0.1)
  state = jax.eval_shape(recipe.init, np.int32(0), tiny.batch())
  runner = layout.build(recipe, state, tiny.BATCH, tiny.batch())
  state = jax.jit(recipe.init, out_shardings=runner.shardings)(
      np.int32(3), tiny.batch())
  for step in range(2):
    state, means = runner.step(state, runner.put(tiny.batch(step)))
  return (leaves(jax.device_get(state.params)),
          weighted.summarize(jax.device_get(means)))


def assert_agree(objective, **options):
  params, values = two_steps(objective, Devices(1, 1, 1), **options)
  other_params, other_values = two_steps(objective, MeshLayout(2, 2, 2), 2,
                                         **options)
  for path, value in params.items():
    np.testing.assert_allclose(other_params[path], value, atol=2e-6,
                               err_msg=path)
  assert other_values == pytest.approx(values, rel=2e-5)
