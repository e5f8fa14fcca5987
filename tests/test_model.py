"""The model against an independent one, and its guarantees for rows."""

import dataclasses
import functools
import math

import flax.linen as nn
import flax.traverse_util
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bert_jax.config import UserError
from bert_jax.model.attention import Attention, FlashAttention
from bert_jax.model.bert import BertConfig
from bert_jax.model.encoder import Encoder
from bert_jax.model.heads import ClassificationHead, MlmHead
from bert_jax.model.norms import LayerNorm
from bert_jax.model.positions import NoPositions, SinusoidalPositions
from bert_jax.model.dropout import dropout

SMALL = BertConfig(
    vocab_size=50, hidden_size=16, num_hidden_layers=2, num_attention_heads=2,
    intermediate_size=32, max_position_embeddings=24,
    scan_unroll=1)
B, L, P = 4, 12, 3
KEYS = "input_ids", "token_type_ids", "position_ids", "example_ids"


class Heads(nn.Module):
  """The encoder with every head."""

  options: BertConfig

  @nn.compact
  def __call__(self, batch, keys_B=None):
    encoder = Encoder(self.options, name="encoder")
    positions = batch["position_ids"]
    x_BLD = encoder(batch, keys_B)
    mlm = MlmHead(self.options, name="mlm")(
        x_BLD, positions[:, :P], encoder.word_embeddings())
    pooled_BED = encoder.pool(x_BLD, {**batch, "cls_positions":
                                        positions[:, :1]})
    head = ClassificationHead(self.options, 5, 0.5, name="classifier")
    return x_BLD, mlm, head(pooled_BED, keys_B)


def make_rows(rng):
  """Rows of one example each, of different lengths."""
  lengths = np.arange(B) * 2 + P + 1
  examples = (np.arange(L) < lengths[:, None]).astype(np.int32)
  positions = np.broadcast_to(np.arange(L, dtype=np.int32), (B, L))
  ids, types = rng.integers([[[0]], [[0]]], [[[50]], [[2]]], (2, B, L))
  return as_batch(ids, types, positions, examples)


def as_batch(*arrays):
  return {key: jnp.asarray(x, jnp.int32) for key, x in zip(KEYS, arrays)}


@functools.partial(jax.jit, static_argnums=0)
def apply(options, params, rows, keys_B=None):
  return Heads(options).apply({"params": params}, rows, keys_B)


@functools.cache
def parameters(options):
  """Random parameters, the biases and norms among them."""
  rng = np.random.default_rng(0)
  rows = make_rows(rng)
  shapes = jax.eval_shape(Heads(options).init, jax.random.key(0), rows)
  return jax.tree.map(
      lambda x: jnp.asarray(rng.normal(0, 0.3, x.shape), jnp.float32),
      shapes["params"])


def numpy_bert(params, rows, heads):
  """BERT as published, in float64 and without any of our code."""
  params = jax.tree.map(lambda x: np.asarray(x, np.float64), params)
  ids, types, positions, examples = (np.asarray(rows[key]) for key in KEYS)
  erf = np.vectorize(math.erf)

  def norm(x, p):
    x = x - x.mean(-1, keepdims=True)
    return x / np.sqrt((x * x).mean(-1, keepdims=True) + 1e-12) * p[
        "scale"] + p["bias"]

  gelu = lambda x: x * (1 + erf(x / math.sqrt(2))) / 2
  line = lambda x, p: x @ p["kernel"] + p["bias"]
  encoder = params["encoder"]
  tables = encoder["embeddings"]
  x = norm(tables["word_embeddings"]["embedding"][ids]
           + tables["token_type_embeddings"]["embedding"][types]
           + tables["position_embeddings"]["embedding"][positions],
           tables["norm"])
  layers = encoder["layers"]
  for n in range(len(layers["output"]["bias"])):
    p = jax.tree.map(lambda a: a[n], layers)
    mixed = np.zeros_like(x)
    for h in range(heads):
      q, k, v = (x @ p["attention"][name]["kernel"][:, h]
                 + p["attention"][name]["bias"][h]
                 for name in ("query", "key", "value"))
      score = q @ k.transpose(0, 2, 1) / math.sqrt(q.shape[-1])
      weight = np.exp(score) * (examples[:, None] > 0)
      weight /= weight.sum(-1, keepdims=True)
      mixed += weight @ v @ p["attention"]["output"]["kernel"][h]
    x = norm(x + mixed + p["attention"]["output"]["bias"],
             p["attention_norm"])
    x = norm(x + line(gelu(line(x, p["intermediate"])), p["output"]),
             p["output_norm"])
  y = norm(gelu(line(x[:, :P], params["mlm"]["transform"])),
           params["mlm"]["norm"])
  y = y @ tables["word_embeddings"]["embedding"].T + params["mlm"]["bias"]
  pooled = np.tanh(line(x[:, :1], encoder["pooler"]))
  return x, y, line(pooled, params["classifier"])


def test_model_equals_an_independent_bert():
  rows = make_rows(np.random.default_rng(1))
  got = apply(SMALL, parameters(SMALL), rows)
  for x, expected in zip(got, numpy_bert(parameters(SMALL), rows, heads=2)):
    np.testing.assert_allclose(x, expected, rtol=0, atol=1e-5)


attentions = pytest.mark.parametrize("attention", [
    FlashAttention(interpret=True) if member is FlashAttention else member()
    for member in Attention.members().values()], ids=lambda a: a.choice_name)


@attentions
@pytest.mark.parametrize("norm_placement", ["post", "pre"])
def test_packed_rows_equal_rows_of_their_own(attention, norm_placement):
  options = dataclasses.replace(SMALL, attention=attention,
                                norm_placement=norm_placement)
  lengths = (5, 4, 2)
  rng = np.random.default_rng(2)
  ids, types = rng.integers([[0], [0]], [[50], [2]], (2, sum(lengths)))
  packed, alone = np.zeros((2, 4, 3, L), np.int32)
  start = 0
  for row, length in enumerate(lengths):
    one = np.stack([ids[start:start + length], types[start:start + length],
                    np.arange(length), np.full(length, row + 1)])
    packed[:, 0, start:start + length] = one
    alone[:, row, :length] = one
    start += length
  run = lambda rows: apply(options, parameters(options),
                           as_batch(*rows))[0]
  together_LD, apart_BLD = run(packed)[0], run(alone)
  apart_LD = np.concatenate(
      [apart_BLD[row, :length] for row, length in enumerate(lengths)])
  np.testing.assert_allclose(together_LD[:sum(lengths)], apart_LD, rtol=0,
                             atol=2e-6)


@attentions
def test_row_of_padding_has_finite_outputs_and_gradients(attention):
  options = dataclasses.replace(SMALL, attention=attention)
  rows = make_rows(np.random.default_rng(3))
  rows["example_ids"] = rows["example_ids"].at[0].set(0)
  loss = lambda params: sum(x.sum() for x in apply(options, params, rows))
  value, gradient = jax.value_and_grad(loss)(parameters(options))
  assert jnp.isfinite(value)
  assert all(jnp.isfinite(g).all() for g in jax.tree.leaves(gradient))


@attentions
def test_dropout_of_a_row_does_not_depend_on_the_batch(attention):
  options = dataclasses.replace(SMALL, attention=attention)
  rows = make_rows(np.random.default_rng(4))
  keys_B = jax.random.split(jax.random.key(0), B)
  run = functools.partial(apply, options, parameters(options))
  outputs = run(rows, keys_B)
  halves = [run({key: x[part] for key, x in rows.items()}, keys_B[part])
            for part in (slice(2), slice(2, 4))]
  for x, parts in zip(outputs, zip(*halves)):
    np.testing.assert_allclose(x, np.concatenate(parts), rtol=0, atol=2e-6)
  for x, plain in zip(outputs, run(rows)):
    assert np.abs(x - plain).max() > 0.1


@pytest.mark.parametrize("rate", [0.1, 0.5])
def test_dropout_keeps_the_expectation_and_has_a_stream_for_each_site(rate):
  keys_B = jax.random.split(jax.random.key(1), 8)
  drop = lambda keys_B, site: np.asarray(
      dropout(jnp.ones((8, 50, 513)), rate, keys_B, site))
  x = drop(keys_B, 0)
  dropped = np.mean(x == 0)
  assert abs(dropped - rate) < 0.004
  assert set(np.unique(x)) == {np.float32(0), np.float32(1 / (1 - rate))}
  assert abs(x.mean() - 1) < 0.004
  # Independent: two masks, two rows, two parts of a row.
  for other in (drop(keys_B, 1), x[::-1], np.roll(x, 13, axis=1),
                np.roll(x, 1, axis=1), np.roll(x, 1, axis=2)):
    assert abs(np.mean((x == 0) & (other == 0)) - dropped**2) < 0.004


def test_backward_pass_of_dropout_keeps_no_mask():
  x, keys_B = jnp.ones((8, 4, 50, 60)), jax.random.split(jax.random.key(1), 8)
  backward = jax.eval_shape(lambda x: jax.vjp(
      lambda x: dropout(x, 0.1, keys_B, 0), x)[1], x)
  assert all(kept.size < x.size // 100 for kept in jax.tree.leaves(backward))


def test_layers_draw_different_masks():
  options = dataclasses.replace(
      SMALL, num_hidden_layers=3, norm_placement="pre", hidden_dropout_prob=0.5)
  rows = make_rows(np.random.default_rng(5))
  # Each layer adds its mask, and nothing else, to its input.
  params = flax.traverse_util.path_aware_map(
      lambda path, x: jnp.full_like(x, path[-3:] == (
          "layers", "output", "bias")), parameters(options)["encoder"])
  states_NBLD = Encoder(options).apply(
      {"params": params}, rows, jax.random.split(jax.random.key(0), B),
      method="hidden_states")
  first, second = (np.diff(states_NBLD[:3], axis=0) > 0)
  assert 0.2 < np.mean(first & second) < 0.3


def test_initial_parameters_are_those_of_the_paper():
  options = BertConfig(vocab_size=1000, hidden_size=128, num_hidden_layers=2,
                 num_attention_heads=2, intermediate_size=512)
  rows = make_rows(np.random.default_rng(0))
  params = jax.jit(Heads(options).init)(jax.random.key(0), rows)["params"]
  for path, x in flax.traverse_util.flatten_dict(params, sep="/").items():
    if path.endswith("bias"):
      assert not x.any(), path
    elif path.endswith("scale"):
      assert (x == 1).all(), path
    else:
      # A normal distribution cut at two deviations has .8796 of its deviation.
      assert np.abs(x).max() <= 0.04, path
      assert abs(x.std() / (0.02 * 0.8796) - 1) < 6 / math.sqrt(x.size), path
  layers = params["encoder"]["layers"]["output"]["kernel"]
  assert np.abs(layers[0] - layers[1]).max() > 0.01


def test_parameter_paths_and_shapes_are_stable():
  got = jax.tree.map(jnp.shape, parameters(SMALL))["encoder"]["layers"]
  assert got == {
      "attention": {
          **{name: {"kernel": (2, 16, 2, 8), "bias": (2, 2, 8)}
             for name in ("query", "key", "value")},
          "output": {"kernel": (2, 2, 8, 16), "bias": (2, 16)}},
      "intermediate": {"kernel": (2, 16, 32), "bias": (2, 32)},
      "output": {"kernel": (2, 32, 16), "bias": (2, 16)},
      **{name: {"scale": (2, 16), "bias": (2, 16)}
         for name in ("attention_norm", "output_norm")}}


def test_without_biases_outputs_alone_have_one():
  options = dataclasses.replace(SMALL, use_bias=False, embedding_size=8,
                                norm=LayerNorm(bias=False))
  shapes = jax.eval_shape(Heads(options).init, jax.random.key(0),
                          make_rows(np.random.default_rng(0)))["params"]
  assert {path for path in flax.traverse_util.flatten_dict(shapes, sep="/")
          if path.endswith("bias")} == {"mlm/bias", "classifier/bias"}


@pytest.mark.parametrize("change", [
    {"hidden_act": "gelu_new"}, {"hidden_act": "relu"}, {"hidden_act": "silu"},
    {"hidden_act": "tanh"}, {"positions": SinusoidalPositions()},
    {"positions": NoPositions()}, {"norm_placement": "pre"}])
def test_each_option_changes_the_function(change):
  options = dataclasses.replace(SMALL, **change)
  params = parameters(dataclasses.replace(SMALL, norm_placement="pre"))
  rows = make_rows(np.random.default_rng(6))
  got, plain = (apply(o, params, rows)[0] for o in (options, SMALL))
  assert np.isfinite(got).all()
  assert np.abs(got - plain).max() > 1e-4


def test_without_positions_order_does_not_matter():
  options = dataclasses.replace(SMALL, positions=NoPositions())
  rows = make_rows(np.random.default_rng(7))
  turned = {key: rows[key].at[:, :3].set(rows[key][:, 2::-1])
            for key in ("input_ids", "token_type_ids")}
  run = lambda rows: apply(options, parameters(options), rows)[0]
  np.testing.assert_allclose(run(rows | turned)[:, 2], run(rows)[:, 0], rtol=0,
                             atol=2e-6)


def test_bfloat16_is_near_float32():
  options = dataclasses.replace(SMALL, dtype="bfloat16")
  rows = make_rows(np.random.default_rng(8))
  got = apply(options, parameters(SMALL), rows)
  assert [x.dtype for x in got] == [jnp.bfloat16, jnp.float32, jnp.float32]
  for x, exact in zip(got, apply(SMALL, parameters(SMALL), rows)):
    error = np.abs(np.asarray(x, np.float32) - exact)
    assert error.max() < 0.03 * np.abs(exact).max()


def test_hidden_states_are_those_of_each_layer():
  rows = make_rows(np.random.default_rng(9))
  params = parameters(SMALL)["encoder"]
  states_NBLD = Encoder(SMALL).apply(
      {"params": params}, rows, method="hidden_states")
  assert states_NBLD.shape == (3, B, L, 16)
  output_BLD = Encoder(SMALL).apply({"params": params}, rows)
  np.testing.assert_array_equal(states_NBLD[2], output_BLD)
  # The same parameters with one layer end where the first layer does.
  one = dataclasses.replace(SMALL, num_hidden_layers=1)
  first = {**params,
           "layers": jax.tree.map(lambda x: x[:1], params["layers"])}
  states_2BLD = Encoder(one).apply(
      {"params": first}, rows, method="hidden_states")
  np.testing.assert_allclose(states_NBLD[:2], states_2BLD, rtol=0, atol=2e-6)


def test_program_does_not_grow_with_depth():
  def size(layers, unroll):
    options = dataclasses.replace(SMALL, num_hidden_layers=layers,
                                  scan_unroll=unroll)
    rows = make_rows(np.random.default_rng(0))
    params = jax.eval_shape(Heads(options).init, jax.random.key(0), rows)
    loss = lambda params: sum(
        x.sum() for x in Heads(options).apply(params, rows))
    return jax.jit(jax.grad(loss)).lower(params).as_text().count("\n")

  assert size(12, 1) == size(2, 1) < size(12, 4) == size(24, 4)


@pytest.mark.parametrize("change, words", [
    ({"hidden_size": 20, "num_attention_heads": 3}, "num_attention_heads=3"),
    ({"hidden_act": "gleu"}, "did you mean 'gelu'"),
    ({"hidden_dropout_prob": 1.0}, "hidden_dropout_prob=1.0"),
    ({"num_hidden_layers": 0}, "num_hidden_layers=0")])
def test_bad_options_are_refused(change, words):
  with pytest.raises(UserError, match=words):
    dataclasses.replace(SMALL, **change)
