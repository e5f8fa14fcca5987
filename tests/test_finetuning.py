"""Frozen and reinitialized parameters, learning rates by path, and LoRA."""

import dataclasses
import functools
import re
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bert_jax.checkpoints.reading import Checkpoint
from bert_jax.config import UserError
from bert_jax.experiment import Experiment
from bert_jax.objectives.base import Objective
from bert_jax.objectives.classification import (
    Classification, MultiLabel, MultipleChoice, Tagging)
from bert_jax.objectives.network import Network
from bert_jax.objectives.regression import Regression
from bert_jax.objectives.span import Span
from bert_jax.parallel import mesh
from bert_jax.parallel.layouts import MeshLayout, PmapLayout
from bert_jax.parallel.rules import SHARDING_RULES
from bert_jax.runs import heads, initialize
from bert_jax.training.adapters import Lora, NoAdapter
from bert_jax.training.finetuning import Finetuning, layer_rates
from bert_jax.training.optimizers import AdamW, DECAYED, Optimizer, Sgd
from bert_jax.training.param_paths import expand, leaves, look_up
from bert_jax.training.param_rates import Rates
from bert_jax.training.step import Recipe, TrainState, train_step
from tests import tiny

LAYERS = tiny.MODEL.num_hidden_layers
COUNTS = {"encoder": LAYERS}
LORA = Lora(rank=2, alpha=6.0, targets="query|value|attention/output")
MIXED = Finetuning(frozen="word_embeddings|layers/0/attention/",
                   lr_multipliers=("embeddings/norm/bias$=4", "bias$=2"),
                   layer_decay=0.5)


def recipe(finetuning=Finetuning(), adapter=NoAdapter(),
           optimizer: Optimizer = Sgd(clip_norm=0.0)) -> Recipe:
  plain = tiny.recipe(Classification(("a", "b")), optimizer,
                      hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
  return dataclasses.replace(
      plain, network=adapter.adapt(plain.network),
      rates=Rates(adapter.tables() + finetuning.tables(COUNTS)))


def batch(step: int = 0):
  rows = tiny.batch(step)
  return rows | {"labels": rows["next_sentence_labels"]}


def shape(recipe: Recipe):
  return jax.eval_shape(recipe.init, np.int32(0), batch())


@functools.cache
def drawn():
  """Random parameters of the plain network, without compiling."""
  rng = np.random.default_rng(0)
  return jax.tree.map(lambda x: rng.normal(size=x.shape).astype(np.float32),
                      shape(recipe()).params)


class Square(Objective):
  """Half the square of every parameter, whose gradient is the parameter."""

  network = Network(None, lambda params, batch, keys_B: {"square": sum(
      jnp.sum(jnp.square(x)) / 2 for x in jax.tree.leaves(params))})

  def weights(self, batch):
    return {"square": jnp.ones(())}

  def losses(self, logits, batch):
    return logits


def by_layer(tree):
  """Every layer of every parameter by its expanded path."""
  by_path = {}
  for path, leaf in leaves(tree).items():
    parts = expand(path, leaf)
    by_path |= dict(zip(parts, leaf if len(parts) > 1 else [leaf]))
  return by_path


@pytest.mark.parametrize("table", [
    layer_rates(COUNTS, 0.9), *LORA.tables(), *MIXED.tables(COUNTS)[:1],
    SHARDING_RULES, DECAYED],
    ids=["decay of layers", "lora", "frozen", "layout", "weight decay"])
def test_tables_match_every_parameter_once(table):
  stacked = table in (SHARDING_RULES, DECAYED)
  for path, leaf in leaves(shape(recipe(adapter=LORA)).params).items():
    for part in [path] if stacked else expand(path, leaf):
      matching = [p for p, _ in table if re.search(p, part)]
      assert len(matching) == 1, (part, matching)


def test_layer_decay_slows_lower_layers():
  """By one power per layer, the top layer included."""
  table = layer_rates({"encoder": 12}, 0.9)
  rate = functools.partial(look_up, table)
  assert rate("classifier/kernel") == rate("encoder/pooler/bias") == 1
  assert rate("encoder/layers/11/output/kernel") == 0.9
  assert rate("encoder/layers/1/output/kernel") == 0.9**11
  assert rate("encoder/layers/0/output/kernel") == 0.9**12
  assert rate("encoder/embeddings/norm/scale") == 0.9**13


def test_rates_equal_hand_made_steps():
  """Frozen parameters keep their bytes, the others move by their rate, and the
  gradient norm covers only what is trained."""
  one = dataclasses.replace(recipe(MIXED), network=Square.network,
                            objective=Square())
  state = TrainState(np.int32(0), np.int32(0), drawn(),
                     one.optimizer.init(one.rates.trained(drawn())))
  state, means = jax.jit(functools.partial(train_step, one))(state, batch())
  before, after = by_layer(drawn()), by_layer(jax.device_get(state.params))
  squares = 0.0
  for path, old in before.items():
    if "word_embeddings" in path or "layers/0/attention/" in path:
      assert old.tobytes() == after[path].tobytes(), path
      continue
    rate = (4 if path.endswith("embeddings/norm/bias") else
            2 if path.endswith("bias") else 1)
    rate *= (0.125 if "embeddings" in path else 0.25 if "layers/0" in path
             else 0.5 if "layers/1" in path else 1)
    np.testing.assert_allclose(after[path], (1 - 0.5 * rate) * old, rtol=1e-6,
                               err_msg=path)
    squares += np.square(old).sum()
  assert means["gradient_norm"].total == pytest.approx(squares**0.5, rel=1e-5)


@pytest.mark.parametrize("optimizer", [m() for m in
                                       Optimizer.members().values()],
                         ids=Optimizer.members())
def test_frozen_parameters_have_no_moments(optimizer):
  moments = leaves(shape(recipe(MIXED, optimizer=optimizer)).opt_state)
  unfrozen = leaves(shape(recipe(optimizer=optimizer)).opt_state)
  assert not [path for path in moments if "word_embeddings" in path]
  for path, leaf in moments.items():
    layers = 1 if "layers/attention/" in path else LAYERS
    assert leaf.shape == ((layers, *unfrozen[path].shape[1:])
                          if "layers" in path else unfrozen[path].shape)


def test_step_can_be_mapped_over_members():
  """As a sweep does, with many runs in one program."""
  one = recipe(MIXED, LORA, AdamW())
  step = functools.partial(train_step, one)
  several = lambda tree: jax.tree.map(
      lambda x: jax.ShapeDtypeStruct((3, *x.shape), x.dtype), tree)
  states, batches = several(shape(one)), several(batch())
  new, _ = jax.eval_shape(jax.vmap(step), states, batches)
  assert jax.tree.map(lambda x: x.shape, new) == jax.tree.map(
      lambda x: x.shape, states)


@pytest.mark.parametrize("finetuning, message", [
    (Finetuning(frozen="embedings"),
     "'embedings' .* no parameter.*layers/0..1/"),
    (Finetuning(lr_multipliers=("bias=2", "query/bias=1")),
     "'query/bias' .* no param"),
    (Finetuning(frozen="a|e|i|o"), "nothing is left to train")])
def test_patterns_without_effect_are_refused(finetuning, message):
  with pytest.raises(UserError, match=re.compile(message, re.DOTALL)):
    shape(recipe(finetuning))


@pytest.mark.parametrize("options, message", [
    ({"frozen": "layers/["}, "frozen: .* no regular expression"),
    ({"lr_multipliers": ("bias",)},
     "lr_multipliers=bias: expected a pattern and a multiplier"),
    ({"lr_multipliers": ("bias=fast",)}, "lr_multipliers=bias=fast"),
    ({"layer_decay": 1.1}, "layer_decay=1.1"),
    ({"reinitialize_layers": -1}, "at least 0")])
def test_bad_options_are_refused(options, message):
  with pytest.raises(UserError, match=message):
    Finetuning(**options)


def test_start_from_reinitializes_layers_and_keeps_heads_that_fit():
  fresh = drawn()
  other = jax.tree.map(lambda x: x + 1, fresh)
  other["classifier"] = {"kernel": np.zeros((16, 3)), "bias": np.zeros(3)}
  del other["encoder"]["pooler"]
  params, new = initialize.start_from(
      Checkpoint(other, None, 7), fresh,
      Finetuning(reinitialize_layers=1).reinitialized(COUNTS))
  before, after = by_layer(fresh), by_layer(params)
  reset = [path for path in before
           if re.match("encoder/layers/1/|encoder/pooler/|classifier/", path)]
  assert sorted(new) == sorted(reset)
  for path, value in after.items():
    np.testing.assert_array_equal(value, before[path] + (path not in reset))
  assert Finetuning(
      reinitialize_pooler=True).reinitialized(COUNTS) == "^encoder/pooler/"
  with pytest.raises(UserError, match="network encoder has 2 layers"):
    Finetuning(reinitialize_layers=3).reinitialized(COUNTS)


NLI, SORTED = ("entailment", "neutral", "contradiction"), (
    "contradiction", "entailment", "neutral")


@pytest.mark.parametrize("there, here, rows, said", [
    (Classification(NLI), Classification(SORTED), (2, 0, 1),
     "kept none; moved contradiction (2 to 0), entailment (0 to 1), neutral "
     "(1 to 2)"),
    (Classification(NLI), Classification(NLI), (0, 1, 2),
     "kept entailment, neutral, contradiction; moved none"),
    (Tagging(("O", "B-x", "I-x")), Tagging(("B-x", "I-x", "O")), (1, 2, 0),
     "moved B-x (1 to 0), I-x (2 to 1), O (0 to 2)"),
    (MultiLabel(("A", "B", "C")), MultiLabel(("a", "c", "b")), (0, 2, 1),
     "kept a; moved c (2 to 1), b (1 to 2)"),  # as models of the hub spell them
    (MultipleChoice(("a", "b", "c")), MultipleChoice(("0", "1")), (0, 1, 2),
     "nothing."),
    (Classification(NLI), Classification(("bad", "good", "ugly")), None,
     "other labels, classification entailment, neutral, contradiction; here it "
     "is for classification bad, good, ugly"),
    (Classification(tuple("abc")), Classification(tuple("aAb")), None, "other"),
    (Tagging(NLI), Classification(NLI), None, "other labels, tagging"),
    (Span(), Classification(NLI), None, "other labels, span none; here"),
    (Regression(), MultipleChoice(NLI), None, "other labels, regression none")])
def test_outputs_of_a_head_keep_their_labels(there, here, rows, said):
  """Kept by name and not by place, and only by what has the same names."""
  saved = Checkpoint(
      jax.tree.map(lambda x: x + 1, three_outputs()),
      types.SimpleNamespace(experiment=Experiment(objective=there)), 7)
  one, notes = recipe(), []
  one = dataclasses.replace(one, network=one.network._replace(
      init=lambda key, batch: jax.tree.map(jnp.asarray, three_outputs())))
  fresh = types.SimpleNamespace(
      experiment=Experiment(objective=here, init_from="w"), recipe=one,
      seed=lambda: np.int32(0), row=batch)
  alone = jax.sharding.NamedSharding(
      mesh.make_mesh(1, devices=jax.devices()[:1]),
      jax.sharding.PartitionSpec())
  state = initialize.first_state(fresh, jax.tree.map(
      lambda _: alone, jax.eval_shape(one.init, np.int32(0), batch())),
      saved, notes.append)
  expected = saved.params | {"classifier": three_outputs()["classifier"]
      if rows is None else jax.tree.map(
          lambda x: x[..., list(rows)], saved.params["classifier"])}
  jax.tree.map(np.testing.assert_array_equal, state.params, expected)
  assert said in notes[-1], notes


def three_outputs():
  """Parameters whose classifier has three different outputs."""
  rng = np.random.default_rng(0)
  return drawn() | {"classifier": {
      "kernel": rng.normal(size=(16, 3)).astype(np.float32),
      "bias": rng.normal(size=3).astype(np.float32)}}


@pytest.mark.parametrize("labels, rows, said", [
    (SORTED, (2, 0, 1), ""), (NLI, (0, 1, 2), ""),
    (("x", "y", "z"), (0, 1, 2), "entailment is x, neutral is y"),
    (("x", "neutral", "z"), None, "the labels of this network are entailment,"),
    (("x", "y"), None, "allowed: these in any order")])
def test_overridden_labels_move_or_rename_outputs(labels, rows, said, caplog):
  saved = Checkpoint(three_outputs(), types.SimpleNamespace(
      experiment=Experiment(objective=Classification(NLI))), 7)
  if rows is None:
    with pytest.raises(UserError, match=said):
      heads.rename_head(saved, Classification(labels))
    return
  renamed = heads.rename_head(saved, Classification(labels))
  jax.tree.map(np.testing.assert_array_equal, renamed.params["classifier"],
               jax.tree.map(lambda x: x[..., list(rows)],
                            saved.params["classifier"]))
  assert said in caplog.text and bool(said) == bool(caplog.text)


def test_labels_of_a_head_differ():
  for member in (Classification, Tagging, MultiLabel, MultipleChoice):
    with pytest.raises(UserError, match="objective.labels has a more than on"):
      member(("a", "b", "a"))


def run(layout, steps: int = 2):
  """LoRA's parameters before and after some steps with some layers frozen."""
  one = recipe(Finetuning(frozen="layers/0/.*query"), LORA, Sgd())
  runner = layout.build(one, shape(one), tiny.BATCH, batch())
  params = LORA.grow(drawn(), jax.random.key(0))
  state = TrainState(np.int32(0), np.int32(0), params,
                     one.optimizer.init(one.rates.trained(params)))
  state = mesh.place(jax.device_get(state), runner.shardings)
  for step in range(steps):
    state, _ = runner.step(state, runner.put(batch(step)))
  return jax.device_get((params, state.params))


@functools.cache
def on_a_mesh():
  return run(MeshLayout(2, 2, 2))


def test_lora_changes_only_what_is_small():
  before, after = map(by_layer, on_a_mesh())
  for path, old in before.items():
    small = re.search("lora_|pooler|classifier", path)
    frozen = not small or re.search("layers/0/.*query", path)
    assert (old.tobytes() == after[path].tobytes()) == bool(frozen), path
  small = sum(x.size for path, x in before.items() if "lora" in path)
  assert small == LAYERS * 3 * 2 * 16 * LORA.rank  # 3 kernels of 16 x 16


def test_lora_starts_as_the_network_and_merges_to_one():
  plain, adapted = recipe().network, recipe(adapter=LORA).network
  before, after = on_a_mesh()
  forward = jax.jit(lambda network, params: network.apply(
      params, batch())["classifier"], static_argnums=0)
  logits = lambda *arguments: np.asarray(forward(*arguments))
  base = logits(plain, drawn())
  np.testing.assert_array_equal(logits(adapted, before), base)
  merged = LORA.merge(after)
  assert jax.tree.structure(merged) == jax.tree.structure(drawn())
  trained = logits(adapted, after)
  assert np.abs(trained - base).max() > 1e-3
  np.testing.assert_allclose(logits(plain, merged), trained, atol=1e-6)
  jax.tree.map(np.testing.assert_array_equal, LORA.merge(merged), merged)
  old, new, large = (tree["encoder"]["layers"]["attention"]["output"]
                     for tree in (before, after, merged))
  np.testing.assert_allclose(
      large["kernel"][1].reshape(16, 16), old["kernel"][1].reshape(16, 16)
      + 3.0 * new["lora_a"][1] @ new["lora_b"][1], atol=1e-6)


def test_lora_is_equal_on_a_mesh_and_with_pmap():
  jax.tree.map(functools.partial(np.testing.assert_allclose, atol=2e-6, rtol=0),
               run(PmapLayout())[1], on_a_mesh()[1])


@pytest.mark.parametrize("options, message", [
    ({"rank": 0}, "adapter.rank=0"), ({"targets": "("}, "no regular express"),
    ({"targets": "qwery"}, "matches no kernel.*layers/attention/query/kernel")])
def test_lora_that_adapts_nothing_is_refused(options, message):
  with pytest.raises(UserError, match=re.compile(message, re.DOTALL)):
    shape(recipe(adapter=Lora(**options)))
