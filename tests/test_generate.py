"""Texts that a network writes: with and without what it keeps, and by whom."""

import dataclasses
import itertools
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bert_jax import config
from bert_jax.analysis import generate
from bert_jax.analysis.generate import Decoding, Writer
from bert_jax.analysis.likelihood import likelihoods
from bert_jax.checkpoints.reading import Checkpoint
from bert_jax.config import UserError
from bert_jax.data.sources import TextData
from bert_jax.experiment import Experiment
from bert_jax.objectives.causal import Causal
from bert_jax.objectives.mlm import Mlm
from bert_jax.objectives.prefix import Prefix
from tests import tiny

TEXTS = ["abcdef", "xyz", ""]


class Letters:
  """A token for each letter."""

  vocabulary = tiny.VOCABULARY

  def encode(self, texts):
    return [[5 + ord(c) % 40 for c in text] for text in texts]

  def decode(self, ids):
    return " ".join(map(str, ids))


def trained(objective=Causal(), *options: str,
            scale: float = 0.5) -> Checkpoint:
  """Of random parameters."""
  model = config.override(
      dataclasses.replace(tiny.MODEL, num_hidden_layers=4), options)
  recipe = tiny.recipe(objective, **{
      field.name: getattr(model, field.name)
      for field in dataclasses.fields(model)})
  rng = np.random.default_rng(0)
  params = jax.tree.map(
      lambda x: jnp.asarray(rng.normal(0, scale, x.shape), jnp.float32),
      jax.eval_shape(recipe.init, np.int32(0), tiny.batch()).params)
  manifest = types.SimpleNamespace(
      tokenizer=Letters(), experiment=Experiment(
          model=model, objective=objective, data=TextData(length=24)))
  return Checkpoint(params, manifest, 0)


def writer(*arguments, **options) -> Writer:
  return Writer(trained(*arguments, **options))


@pytest.mark.parametrize("objective, options", [
    (Causal(), ()), (Prefix(), ()), (Causal(), ("positions=rotary",)),
    (Prefix(), ("positions=alibi",)),
    (Causal(), ("positions=relative_bias", "positions.buckets=8",
                "positions.max_distance=6")),
    (Causal(), ("locality=alternating", "locality.size=2",
                "locality.every=2")),
    (Causal(), ("stack=shared", "stack.groups=2")),
    (Causal(), ("stack=pattern", 'stack.pattern=["feed_forward=gated",""]')),
    (Causal(), ("norm_placement=pre", "scan_unroll=4"))],
    ids=lambda x: getattr(x, "choice_name", None) or " ".join(x) or "plain")
def test_kept_keys_and_values_change_nothing(objective, options):
  one = writer(objective, *options)
  steps = []
  for cache in (True, False):
    rows = one._rows(TEXTS, 8)
    logits = []
    for number, logits_BV in zip(range(8), one._steps(
        rows, Decoding(cache=cache))):
      logits.append(logits_BV)
      rows.append(np.array([5, 6, 7 + number], np.int32))
    steps.append(np.stack(logits))
  np.testing.assert_allclose(*steps, rtol=1e-5, atol=1e-5)
  greedy = Decoding(tokens=8, temperature=0)
  written = one.write(TEXTS, greedy)
  for text, alone in zip(written, TEXTS):  # A text in a batch is as alone.
    other, = one.write([alone], dataclasses.replace(greedy, cache=False))
    assert text.ids == other.ids and text.ended == other.ended
    np.testing.assert_allclose(text.nats, other.nats, rtol=1e-5)


def test_beams_find_the_likeliest_of_all_sequences():
  """With enough beams, as by trying each sequence of three tokens."""
  one = writer(scale=1.0)
  vocabulary = tiny.VOCABULARY
  allowed = [5, 6, 7, vocabulary.sep_id]
  one._mask_V = jnp.where(jnp.isin(jnp.arange(tiny.SIZE), jnp.array(allowed)),
                          0.0, -jnp.inf)
  best = one.write(["ab"], Decoding(tokens=3, beams=64))[0]
  ends, mask = {}, np.asarray(one._mask_V)
  for length in range(3):
    for ids in itertools.product(allowed[:3], repeat=length):
      rows, nats = one._rows(["ab"], 4), []
      for id_, logits_BV in zip([*ids, vocabulary.sep_id],
                                one._steps(rows, Decoding(cache=False))):
        nats.append(-float(jax.nn.log_softmax(logits_BV[0] + mask)[id_]))
        rows.append(np.array([id_], np.int32))
      ends[ids] = np.mean(nats)
  assert tuple(best.ids) == min(ends, key=ends.get) and best.ended
  assert np.mean(best.nats) == pytest.approx(min(ends.values()), rel=1e-4)


def test_choices_are_ranked_by_what_the_loss_says():
  one = writer()
  prompt, choice = "abc", "xy"
  ids, = Letters().encode([prompt + choice])
  batch = {name: np.zeros((1, 8), np.int32) for name in (
      "input_ids", "token_type_ids", "example_ids", "position_ids")}
  batch["input_ids"][0, :6] = [tiny.VOCABULARY.cls_id, *ids]
  batch["position_ids"][0, :6] = np.arange(6)
  batch["example_ids"][0, :6] = 1
  recipe = tiny.recipe(Causal(), num_hidden_layers=4)
  batch = recipe.inputs(jax.tree.map(jnp.asarray, batch), None, None)
  outputs = recipe.network.apply(one.params, batch)
  assert one.rank(prompt, [choice])[0] == pytest.approx(
      -float(outputs["next_token"][0, 3:5].sum()), rel=1e-5)


def test_draws_keep_to_the_likeliest_tokens():
  logits_V = np.log(np.array([.4, .3, .2, .1], np.float32))
  draw = jax.jit(lambda key, top_k, top_p: generate._choose(
      jnp.broadcast_to(logits_V, (4000, 4)), key, jnp.float32(1), top_p,
      top_k=top_k, greedy=False)[0], static_argnums=1)
  for top_k, top_p, kept in ((0, 1.0, 4), (2, 1.0, 2), (0, .5, 2), (0, .71, 3),
                             (3, .5, 2), (0, 1e-6, 1)):
    ids = np.asarray(draw(jax.random.key(0), top_k, jnp.float32(top_p)))
    expected = np.exp(logits_V[:kept]) / np.exp(logits_V[:kept]).sum()
    counts = np.bincount(ids, minlength=4)
    assert not counts[kept:].any()
    np.testing.assert_allclose(counts[:kept] / 4000, expected, atol=.04)


def test_networks_that_do_not_write_are_refused():
  with pytest.raises(UserError, match="objective=mlm does not write"):
    writer(Mlm())
  with pytest.raises(UserError, match="24 positions; write at most 17"):
    writer().write(TEXTS, Decoding(tokens=18))
  with pytest.raises(UserError, match="top_p=0"):
    Decoding(top_p=0)


def test_likelihood_of_a_causal_network_is_the_sum_over_its_tokens():
  saved = trained(Causal())
  longer, shorter = likelihoods(saved, ["abcde", "xy"])
  assert (longer.tokens, longer.bytes) == (6, 5)
  one = writer()
  rank = one.rank("", ["abcde"])[0]
  rows = one._rows(["abcde"], 1)
  end = jax.nn.log_softmax(next(one._steps(rows, Decoding()))[0])[
      tiny.VOCABULARY.sep_id]
  assert longer.log_probability == pytest.approx(rank + float(end), rel=1e-5)
  assert shorter == likelihoods(saved, ["xy"])[0]
  assert longer.bits_per_byte == pytest.approx(
      -longer.log_probability / np.log(2) / 5)


def test_pseudo_likelihood_masks_each_token_alone():
  saved = trained(Mlm())
  recipe = tiny.recipe(Mlm(), num_hidden_layers=4)
  ids = [tiny.VOCABULARY.cls_id, *Letters().encode(["abc"])[0],
         tiny.VOCABULARY.sep_id]
  total = 0.0
  for place in (1, 2, 3):
    seen = [tiny.VOCABULARY.mask_id if i == place else id_
            for i, id_ in enumerate(ids)]
    logits_BPV = recipe.network.apply(saved.params, {
        "input_ids": jnp.array([seen]), "token_type_ids": jnp.zeros((1, 5), int),
        "example_ids": jnp.ones((1, 5), int),
        "position_ids": jnp.arange(5)[None],
        "masked_positions": jnp.array([[place]])})["mlm"]
    total += float(jax.nn.log_softmax(logits_BPV[0, 0])[ids[place]])
  result, = likelihoods(saved, ["abc"])
  assert result.log_probability == pytest.approx(total, rel=1e-5)
  assert result.tokens == 3
  with pytest.raises(UserError, match="objective=prefix gives texts no"):
    likelihoods(trained(Prefix()), ["abc"])
  with pytest.raises(UserError, match="Text 2 has 32 tokens"):
    likelihoods(saved, ["abc", "a" * 30])
