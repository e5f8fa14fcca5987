"""Predictions for TPUs that are not here."""

import json
import pathlib
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec as P

from bert_jax import config
from bert_jax.analysis.topology import (
    absent, bundles, chips, collectives, hlo, layers, parts, timeline, traffic)
from bert_jax.analysis.topology.bundles import Schedule
from bert_jax.analysis.topology.chips import Topology
from bert_jax.cli.main import main
from bert_jax.config import UserError
from bert_jax.experiment import Experiment, workload
from bert_jax.parallel import layouts
from bert_jax.training import numerics

# A loop of 3 trips whose body multiplies a (256, 256) by a layer of a stack,
# begins to sum what it has over 4 chips, adds, and waits for the sum.
DATA = pathlib.Path(__file__).parent / "data"
TEXT = (DATA / "loop_of_products.hlo").read_text()
SQUARE = 256 * 256 * 2  # bytes

# Two bundles, a loop of 10 - 2 trips around one of 4, and one bundle.
SCHEDULE = """\
LB: loop body
     0   :  { %s1 = smov 1 }
   0x1   :  {}
   0x2 LB: > { %s2 = sphi %s1, %s3 /* iteration index, stage = 1 */ }
   0x3 LB: > > { %s4 = sadd.s32 1, %s5 }
   0x4   : > > { %p1 = scmp.ge.s32.totalorder %s4, 4 /* loop exit test */ }
   0x5   : >  { %6 = sbr.rel (!%p1) target = $region2 }
   0x6   :  {}
   0x7   : > { %p2 = scmp.ge.s32.totalorder %s3, 10 /* loop exit test */ }
   0x8   :  { %7 = sbr.rel (!%p2) target = $region1 }
   0x9   :  { %8 = vsyncpa [#allocation1], 1 }
"""


@pytest.fixture
def program_():
  return hlo.parse(TEXT)


def test_layout_pads_an_array_and_says_where_it_lies():
  padded, on_core = hlo.arrays(
      "(f32[12,100,64]{2,1,0:T(8,128)}, bf16[5]{0:T(1024)S(1)})")
  assert (padded.bytes, padded.space) == (12 * 104 * 128 * 4, 0)
  assert (on_core.bytes, on_core.space) == (1024 * 2, 1)


def test_loop_runs_as_often_as_its_condition_says(program_):
  loop = program_.computations["main"]["while.1"]
  assert program_.trips(loop) == 3
  unknown = hlo.parse(TEXT.replace("direction=LT", "direction=NE"))
  assert unknown.trips(unknown.computations["main"]["while.1"]) is None


def test_fusion_reads_the_slice_that_it_takes(program_):
  fusion = program_.computations["body"]["fusion.1"]
  assert traffic.hbm_bytes(program_, "body", fusion) == 3 * SQUARE + 4
  assert traffic.flops(program_, "body", fusion) == 2 * 256**3
  kernel = program_.computations["body"]["kernel.1"]
  assert traffic.hbm_bytes(program_, "body", kernel) == SQUARE


def test_bundles_of_loops_count_as_often_as_they_run():
  inner = 4 * 4  # Two, the branch back, and the empty one behind it.
  assert bundles.count(SCHEDULE.splitlines()) == Schedule(
      2 + 8 * (1 + inner + 2) + 1)
  # An empty bundle at the head of a loop does not say how deep it is.
  assert bundles.count(SCHEDULE.replace("0x3 LB: >", "0x3 LB:  {}\n0x3   : >"
                                        ).splitlines()).cycles == 155 + 8 * 4
  assert bundles.count(SCHEDULE.replace("%s4, 4", "%s4, %s9").splitlines()
                       ) == Schedule(2 + 8 * (1 + 4 + 2) + 1, unknown=1)


def test_schedules_are_read_by_name_and_cleared(tmp_path):
  for name in ("fusion.1-01", "TLP-01", "fusion.1-00-schedule-analysis"):
    (tmp_path / f"12-{name}-final_bundles.txt").write_text(SCHEDULE)
  assert list(bundles.read(tmp_path)) == ["fusion.1"]
  bundles.clear(tmp_path)
  assert not bundles.read(tmp_path)


@pytest.mark.parametrize("path, part", [
    ("jvp(_Module)/encoder/layers/while/body/attention/query/dot_general",
     "projections"),
    ("transpose(jvp(_Module))/encoder/layers/while/body/attention/mixer/mine",
     "attention"),
    ("jvp(_Module)/encoder/layers/while/body/attention_norm/add", "norms"),
    ("jvp(_Module)/encoder/layers/while/body/feed_forward/gate/dot_general",
     "feed-forward"),
    ("jvp(_Module)/encoder/layers/while/body/vmap()/threefry2x32", "dropout"),
    ("jvp(_Module)/encoder/embeddings/inputs/gather", "embeddings"),
    ("transpose(jvp(_Module))/mlm/TD,VD->TV/dot_general",
     "vocabulary and loss"),
    ("corruption/sort", "corruption"), ("sqrt", "optimizer")])
def test_part_follows_from_the_path_of_the_module(path, part):
  assert parts.part_of_name(f"jit(train_step)/{path}") == part


def test_fusion_is_of_the_part_of_its_product(program_):
  assert parts.part(program_, program_.computations["body"]["fusion.1"]
                    ) == "feed-forward"


@pytest.mark.parametrize("attributes, group", [
    ("replica_groups={{0,1},{2,3}}, x", [0, 1]),
    ("replica_groups=[2,4]<=[4,2]T(1,0)", [0, 2, 4, 6]),
    ("replica_groups=mesh['data'=2,'fsdp'=4] {'data'}", [0, 4]),
    ("channel_id=1", list(range(8)))])
def test_groups_of_collectives_are_read_in_each_notation(attributes, group):
  assert collectives.group(attributes, 8).tolist() == group


def _sum_over(shape):
  """An all-reduce of 1 GB over all chips of a v5e."""
  topology = Topology.parse(f"v5e:{shape}")
  devices = [types.SimpleNamespace(coords=place)
             for place in np.ndindex(topology.shape)]
  text = TEXT.replace("f32[1024]{0:T(1024)} all-reduce-start",
                      "f32[250000000]{0} all-reduce-start").replace(
                          "{{0,1},{2,3}}", "{}")
  program = hlo.parse(text)
  start = program.computations["body"]["all-reduce-start.1"]
  return collectives.price(program, "body", start, "all-reduce", topology,
                           devices)


def test_rings_have_twice_the_links_of_lines():
  line, ring = _sum_over("8x8"), _sum_over("16x16")
  assert line.bytes == ring.bytes == 10**9
  np.testing.assert_allclose(ring.seconds, 2e9 / (4 * 45e9), rtol=.01)
  np.testing.assert_allclose(line.seconds, 2e9 / (2 * 45e9), rtol=.02)


def test_time_has_kernels_loops_and_what_is_waited_for(program_):
  chip = chips.CHIPS["v5e"]
  sent = collectives.Collective("all-reduce", 4096, 1e-3)
  line = timeline.Timeline(
      program_, chip, {"fusion.1": Schedule(300_000),
                       "kernel.1": Schedule(1_050_000)},
      lambda computation, operation, kind: sent)
  # The sum takes 1 ms, of which the kernel hides .7.
  np.testing.assert_allclose(line.seconds, 3 * (.2e-3 + 1e-3), rtol=1e-3)
  items = {item.operation.name: item for item in line.items}
  assert items["kernel.1"].part == "attention"
  np.testing.assert_allclose(items["all-reduce-done.1"].exposed, .3e-3,
                             rtol=1e-3)
  assert items["all-reduce-start.1"].asynchronous
  np.testing.assert_allclose(sum(item.seconds for item in line.items),
                             line.seconds)


# A sum that is computed in parts, one of which is fused with a product.
PARTS = (DATA / "sum_in_parts.hlo").read_text()


def test_collective_in_parts_proceeds_where_it_is_fused():
  program = hlo.parse(PARTS)
  sizes = []

  def price(computation, operation, kind):
    sizes.append(collectives.price(
        program, computation, operation, kind, Topology.parse("v5e:1x1"),
        [types.SimpleNamespace(coords=(0, 0))]).bytes)
    return collectives.Collective(kind, 0, 1e-3)

  line = timeline.Timeline(
      program, chips.CHIPS["v5e"],
      {"fusion.2": Schedule(900_000), "kernel.1": Schedule(300_000)}, price)
  # Of 1 ms the fusion hides .2, which the compiler estimates, as its schedule
  # has all phases of the sum in each trip; the kernel alone hides nothing.
  np.testing.assert_allclose(line.seconds, .2e-3 + .2e-3 + .8e-3, rtol=1e-3)
  assert sizes == [SQUARE]
  fusion = program.computations["main"]["fusion.2"]
  assert traffic.hbm_bytes(program, "main", fusion) == 2 * SQUARE


def test_sum_over_all_is_priced_for_other_numbers_of_chips():
  grid = [types.SimpleNamespace(coords=place) for place in np.ndindex(16, 16)]
  text = TEXT.replace("{{0,1},{2,3}}", "[1,4]<=[4]").replace(
      "f32[1024]{0:T(1024)} all-reduce-start",
      "f32[250000000]{0} all-reduce-start")
  program = hlo.parse(text)
  start = program.computations["body"]["all-reduce-start.1"]
  scaled = collectives.price(program, "body", start, "all-reduce",
                             Topology.parse("v5e:16x16"), grid, 4)
  assert scaled == _sum_over("16x16")


def test_layout_is_planned_with_the_attention_of_the_chip(monkeypatch):
  planned = []

  def choose(work, shapes, memory):
    planned.append(sum(size for size, _ in work.saved))
    raise UserError("planned")

  monkeypatch.setattr(layouts.plans, "choose", choose)
  work = workload(config.override(
      config.load_page("tiny").experiment, ["data.length=512"]))
  for platform in ("cpu", "tpu"):
    device = types.SimpleNamespace(platform=platform, slice_index=0)
    with pytest.raises(UserError, match="planned"):
      layouts.MeshLayout().build_on([device], None, work)
  assert planned[1] < .8 * planned[0]  # No array of 512 x 512 a head.


@pytest.mark.slow
@pytest.mark.skipif(not absent.available(), reason="needs libtpu")
@pytest.mark.parametrize("topology", ["v4:2x2x1", "v5e:2x2", "v5p:2x2x1",
                                      "v6e:2x2"])
def test_gradients_are_summed_while_others_are_computed(topology):
  """On v5e; on other chips what is fit for v5e does not compile."""
  devices = absent.devices(Topology.parse(topology))
  mesh = Mesh(np.array(devices), ("data",))
  rows, everywhere = (NamedSharding(mesh, spec) for spec in (P("data"), P()))

  def loss(kernels, x):
    layer = lambda x, kernel: (jax.nn.relu(x @ kernel), None)
    return jax.lax.scan(layer, x, kernels)[0].astype(jnp.float32).sum()

  shapes = (jax.ShapeDtypeStruct((4, 1024, 1024), jnp.bfloat16),
            jax.ShapeDtypeStruct((4096, 1024), jnp.bfloat16))
  started = [set(kind for kind, _ in collectives.started(hlo.parse(
      numerics.jit(jax.grad(loss), in_shardings=(everywhere, rows),
                   out_shardings=everywhere,
                   compiler_options=layouts.MeshLayout(
                       overlap=overlap).compiler_options(devices)
                   ).lower(*shapes).compile().as_text())))
             for overlap in (True, False)[:2 if topology == "v5e:2x2" else 1]]
  assert started in ([{"all-reduce"}, set()], [set()])


@pytest.mark.parametrize("word, message", [
    ("v5:2x2", "did you mean 'v5"), ("v5e:2x2x1", "as in v5e:4x4"),
    ("v5e", "as in v5e:4x4")])
def test_wrong_topology_is_explained(word, message):
  with pytest.raises(UserError, match=message):
    Topology.parse(word)


def test_missing_compiler_is_named(monkeypatch, capsys):
  monkeypatch.setattr(absent, "available", lambda: False)
  assert main(["show", "tiny", "--topology", "v5e:2x2"]) == 1
  assert "bert_jax[tpu-plan]" in capsys.readouterr().err


def test_operations_of_layers_count_for_all_layers():
  item = lambda part, path: timeline.Item(None, part, path, 2)
  items = layers.repeat(
      [item("embeddings", "encoder/embeddings/gather"),
       item(parts.COPIES, ""), item("norms", "encoder/layers/norm/add"),
       item(parts.COPIES, ""), item("optimizer", "mul")],
      layers.Repeated(layers=6, parameters=3))
  assert [item.trips for item in items] == [2, 12, 12, 2, 6]


@pytest.mark.parametrize("words, compiled, each", [
    ("", 2, 6), ("model.scan_unroll=1", 12, 1),
    ("finetuning.layer_decay=.9", 12, 1), ("model.stack=shared", 12, 1),
    ("model.stack=pattern model.stack.pattern=norm=rms,norm=layer,norm=layer",
     6, 2)])
def test_few_layers_stand_for_many_that_are_alike(words, compiled, each):
  experiment = config.override(Experiment(), words.split())
  short, number = layers.shortened(experiment)
  assert (short.model.num_hidden_layers, number) == (compiled, each)


@pytest.mark.slow
@pytest.mark.skipif(not absent.available(), reason="needs libtpu")
def test_few_layers_take_what_all_of_them_take(capsys):
  predictions = []
  for words in ([], ["model.scan_unroll=6"]):
    assert main(["show", "tiny", "--topology", "v5e:2x2", "--json",
                 "model.num_hidden_layers=6", "batch_size=256",
                 *words]) == 0
    predictions.append(json.loads(capsys.readouterr().out))
  few, all_ = predictions
  np.testing.assert_allclose(few["step_seconds"], all_["step_seconds"],
                             rtol=.05)
  # Seen: 11 and 14% too little in float32, 2% for BERT-base in bfloat16.
  np.testing.assert_allclose(*(sum(p["memory"].values()) for p in predictions),
                             rtol=.2)


@pytest.mark.slow
@pytest.mark.skipif(not absent.available(), reason="needs libtpu")
def test_step_of_a_page_is_predicted(capsys):
  assert main(["show", "tiny", "--topology", "v5e:2x2", "--json",
               "--price", "2", "steps=3600", "data.length=64",
               "model.hidden_dropout_prob=0",
               "model.attention_probs_dropout_prob=0"]) == 0
  p = json.loads(capsys.readouterr().out)
  assert p["predicted"] and p["fits"] and p["layout"]["data"] == 4
  assert {"attention", "feed-forward", "optimizer"} <= set(p["parts"])
  np.testing.assert_allclose(p["step_seconds"], p["exposed_seconds"] + sum(
      part["seconds"] for part in p["parts"].values()))
  np.testing.assert_allclose(p["dollars"], 8 * p["step_seconds"])
  assert 0 < p["mfu"] < 1 and p["collectives"]["all-reduce"]["bytes"] > 1e6
