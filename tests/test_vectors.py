"""Arrays of numbers: from files over patches and masks to runs and scores."""

import dataclasses
import functools
import pathlib
import pickle
import re

import jax
import numpy as np
import pytest

import bert_jax as bj
from bert_jax import config
from bert_jax.analysis import predict, replay, replay_text
from bert_jax.config import UserError
from bert_jax.data.arrays import ArraysData
from bert_jax.data.batches import loader
from bert_jax.data.labeled.vectors import patches
from bert_jax.experiment import Experiment, Run, compose, workload
from bert_jax.metrics import weighted
from bert_jax.model.bert import BertConfig
from bert_jax.model.inputs import ValuesInputs
from bert_jax.objectives.classification import Classification
from bert_jax.objectives.mlm import Mlm
from bert_jax.objectives.reconstruction import Reconstruction
from bert_jax.objectives.regression import Regression
from bert_jax.parallel.layouts import MeshLayout
from bert_jax.runs import train
from bert_jax.studies.protocols.text import MlmProtocol
from bert_jax.training.optimizers import Sgd
from bert_jax.training.param_paths import leaves
from bert_jax.training.schedules import ConstantSchedule
from bert_jax.training.step import evaluation_step
from tests.small_run import FirstDevices, equal

COUNT, HELD_OUT = 48, 13
MODEL = BertConfig(
    hidden_size=16, num_hidden_layers=1, num_attention_heads=2,
    intermediate_size=32, max_position_embeddings=16, scan_unroll=1,
    hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0,
    inputs=ValuesInputs(width=3))


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> pathlib.Path:
  """Waves of 12 numbers, whose classes are 9 and 10, in signals.npz."""
  folder = tmp_path_factory.mktemp("arrays")
  rng = np.random.default_rng(0)
  arrays = {}
  for name, count in (("", COUNT), ("_test", HELD_OUT)):
    y = rng.integers(9, 11, count)
    phase = rng.uniform(0, 6, (count, 1))
    arrays[f"x{name}"] = np.sin(np.arange(12) * y[:, None] / 9 + phase) + 2
    arrays[f"y{name}"] = y
    arrays[f"height{name}"] = phase[:, 0]
  np.savez(folder / "signals.npz", **arrays)
  np.save(folder / "x.npy", arrays["x"])
  np.save(folder / "names.npy", np.where(arrays["y"] == 9, "low", "high"))
  np.savez(folder / "objects.npz", x=np.array([{}, None], object))
  (folder / "pickle.npy").write_bytes(pickle.dumps(arrays["x"]))
  return folder


def experiment(folder: pathlib.Path, data: str = "", **options) -> Experiment:
  return dataclasses.replace(config.override(Experiment(
      model=MODEL, objective=Reconstruction(rate=0.5),
      data=ArraysData(
          length=10, examples_per_row=2, train=str(folder / "signals.npz"),
          evaluation_values="x_test", evaluation_labels="y_test", patch=(3,),
          mean=(2.0,)),
      optimizer=Sgd(), schedule=ConstantSchedule(0.1, 0.0), steps=4,
      batch_size=8, layout=FirstDevices(), save_every=2, evaluate_every=2,
      log_every=1), data.split()), **options)


@functools.cache
def composed(folder: pathlib.Path) -> Run:
  return compose(experiment(folder))


@pytest.fixture(scope="module")
def pretrained(folder) -> pathlib.Path:
  train.train(experiment(folder), folder / "run")
  return folder / "run"


@pytest.mark.parametrize("shape, patch", [
    ((12,), (4,)), ((6, 2), (3,)), ((6, 4), (3, 2)), ((4, 6, 3), (2, 3))])
def test_patches_are_blocks_of_a_sample(shape, patch):
  samples = np.random.default_rng(0).normal(size=(2, *shape))
  blocks = [samples[:, i * patch[0]:(i + 1) * patch[0]]
            for i in range(shape[0] // patch[0])]
  if len(patch) > 1:
    blocks = [block[:, :, j * patch[1]:(j + 1) * patch[1]]
              for block in blocks for j in range(shape[1] // patch[1])]
  np.testing.assert_array_equal(
      patches(samples, patch),
      np.stack([block.reshape(2, -1) for block in blocks], axis=1))


def test_rows_hold_every_sample_once(folder):
  """Standardized, at the places that positions and examples say."""
  run = composed(folder)
  arrays = np.load(folder / "signals.npz")
  for rows, x in ((run.prepared.train, arrays["x"]),
                  (run.prepared.evaluation, arrays["x_test"])):
    seen = []
    for index in range(len(rows)):
      row = rows.row(0, index)
      for slot in np.flatnonzero(row["example_mask"]):
        example = row["example_index"][slot]
        here_L = row["example_ids"] == slot + 1
        np.testing.assert_array_equal(row["position_ids"][here_L], range(5))
        assert row["cls_positions"][slot] == here_L.argmax()
        np.testing.assert_allclose(
            row["values"][here_L][1:].ravel(), x[example] - 2, atol=1e-6)
        assert not row["values"][here_L][0].any()
        seen.append(example)
    assert sorted(seen) == list(range(len(x)))


def test_batch_depends_on_data_seed_and_step_alone(folder):
  run, again = composed(folder), compose(experiment(folder))
  other = run.with_seed(1).prepared.train
  batch = lambda rows: loader.batch(rows, 8, 5)["values"]
  np.testing.assert_array_equal(batch(run.prepared.train),
                                batch(again.prepared.train))
  assert (batch(run.prepared.train) != batch(other)).any()
  # So is each host's part of it.
  positions = np.array([1, 6])
  np.testing.assert_array_equal(
      loader.batch(run.prepared.train, 8, 5, positions)["values"],
      batch(run.prepared.train)[positions])
  fingerprints = {run.prepared.fingerprint, other.fingerprint, *(
      compose(experiment(folder, data)).prepared.fingerprint
      for data in ("data.mean=1", "data.deviation=2", "data.patch=3 data.shots="
                   "40"))}
  assert len(fingerprints) == 5


def test_held_out_samples_are_chosen_by_their_numbers(folder):
  of = lambda *data: compose(experiment(folder, " ".join((
      "data.evaluation_values=", *data)))).prepared
  numbers = lambda rows: {
      row["values"][row["example_ids"] == slot + 1].round(4).tobytes()
      for i in range(len(rows)) for row in [rows.row(0, i)]
      for slot in np.flatnonzero(row["example_mask"])}
  one, other = of(), of(f"data.train={folder / 'x.npy'}")
  out = numbers(one.evaluation)
  assert out == numbers(other.evaluation) and 0 < len(out) < COUNT / 4
  assert not out & numbers(one.train)


def test_hidden_numbers_reach_the_loss_as_targets_only(folder):
  """Neither the output nor anything else that is computed of the input has a
  gradient in them."""
  run = composed(folder)
  recipe, batch = run.recipe, loader.batch(run.prepared.train, 8, 0)
  keys_B = jax.random.split(jax.random.key(1), 8)
  hidden_BL = np.asarray(recipe.inputs(batch, keys_B, np.int32(0))["hidden"])
  vectors_BL = batch["position_ids"] > 0
  np.testing.assert_array_equal(hidden_BL.sum(1), vectors_BL.sum(1) / 2)
  assert not hidden_BL[~vectors_BL].any()
  params = jax.jit(recipe.init)(np.int32(0), batch).params

  def loss(values, targets=None):
    rows = recipe.inputs({**batch, "values": values}, keys_B, np.int32(0))
    if targets is not None:
      rows["targets"] = targets
    outputs = recipe.network.apply(params, rows)
    return recipe.objective.losses(outputs, rows)["reconstruction"]

  gradient_BLJ = jax.grad(loss)(batch["values"], batch["values"])
  assert not gradient_BLJ[hidden_BL > 0].any()
  seen_BL = vectors_BL & (hidden_BL == 0)
  assert (np.abs(gradient_BLJ[seen_BL]).sum(-1) > 0).all()
  # As targets they count, and only they.
  target_BLJ = jax.grad(loss, 1)(batch["values"], batch["values"])
  assert not target_BLJ[hidden_BL == 0].any()
  assert target_BLJ[hidden_BL > 0].all()


def test_loss_is_the_squared_error_of_hidden_vectors(folder):
  run = composed(folder)
  batch = loader.batch(run.prepared.train, 8, 0)
  params = jax.jit(run.recipe.init)(np.int32(0), batch).params
  means, outputs = jax.jit(functools.partial(evaluation_step, run.recipe))(
      params, batch)
  keys_B = jax.vmap(jax.random.fold_in, (None, 0))(jax.random.key(0),
                                                   batch["row"])
  hidden_BL = np.asarray(run.recipe.inputs(batch, keys_B, None)["hidden"]) > 0
  error = np.asarray(outputs["reconstruction"], np.float64) - batch["values"]
  expected = np.square(error[hidden_BL]).mean()
  assert weighted.summarize(means)["loss"] == pytest.approx(expected, rel=1e-5)
  assert float(means["reconstruction_loss"].weight) == hidden_BL.sum()


def test_masks_of_evaluation_do_not_depend_on_the_batch(folder, pretrained):
  """Nor do its scores: every vector counts once."""
  scores = [predict.of_workdir(pretrained, [f"batch_size={size}"])
            for size in (2, 8)]
  assert scores[0] == pytest.approx(scores[1], rel=1e-5)
  assert scores[0]["squares"] > 0


@pytest.mark.parametrize("objective", [Reconstruction(0.5),
                                       Classification(("9", "10"))],
                         ids=lambda objective: objective.choice_name)
def test_packed_samples_equal_one_a_row(folder, objective):
  """The outputs of each, where nothing is hidden."""
  runs = [compose(experiment(folder, f"data.examples_per_row={n}",
                             objective=objective)) for n in (1, 2)]
  params = None
  by_sample: list[dict[int, np.ndarray]] = []
  for run in runs:
    rows = run.prepared.evaluation
    batch = next(loader.evaluation_batches(rows, len(rows)))
    if params is None:
      params = jax.jit(run.recipe.init)(np.int32(0), batch).params
    outputs, = jax.jit(run.recipe.network.apply)(params, batch).values()
    by_sample.append({
        int(example): np.asarray(
            outputs[b, batch["example_ids"][b] == slot + 1]
            if outputs.shape[1] == rows.length else outputs[b, slot])
        for b, example_E in enumerate(batch["example_index"])
        for slot, example in enumerate(example_E) if example >= 0})
  assert by_sample[0].keys() == by_sample[1].keys() == set(range(HELD_OUT))
  for example, output in by_sample[0].items():
    np.testing.assert_allclose(by_sample[1][example], output, atol=1e-5)


@pytest.mark.slow
def test_step_is_the_same_on_a_mesh_and_in_parts(folder):
  results = []
  for layout, parts in ((FirstDevices(), 1), (MeshLayout(2, 2, 2), 2)):
    run = compose(experiment(folder, layout=layout, microbatches=parts))
    runner = layout.build(run.recipe, run.shape(), 8, run.row())
    state = jax.jit(run.recipe.init, out_shardings=runner.shardings)(
        np.int32(0), run.row())
    for step in range(2):
      state, means = runner.step(state, runner.put(
          loader.batch(run.prepared.train, 8, step)))
    results.append((jax.device_get(state.params), weighted.summarize(
        jax.device_get(means))))
  (params, means), (other, other_means) = results
  jax.tree.map(functools.partial(np.testing.assert_allclose, atol=1e-6,
                                 rtol=0), other, params)
  assert other_means == pytest.approx(means, rel=1e-5)


def test_run_resumes_bit_for_bit(folder, tmp_path, pretrained):
  stop = lambda step: step == 3 and (_ for _ in ()).throw(KeyboardInterrupt)
  with pytest.raises(KeyboardInterrupt):
    train.train(experiment(folder), tmp_path / "legs",
                observers=train.Observers(stop))
  resumed = train.train(experiment(folder), tmp_path / "legs")
  equal(jax.device_get(resumed.params), bj.load(str(pretrained)).params)


def test_replay_shows_the_vectors_that_are_hidden(pretrained):
  shown = replay.replay(pretrained, 3)
  text = str(replay_text.text(shown, 8))
  hidden = int(shown.corrupted["hidden"].sum())
  assert len(re.findall(r"\[(\S+ ){3}-> MASK\]\(\d", text)) == hidden
  seen = int((shown.batch["position_ids"] > 0).sum()) - hidden
  assert len(re.findall(r"\s\(\S+ \S+ \S+\)", text)) == seen
  logged = shown.logged
  assert shown.means()["loss"] == pytest.approx(logged, rel=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("objective, labels, column", [
    (Classification(), "y", "predicted_label"),
    (Regression(), "height", "predicted_value")])
def test_finetuning_scores_and_predicts_samples(folder, tmp_path, pretrained,
                                                objective, labels, column):
  task = experiment(
      folder, f"data.labels={labels} data.evaluation_labels={labels}_test",
      objective=objective, init_from=str(pretrained))
  result = train.train(task, tmp_path / "task")
  assert {"accuracy", "pearson"} & result.scores.keys()
  changed, source = (bj.load(str(path)).params["encoder"]["embeddings"]
                     for path in (tmp_path / "task", pretrained))
  assert leaves(changed).keys() == leaves(source).keys()
  np.testing.assert_array_equal(changed["mask_embedding"]["embedding"],
                                source["mask_embedding"]["embedding"])
  np.save(tmp_path / "new.npy", np.load(folder / "signals.npz")["x_test"])
  assert predict.predict_file(tmp_path / "task", str(tmp_path / "new.npy"),
                              str(tmp_path / "out.tsv")) == HELD_OUT
  lines = (tmp_path / "out.tsv").read_text().splitlines()
  assert lines[0].split("\t")[:2] == ["example", column]
  assert len(lines) == 1 + HELD_OUT
  if column == "predicted_label":
    assert result.run.experiment.objective.labels == ("9", "10")
    # Labels may be in a file of their own, and strings.
    named = compose(dataclasses.replace(task, init_from="", data=config.override(
        task.data, ["evaluation_values=", f"labels={folder / 'names.npy'}"])))
    assert named.experiment.objective.labels == ("high", "low")


def test_texts_mean_nothing_to_such_a_network(pretrained):
  bert = bj.load(str(pretrained))
  for ask in (bert, bert.embed):
    with pytest.raises(UserError, match="reads arrays of numbers"):
      ask(["a text"])
  run = compose(bert.experiment)
  score = MlmProtocol(length=10).score(run, bert.params, pretrained)
  assert "no held-out documents" in score.unscorable
  with pytest.raises(UserError, match="Hugging Face's BERT has nothing"):
    bj.export(str(pretrained), str(pretrained.parent / "out"))
  row = {key: value[None] for key, value in
         run.prepared.train.row(0, 0).items()}
  assert bert(row).logits["reconstruction"].shape == (1, 10, 3)


@pytest.mark.parametrize("data, options, words", [
    ("data.train=", {}, "data.train: name the npz or npy file"),
    ("data.values=z", {}, "no array 'z'"),
    ("data.patch=5", {}, "multiples"),
    ("data.patch=3,2", {}, "1 to 1 of their axes"),
    ("data.length=4", {}, "set data.length=5"),
    ("data.patch=4", {}, "set model.inputs.width=4"),
    ("data.mean=1,2", {}, "one for each of the 12 channels"),
    ("data.values=y", {}, "no axis behind"),
    ("data.train={folder}/objects.npz", {}, "never from pickles"),
    ("data.train={folder}/pickle.npy", {}, "never from pickles"),
    ("data.labels=x", {"objective": Classification()}, "expected .48,."),
    ("data.labels=height", {"objective": Classification()}, "classes are"),
    ("objective=tagging", {}, "set objective=classification, regression or"),
    ("", {"objective": Mlm()}, "objective=mlm reads input_ids"),
    ("model.inputs=tokens", {}, "objective=reconstruction reads values|"
     "What can read them: model.inputs=values")])
def test_arrays_that_cannot_be_used_are_explained(folder, data, options, words):
  with pytest.raises(UserError, match=words):
    compose(experiment(folder, data.format(folder=folder), **options))


def test_numbers_that_are_not_finite_are_refused(folder, tmp_path):
  x = np.ones((3, 12))
  x[1, 2] = np.nan
  np.save(tmp_path / "x.npy", x)
  with pytest.raises(UserError, match="1 of 3.*sample 1 "):
    compose(experiment(folder, f"data.train={tmp_path / 'x.npy'}"))


def test_large_numbers_are_pointed_out(folder, tmp_path, caplog):
  np.save(tmp_path / "x.npy", np.random.default_rng(0).integers(
      0, 256, (9, 12), np.uint8))
  compose(experiment(
      folder, f"data.train={tmp_path / 'x.npy'} data.evaluation_values="))
  assert "data.mean and data.deviation" in caplog.text
  caplog.clear()
  compose(experiment(folder))
  assert not caplog.text


def test_work_is_priced_without_the_data(folder):
  """By the shapes of rows that the options alone give."""
  run = composed(folder)
  priced = workload(experiment(folder, "data.train=nowhere.npz"))
  shapes = lambda tree: {path: x.shape for path, x in leaves(tree).items()}
  assert shapes(priced.state.params) == shapes(run.shape().params)
  assert priced.row["values"].shape == run.row()["values"].shape
  assert priced.flops > 0
