"""Objectives of several networks, and losses that blocks add."""

import dataclasses
import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bert_jax.metrics import weighted
from bert_jax.model.encoder import Encoder
from bert_jax.objectives.base import AUXILIARY, with_order
from bert_jax.objectives.causal import Causal
from bert_jax.objectives.mlm import Mlm
from bert_jax.objectives.replaced_tokens import ReplacedTokens
from bert_jax.training.adapters import Lora
from bert_jax.training.finetuning import Finetuning
from bert_jax.training.optimizers import DECAYED
from bert_jax.training.param_paths import expand, first_match, leaves
from bert_jax.training.param_rates import Rates
from bert_jax.training.step import evaluation_step, row_losses, train_step
from tests import compared_layouts, tiny


class Sower(nn.Module):

  @nn.compact
  def __call__(self, x_BLD, real_BL):
    length_BL = jnp.square(x_BLD).mean(-1)
    self.sow(AUXILIARY, "length", (length_BL * real_BL).sum(-1))


@dataclasses.dataclass(frozen=True)
class _WithLength(Mlm):
  """MLM with a per-token loss that a module inside the network adds."""

  def logits(self, encoder, sequence_output_BLD, batch, keys_B):
    real_BL = (batch["example_ids"] > 0).astype(sequence_output_BLD.dtype)
    Sower(name="sower")(sequence_output_BLD, real_BL)
    return super().logits(encoder, sequence_output_BLD, batch, keys_B)


def electra():
  return ReplacedTokens(generator="untied", generator_size=0.5)


def shape(objective, **options):
  recipe = tiny.recipe(objective, **options)
  return recipe, jax.eval_shape(recipe.init, np.int32(0), tiny.batch())


@pytest.mark.slow
def test_layouts_agree_on_auxiliary_losses():
  compared_layouts.assert_agree(_WithLength(), hidden_dropout_prob=0.0,
                                attention_probs_dropout_prob=0.0)


def test_network_name_heads_its_paths():
  _, state = shape(electra())
  heads = {path.partition("/")[0] for path in leaves(state.params)}
  assert heads == {"encoder", "generator", "mlm", "replaced"}


def test_tables_know_every_network():
  """Weight decay, layer rates, LoRA, frozen and reinitialized layers."""
  recipe, state = shape(electra())
  layers = {name: model.num_hidden_layers
            for name, model in recipe.networks.items()}
  rates = Rates(Finetuning(frozen="^generator/", layer_decay=0.5).tables(
      layers)).of(state.params)
  assert not any(rate.any() for path, rate in rates.items()
                 if path.startswith("generator/"))
  assert rates["encoder/layers/output/bias"].tolist() == [0.25, 0.5]
  assert rates["encoder/embeddings/norm/bias"].tolist() == [0.125]
  assert rates["replaced/classifier/kernel"].tolist() == [1.0]
  reinitialized = Finetuning(reinitialize_layers=1).reinitialized(layers)
  assert reinitialized == "^encoder/layers/1/|^generator/layers/1/"
  lora = Lora()
  grown = lora.grow(jax.tree.map(lambda x: np.zeros(x.shape, x.dtype),
                                 state.params), jax.random.key(0))
  trained = Rates(lora.tables(layers)).of(grown)
  for path, leaf in leaves(grown).items():
    small = "lora_" in path or "layers" not in path and (
        "embeddings" not in path)
    assert bool(trained[path].any()) == small, path
    for table in (DECAYED, *lora.tables(layers)):
      assert [first_match(table, part) for part in expand(path, leaf)]


def test_losses_of_blocks_are_named_parts_over_all_tokens():
  recipe, state = shape(_WithLength())
  batch = tiny.batch()
  state = jax.jit(recipe.init)(np.int32(0), batch)
  _, means = jax.jit(functools.partial(train_step, recipe))(state, batch)
  total, weight = map(float, means["length_loss"])
  assert weight == (batch["example_ids"] > 0).sum()
  # Each vector is the output of a norm with its initial scale of 1.
  assert total / weight == pytest.approx(1.0, abs=0.01)
  values = weighted.summarize(means)
  assert values["loss"] == pytest.approx(
      values["mlm_loss"] + values["length_loss"])
  _, parts, _ = jax.jit(functools.partial(row_losses, recipe))(state, batch)
  assert float(parts["length"].total.sum()) == pytest.approx(total,
                                                             rel=1e-5)
  empty = {key: np.zeros_like(value) for key, value in batch.items()}
  evaluated, _ = jax.jit(functools.partial(evaluation_step, recipe))(
      state.params, empty)
  assert evaluated["length_loss"] == (0.0, 0.0)


def test_objective_order_limits_visibility():
  recipe, _ = shape(Causal(), hidden_dropout_prob=0.0)
  batch = tiny.batch()
  params = jax.jit(recipe.init)(np.int32(0), batch).params
  seen = lambda recipe, batch: jax.jit(
      lambda params, batch: Encoder(recipe.model).apply(
          {"params": params["encoder"]}, with_order(recipe.objective, batch)))(
              params, batch)
  position = 6
  changed = dict(batch, input_ids=batch["input_ids"].copy())
  changed["input_ids"][:, position] = 7
  later_BL = ((batch["example_ids"] == batch["example_ids"][:, [position]])
              & (batch["position_ids"] >= batch["position_ids"][:, [position]]))
  moved_BL = np.abs(seen(recipe, changed) - seen(recipe, batch)).max(-1) > 0
  real_BL = batch["example_ids"] > 0
  assert not (moved_BL & real_BL & ~later_BL).any()
  both_ways, _ = shape(Mlm(), hidden_dropout_prob=0.0)
  moved_BL = np.abs(seen(both_ways, changed) - seen(both_ways, batch)).max(-1)
  assert (moved_BL > 0)[real_BL & ~later_BL].any()
