"""What holds for every objective that learns from text alone."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bert_jax.data.batches import spec
from bert_jax.model.inputs import Tokens, TokensInputs
from bert_jax.objectives.base import Objective, part_totals
from bert_jax.training import numerics
from bert_jax.training.step import row_keys
from tests import compared_layouts, tiny

PARTS = {"mlm_distillation": {"hard_weight": 0.5, "hidden_weight": 1.0,
                              "attention_weight": 1.0}}
OBJECTIVES = {name: member(**PARTS.get(name, {}))
              for name, member in Objective.members().items()
              if member.label_kind is None and "input_ids" in member.reads
              and member.__module__.startswith("bert_jax.")}
# Rows of denoising are longer than the text.
OPTIONS = dict(max_position_embeddings=64, hidden_dropout_prob=0.0,
               attention_probs_dropout_prob=0.0)
objectives = pytest.mark.parametrize("objective", OBJECTIVES.values(),
                                     ids=OBJECTIVES)


@dataclasses.dataclass(frozen=True)
class NudgedInputs(TokensInputs):
  """Tokens, with the batch's `nudge` (B, L, D) added to their vectors."""

  def build(self, options):
    return Nudged(options)


class Nudged(Tokens):

  def __call__(self, batch):
    return super().__call__(batch) + batch.get("nudge", 0.0)


def corrupted(objective, step: int = 0, **options):
  """A recipe, parameters that are not all alike, and a batch."""
  recipe = tiny.recipe(objective, **OPTIONS | options)
  batch = jax.tree.map(jnp.asarray, tiny.batch(step))
  params = jax.tree.map(
      lambda x: jnp.asarray(np.random.default_rng(x.size).normal(
          0, .3, x.shape), jnp.float32), jax.eval_shape(recipe.init, np.int32(0), batch).params)
  keys_B = row_keys(numerics.key(5), batch["row"])
  return recipe, params, recipe.inputs(batch, keys_B, np.int32(0))


def positions_of(objective, batch, name):
  """The position in its row of what a weight of a batch weighs."""
  shape = batch[name].shape
  match (spec.KEYS | objective.keys)[name].dimensions:
    case "L":
      return np.broadcast_to(np.arange(shape[1]), shape)
    case "P":
      return np.asarray(batch[name.replace("weights", "positions")])
    case "E":
      return np.asarray(batch["cls_positions"])


@objectives
def test_corruption_adds_the_declared_keys(objective):
  _, _, batch = corrupted(objective)
  before = tiny.batch()
  added = {key for key in batch if key not in before}
  # All objectives may have an order.
  assert added - {"order"} == set(objective.keys) - {"order"}
  for name, key in objective.keys.items():
    assert batch[name].dtype == key.dtype, name
    assert batch[name].ndim == 1 + len(key.dimensions), name
  tokens = batch["input_ids"].shape
  for name, key in (spec.KEYS | objective.keys).items():
    if key.dimensions == "L":
      assert batch[name].shape in (tokens, before["input_ids"].shape), name


@objectives
def test_example_loses_the_same_packed_and_alone(objective):
  recipe, params, batch = corrupted(objective)
  assert (batch["example_ids"].max(1) > 1).any()
  totals = jax.jit(lambda batch: part_totals(
      objective, recipe.network.apply(params, batch), batch))
  alone = []
  for example in (1, 2):
    of_example = np.asarray(batch["example_ids"]) == example
    kept = {**batch, "example_ids": np.where(of_example, example, 0)}
    for name in spec.weights(spec.KEYS | objective.keys, batch):
      here = np.take_along_axis(
          of_example, positions_of(objective, batch, name), 1)
      kept[name] = np.asarray(batch[name]) * here
    alone.append(totals(kept))
  for name, total in totals(batch).items():
    assert sum(part[name] for part in alone) == pytest.approx(
        float(total), rel=2e-5), name


def seen(objective, batch, example_L, l):
  """The positions that a prediction at position l may see, of a row."""
  here = example_L == example_L[l]
  if "order" in batch or objective.choice_name == "causal":
    order_L = np.asarray(batch.get("order", batch["position_ids"]))[0]
    here &= order_L <= order_L[l]
  return here


@objectives
def test_predictions_depend_on_no_input_that_is_hidden(objective):
  """Exactly: the gradient of each loss in the vectors of each token."""
  recipe, params, batch = corrupted(objective, inputs=NudgedInputs())
  row = int(np.argmax(np.asarray(batch["example_ids"]).max(1)))
  batch = jax.tree.map(lambda x: x[row:row + 1], dict(batch))
  tokens = batch["input_ids"].shape[1]
  weights = spec.weights(spec.KEYS | objective.keys, batch)
  example_L = np.asarray(batch["example_ids"])[0]

  def losses(nudge):
    outputs = recipe.network.apply(params, {**batch, "nudge": nudge})
    return jax.jacrev(lambda weights: part_totals(
        objective, outputs, {**batch, **weights}))(weights)

  nudge = jnp.zeros((1, tokens, tiny.MODEL.hidden_size))
  checked = 0
  for part, by_weight in jax.jit(jax.jacrev(losses))(nudge).items():
    for name, gradient in by_weight.items():
      gradient = np.abs(np.asarray(gradient)).max(-1)[0, :, 0]
      positions = positions_of(objective, batch, name)[0]
      for place in np.flatnonzero(np.asarray(weights[name])[0] > 0):
        l = int(positions[place])
        if objective.choice_name == "permutation" and part == "mlm":
          l = tokens - len(positions) + place  # where it is asked
        if not gradient[place].any():
          continue  # This part has no such weight.
        visible = seen(objective, batch, example_L, l)
        assert not gradient[place][~visible].any(), (part, place)
        assert (gradient[place][visible] > 0).all(), (part, place)
        checked += 1
  assert checked or objective.choice_name == "replaced_tokens"


@objectives
def test_answers_are_not_among_the_inputs(objective):
  """Other labels of hidden tokens leave all that the network says as it is."""
  recipe, params, batch = corrupted(objective)
  apply = jax.jit(recipe.network.apply)
  outputs = apply(params, batch)
  labels = [name for name in ("masked_labels", "next_sentence_labels")
            if name in batch]
  other = apply(params, {**batch, **{name: batch[name] ^ 1
                                     for name in labels}})
  for name in set(outputs) - {"is_replaced"}:
    np.testing.assert_array_equal(outputs[name], other[name], err_msg=name)


@pytest.mark.slow
@objectives
def test_one_device_and_a_mesh_with_microbatches_agree(objective):
  compared_layouts.assert_agree(objective, num_attention_heads=8, **OPTIONS)
