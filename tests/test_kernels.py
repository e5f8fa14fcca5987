"""Kernels equal what they stand for."""

import dataclasses
import functools
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bert_jax.analysis.topology import absent
from bert_jax.analysis.topology.chips import Topology
from bert_jax.config import UserError
from bert_jax.model import placement
from bert_jax.model.attention import CudnnAttention, FlashMixer, PlainMixer
from bert_jax.model.bert import BertConfig
from bert_jax.model.encoder import Encoder
from bert_jax.model.positions import AlibiPositions
from bert_jax.model.visibility import Context
from tools import kernels

ROWS = 2


def example_ids(length: int) -> np.ndarray:
  """Four examples and padding in one row, one and much padding in the other."""
  ids = np.stack([np.arange(length) * 5 // length + 1,
                  np.arange(length) * 2 // length == 0])
  return (ids % 5).astype(np.int32)


def arrays(length: int, heads: int, width: int, order: str | None,
           biased: bool) -> tuple:
  rng = np.random.default_rng(0)
  values = [jnp.asarray(rng.normal(size=(ROWS, length, heads, width)),
                        jnp.float32) for _ in range(4)]
  orders = {None: None, "causal": np.arange(length),
            "permuted": rng.permutation(length)}
  order_BL = orders[order]
  if order_BL is not None:
    order_BL = jnp.asarray(np.tile(order_BL, (ROWS, 1)), jnp.int32)
  bias_HA = (jnp.asarray(rng.normal(size=(heads, 2 * length - 1)), jnp.float32)
             if biased else None)
  return (*values, jnp.asarray(example_ids(length)), order_BL, bias_HA)


def results(mixer: type, dropout: float, reach: int | None, query_BLHK,
            key_BLHK, value_BLHK, of_mixed_BLHK, example_ids_BL, order_BL,
            bias_HA) -> tuple:
  """The mixed values and the gradients of all that they depend on."""
  _, length, heads, width = query_BLHK.shape
  options = BertConfig(
      vocab_size=9, hidden_size=heads * width, num_attention_heads=heads,
      attention_probs_dropout_prob=dropout)
  keys_B = jax.random.split(jax.random.key(3), ROWS)
  positions_BL = jnp.tile(jnp.arange(length)[None], (ROWS, 1))
  # A token of padding that may see nothing is finite, no more.
  compared_BL = (example_ids_BL > 0) | (reach is None and order_BL is None)

  def mix(query_BLHK, key_BLHK, value_BLHK, bias_HA):
    context = Context(example_ids_BL, order_BL, positions_BL, bias_HA)
    mixed_BLHK = mixer(options).apply({}, query_BLHK, key_BLHK, value_BLHK,
                                      context, reach, keys_B)
    return jnp.where(compared_BL[..., None, None], mixed_BLHK, 0)

  mixed_BLHK, transpose = jax.vjp(mix, query_BLHK, key_BLHK, value_BLHK,
                                  bias_HA)
  return mixed_BLHK, transpose(of_mixed_BLHK)


@pytest.mark.parametrize("length, heads, width, order, reach, biased, rate", [
    (128, 4, 32, None, None, False, 0.0),
    (40, 3, 16, "permuted", 7, True, 0.2),
    (640, 1, 96, "permuted", None, False, 0.1),
    (640, 2, 64, "causal", 100, True, 0.1)])
def test_flash_attention_equals_plain(length, heads, width, order, reach,
                                      biased, rate):
  given = arrays(length, heads, width, order, biased)
  (plain, of_plain), (flash, of_flash) = (
      jax.jit(functools.partial(results, mixer, rate, reach))(*given)
      for mixer in (PlainMixer, FlashMixer))
  np.testing.assert_allclose(flash, plain, rtol=0, atol=1e-5)
  for a, b in zip(jax.tree.leaves(of_flash), jax.tree.leaves(of_plain)):
    np.testing.assert_allclose(a, b, rtol=0, atol=1e-4)


def test_members_of_a_sweep_are_each_as_alone():
  given = arrays(128, 2, 64, None, True)
  members = [x if x is None else jnp.stack([x, jnp.flip(x, 0)]) for x in given]
  run = functools.partial(results, FlashMixer, 0.1, None)
  together = jax.jit(jax.vmap(run))(*members)
  for i in range(2):
    alone = jax.jit(run)(*[x if x is None else x[i] for x in members])
    for a, b in zip(jax.tree.leaves(together), jax.tree.leaves(alone)):
      np.testing.assert_allclose(a[i], b, rtol=0, atol=1e-6)


@pytest.mark.slow
@pytest.mark.skipif(not absent.available(), reason="needs libtpu")
@pytest.mark.parametrize("topology, length, options", [
    ("v5e:2x2", 512, "dropout"), ("v6e:2x2", 128, "dropout order"),
    ("v5p:2x2x1", 2048, "dropout reach bias")])
def test_flash_attention_compiles_for_tpus(topology, length, options):
  device = absent.devices(Topology.parse(topology))[0]
  kernels.compile_step(device, length, 64, "bfloat16", options)


@pytest.fixture
def cudnn(monkeypatch):
  """A GPU to lower for, without one."""
  from jax._src.cudnn import fused_attention_stablehlo as cudnn
  monkeypatch.setattr(cudnn, "check_cudnn_version", lambda: 91000)
  monkeypatch.setattr(cudnn, "check_compute_capability", lambda *_: True)
  monkeypatch.setattr(placement, "device", lambda: types.SimpleNamespace(
      platform="gpu", compute_capability="9.0"))


BFLOAT16 = BertConfig(
    vocab_size=9, hidden_size=128, num_attention_heads=2, dtype="bfloat16",
    num_hidden_layers=2, intermediate_size=128)


def lowered(options: BertConfig, examples: int, dropout: bool = False) -> str:
  """The program of a gradient for a GPU."""
  ids_BL = jnp.ones((4, 64), jnp.int32)
  batch = {name: ids_BL for name in (
      "input_ids", "token_type_ids", "position_ids", "example_ids")}
  batch["cls_positions"] = jnp.zeros((4, examples), jnp.int32)
  encoder = Encoder(options)
  params = jax.eval_shape(encoder.init, jax.random.key(0), batch)
  keys_B = jax.random.split(jax.random.key(0), 4) if dropout else None
  loss = lambda params: encoder.apply(params, batch, keys_B).astype(
      jnp.float32).sum()
  return jax.jit(jax.grad(loss)).trace(params).lower(
      lowering_platforms=("cuda",)).as_text()


def test_auto_attention_is_cudnn_on_a_gpu(cudnn):
  assert "PADDING" in lowered(BFLOAT16, examples=1)
  packed = lowered(BFLOAT16, examples=2)
  assert "__cudnn$fmha" in packed and "PADDING" not in packed


@pytest.mark.parametrize("change, word", [
    ({"dtype": "float32"}, "bfloat16"), ({}, "dropout"),
    ({"positions": AlibiPositions()}, "bias"),
    ({"num_attention_heads": 32}, "width")])
def test_cudnn_says_what_it_cannot_compute(cudnn, change, word):
  dropout = word == "dropout"
  options = dataclasses.replace(
      BFLOAT16, attention_probs_dropout_prob=0.1 * dropout, **change)
  assert "__cudnn$fmha" not in lowered(options, 2, dropout)
  with pytest.raises(UserError, match=word):
    lowered(dataclasses.replace(options, attention=CudnnAttention()), 2,
            dropout)
  assert word in options.attention.remark(options, 64)


def test_auto_attention_that_is_cudnn_needs_no_remark(cudnn):
  options = dataclasses.replace(BFLOAT16, attention_probs_dropout_prob=0.0)
  assert options.attention.remark(options, 64) == ""
