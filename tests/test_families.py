"""Properties that hold for every member of every family of the model.

New members are tested without a line here; one whose defaults are too large for
these rows needs smaller options in SMALLER.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec as P

from bert_jax import config
from bert_jax.model.bert import BertConfig
from bert_jax.model.encoder import Encoder
from bert_jax.model.feed_forward import AUXILIARY, ExpertsFeedForward
from bert_jax.parallel import rules
from bert_jax.training.flops import count_flops
from bert_jax.training.param_paths import expand, leaves
from tests.compiled_flops import of_products

SMALL = BertConfig(
    vocab_size=50, hidden_size=16, num_hidden_layers=4, num_attention_heads=2,
    intermediate_size=32, max_position_embeddings=24, scan_unroll=1,
    hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
L = 12
LENGTHS = 5, 4, 2  # of the examples in one row

for page in (config.PAGES / "ablations").glob("*.py"):
  config.load_page(str(page))  # Registers their members.

SMALLER = {
    "attention=flash": ["attention.interpret=true"],
    "inputs=values": ["inputs.width=3"],
    "locality=window": ["locality.size=2"],
    "locality=alternating": ["locality.size=1", "locality.every=2"],
    "feed_forward=experts": ["feed_forward.experts=4"],
    "positions=relative_bias": ["positions.buckets=8",
                                "positions.max_distance=6"],
    "stack=pattern": ['stack.pattern=["locality=window locality.size=2",'
                      '"feed_forward=gated num_attention_heads=4"]'],
    "stack=shared": ["stack.groups=2"],
}


def cases() -> list[tuple[str, ...]]:
  """Overrides that select each member, and further options."""
  families = {field.name: field.default
              for field in dataclasses.fields(BertConfig)
              if isinstance(field.default, config.Choice)}
  members = [f"{name}={member}" for name, default in families.items()
             for member in default.members()]
  return [*((word, *SMALLER.get(word, ())) for word in members),
          ("norm_placement=pre",), ("norm_placement=sandwich",),
          ("norm=layer", "norm.bias=false", "use_bias=false"),
          ("norm=rms", "norm.bias=true"),
          ("feed_forward=gated", "feed_forward.bias=true",
           "feed_forward.activation=silu"),
          ("positions=rotary", "positions.fraction=0.5"),
          ("positions=rotary", "locality=alternating", "locality.every=2"),
          ("embedding_size=8",), ("stack=shared", "feed_forward=experts"),
          ("inputs.types=false", "positions=relative_bias",
           "positions.learned=true"),
          ("norm_placement=pre", "first_attention_norm=false"),
          ("norm_placement=pre", "first_attention_norm=false",
           *("stack=pattern", SMALLER["stack=pattern"][0]))]


# Keyed by options: the defaults of all families are the same network.
CASES = {config.override(SMALL, case): ",".join(case) for case in cases()}
member = pytest.mark.parametrize("options", CASES, ids=CASES.values())


def batch() -> dict[str, jax.Array]:
  """Examples packed in row 0 and alone in rows 1 to 3; row 4 is empty."""
  rng = np.random.default_rng(0)
  batch = {key: np.zeros((8, L), np.int32) for key in (
      "input_ids", "token_type_ids", "position_ids", "example_ids")}
  batch["values"] = np.zeros((8, L, 3), np.float32)
  start = 0
  for number, length in enumerate(LENGTHS, 1):
    example = {"input_ids": rng.integers(0, 50, length),
               "token_type_ids": rng.integers(0, 2, length),
               "values": rng.normal(size=(length, 3)),
               "position_ids": np.arange(length), "example_ids": number}
    for key, values in example.items():
      batch[key][0, start:start + length] = values
      batch[key][number, :length] = values
    start += length
  return {key: jnp.asarray(x) for key, x in batch.items()}


@functools.cache
def parameters(options: BertConfig):
  """Random parameters, including biases and norms."""
  rng = np.random.default_rng(0)
  shapes = jax.eval_shape(Encoder(options).init, jax.random.key(0), batch())
  return jax.tree_util.tree_map_with_path(
      lambda keys, x: jnp.asarray(rng.normal(
          keys[-1].key == "scale", 0.1, x.shape), jnp.float32),
      shapes["params"])


def evaluate(options: BertConfig, params, rows):
  """Outputs, and the gradient of a loss that depends on all of them."""
  def loss(params):
    output_BLD, sown = Encoder(options).apply({"params": params}, rows,
                                              mutable=[AUXILIARY])
    total = jnp.sin(output_BLD.astype(jnp.float32)).mean()
    return total + sum(x.mean() for x in jax.tree.leaves(sown)), output_BLD

  (_, output_BLD), gradient = jax.value_and_grad(loss, has_aux=True)(params)
  return output_BLD, gradient


@functools.cache
def compiled(options: BertConfig):
  """`evaluate` on one device."""
  return jax.jit(functools.partial(evaluate, options)).lower(
      parameters(options), batch()).compile()


@functools.cache
def plain(options: BertConfig):
  """The results of `compiled`, as numpy arrays."""
  return jax.device_get(compiled(options)(parameters(options), batch()))


def assert_near(got, expected, tolerance):
  """Within `tolerance` of the largest element, or of 1."""
  scale = max([1.0, *(np.abs(x).max() for x in jax.tree.leaves(expected))])
  got = leaves(got)
  for path, x in leaves(expected).items():
    np.testing.assert_allclose(got[path] / scale, x / scale, rtol=0,
                               atol=tolerance, err_msg=path)


@member
def test_member_is_equal_packed_and_alone(options):
  output_BLD, gradient = plain(options)
  assert output_BLD.shape == (8, L, 16)
  assert all(np.isfinite(x).all() for x in jax.tree.leaves(
      (output_BLD, gradient)))
  alone_LD = np.concatenate([output_BLD[row, :length] for row, length
                             in enumerate(LENGTHS, 1)])
  np.testing.assert_allclose(output_BLD[0, :sum(LENGTHS)], alone_LD, rtol=0,
                             atol=1e-5)


@member
def test_member_costs_what_xla_computes(options):
  counted = count_flops(functools.partial(evaluate, options),
                        parameters(options), batch())
  # A kernel is priced as what it stands for, not by what it computes again.
  plain = dataclasses.replace(options,
                              attention=options.attention.with_weights())
  assert counted == pytest.approx(of_products(compiled(plain).as_text()),
                                  rel=0.01)


@member
def test_member_computes_in_bfloat16(options):
  """What stays float32 beside it is said by strict types."""
  options = dataclasses.replace(options, dtype="bfloat16")
  output_BLD, gradient = jax.eval_shape(
      functools.partial(evaluate, options), parameters(options), batch())
  assert output_BLD.dtype == jnp.bfloat16
  assert {str(x.dtype) for x in jax.tree.leaves(gradient)} == {"float32"}


@pytest.mark.slow
@member
def test_member_is_finite_in_bfloat16(options):
  output_BLD, gradient = plain(dataclasses.replace(options, dtype="bfloat16"))
  assert all(np.isfinite(x).all() for x in jax.tree.leaves(
      (output_BLD.astype(np.float32), gradient)))


@pytest.mark.slow
@member
def test_member_is_equal_on_a_mesh_with_remat(options):
  mesh = jax.make_mesh((2, 2, 2), ("data", "fsdp", "tensor"),
                       axis_types=(AxisType.Auto,) * 3)
  params = {"encoder": parameters(options)}
  where = rules.shardings(params, mesh)["encoder"]
  if isinstance(options.feed_forward, ExpertsFeedForward):
    assert where["layers"]["expert_output"]["kernel"].spec == P(
        None, "tensor", None, "fsdp")
  again = dataclasses.replace(options, remat=True)
  run = jax.jit(functools.partial(evaluate, again), in_shardings=(
      where, NamedSharding(mesh, P(("data", "fsdp")))))
  output_BLD, gradient = jax.device_get(run(params["encoder"], batch()))
  # Sums over eight devices are rounded in another order.
  assert_near(output_BLD, plain(options)[0], 2e-6)
  assert_near(gradient, plain(options)[1], 2e-6)


@member
def test_member_round_trips_through_changes(options):
  assert config.override(SMALL, config.changes(SMALL, options)) == options


@member
def test_member_names_its_layers(options):
  """Freezing and layer-wise rates need each layer's number in its paths."""
  numbers = {path.split("/")[2]
             for name, x in leaves({"encoder": parameters(options)}).items()
             for path in expand(name, x) if "encoder/layers/" in name}
  assert numbers == {str(n) for n in range(options.parameter_layers)}


@pytest.mark.parametrize("options", [
    options for options, name in CASES.items() if "stack" in name], ids=str)
def test_hidden_states_end_with_the_output(options):
  states_NBLD = jax.jit(functools.partial(
      Encoder(options).apply, method="hidden_states"))(
          {"params": parameters(options)}, batch())
  assert states_NBLD.shape == (options.num_hidden_layers + 1, 8, L, 16)
  np.testing.assert_allclose(states_NBLD[-1], plain(options)[0], atol=1e-6)
