"""Soft labels from a file, and a frozen teacher beside the network."""

import dataclasses
import functools
import re
import types

import jax
import numpy as np
import pytest

from bert_jax import config
from bert_jax.analysis import describe, predict, replay
from bert_jax.checkpoints.reading import read_checkpoint, resolve_experiment
from bert_jax.config import UserError
from bert_jax.data.labeled.soft_labels import SoftLabelSet
from bert_jax.data.labeled.texts import ClassificationSet
from bert_jax.data.records.columns import Columns
from bert_jax.data.sources import TableData
from bert_jax.experiment import compose
from bert_jax.interop import exporter
from bert_jax.model.encoder import Encoder
from bert_jax.objectives.classification import Classification
from bert_jax.objectives.distillation import Distillation, MlmDistillation
from bert_jax.objectives.mlm import Mlm
from bert_jax.objectives.soft_labels import SoftLabels
from bert_jax.runs import initialize
from bert_jax.runs.train import train
from bert_jax.training.param_paths import leaves
from tests import small_run, tiny

ALL = {"soft_weight": 0.5, "hard_weight": 0.25, "hidden_weight": 2.0,
       "attention_weight": 3.0, "temperature": 3.0}
TEACHER = dataclasses.replace(tiny.MODEL, hidden_size=20, num_hidden_layers=4)


def divergence(target, logits) -> np.ndarray:
  """KL(target || softmax(logits)) in float64."""
  target, logits = np.float64(target), np.float64(logits)
  log_p = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
  return (target * (np.log(target) - log_p)).sum(-1)


def softmax(logits) -> np.ndarray:
  exponentials = np.exp(np.float64(logits))
  return exponentials / exponentials.sum(-1, keepdims=True)


def scored(path, names=("bad", "good")) -> np.ndarray:
  """Writes what `predict` writes beside three texts; its probabilities."""
  table = path.with_name("texts.tsv")
  table.write_text("sentence\tlabel\nhi\tgood\nho\tbad\nha\tgood\n")
  labeled = ClassificationSet.read(str(table), Columns(), names)
  p_XC = np.array([[0.1, 0.9], [0.75, 0.25], [0.5, 0.5]])
  labeled.write(str(path), p_XC)
  return p_XC


@pytest.mark.parametrize("ending", ["tsv", "csv", "jsonl"])
def test_predictions_of_a_teacher_are_soft_labels(tmp_path, ending):
  path = tmp_path / f"soft.{ending}"
  p_XC = scored(path)
  labeled = SoftLabelSet.read(str(path), Columns())
  assert labeled.label_names == ("bad", "good")
  np.testing.assert_allclose(labeled.probabilities, p_XC, atol=1e-7)
  assert labeled.labels.tolist() == [1, 0, 1]
  turned = SoftLabelSet.read(str(path), Columns(), ("good", "bad"))
  np.testing.assert_allclose(turned.probabilities, p_XC[:, ::-1], atol=1e-7)
  assert turned.labels.tolist() == [0, 1, 0]
  # Without a column of labels the probabilities are enough to learn from.
  alone = SoftLabelSet.read(str(path), Columns(label="gold"))
  assert alone.labels is None and alone.scores(p_XC) == {}
  assert SoftLabels().complete(alone).labels == ("bad", "good")
  np.testing.assert_allclose(alone.counts_C(), [1.35, 1.65], atol=1e-6)
  assert alone.classes_X().tolist() == [1, 0, 0]
  plain = SoftLabelSet.read(str(tmp_path / "texts.tsv"), Columns())
  assert plain.probabilities_XC().tolist() == [[0, 1], [1, 0], [0, 1]]


def test_lists_of_probabilities_are_soft_labels(tmp_path):
  path = tmp_path / "soft.jsonl"
  path.write_text('{"sentence": "hi", "p": [0.25, 0.75]}\n'
                  '{"sentence": "ho", "p": [0.2, 0.2]}\n')
  columns = Columns(probabilities=("p",), bad_records="skip")
  labeled = SoftLabelSet.read(str(path), columns, ("bad", "good"))
  assert labeled.probabilities.tolist() == [[0.25, 0.75]]
  with pytest.raises(UserError, match="soft.jsonl:2: 0.2, 0.2: .* 1 together"):
    SoftLabelSet.read(str(path), Columns(probabilities=("p",)),
                      ("bad", "good"))
  with pytest.raises(UserError, match="name their classes by objective.labels"):
    SoftLabelSet.read(str(path), columns)
  scored(tmp_path / "soft.tsv")
  with pytest.raises(UserError, match="are of bad, good; the labels are a, b"):
    SoftLabelSet.read(str(tmp_path / "soft.tsv"), Columns(), ("a", "b"))


def test_loss_of_soft_labels_has_a_temperature():
  rng = np.random.default_rng(0)
  logits = rng.normal(size=(2, 3, 4)).astype(np.float32)
  theirs = rng.normal(size=(2, 3, 4)).astype(np.float32)
  mask = np.array([[1, 1, 0], [1, 0, 0]], np.float32)
  soft = {"probabilities": softmax(theirs).astype(np.float32),
          "example_mask": mask, "labels": np.full((2, 3), -1, np.int32)}
  soft["probabilities"][mask == 0] = 0
  expected = 3**2 * (divergence(softmax(theirs / 3), logits / 3) * mask).sum()
  labels = tuple("abcd")
  for objective, outputs in (
      (SoftLabels(labels, temperature=3.0, soft_weight=0.5), {}),
      (Distillation(labels, temperature=3.0, soft_weight=0.5),
       {"teacher": theirs})):
    losses = objective.losses({"classifier": logits, **outputs}, soft)
    assert losses.keys() == {"soft"}
    assert losses["soft"] == pytest.approx(expected / 2, rel=1e-5)
    assert objective.weights(soft) == {"soft": 3}
  # What has no label has no weight among the hard ones.
  mixed = SoftLabels(labels, hard_weight=0.5)
  soft["labels"][0, 0] = 2
  assert mixed.weights(soft) == {"classifier": 1, "soft": 3}
  hard = mixed.losses({"classifier": logits}, soft)["classifier"]
  assert hard == pytest.approx(-0.5 * np.log(softmax(logits[0, 0])[2]),
                               rel=1e-5)


def distilled(objective=MlmDistillation, **options):
  """A recipe of a wider and deeper teacher, and a first state."""
  one = objective(teacher="there", teacher_model=TEACHER, **ALL, **options)
  recipe = tiny.recipe(one)
  return recipe, jax.jit(recipe.init)(np.int32(0), tiny.batch())


@pytest.mark.parametrize("hidden_loss", ["mse", "cosine"])
def test_losses_equal_those_of_numpy(hidden_loss):
  recipe, state = distilled(hidden_loss=hidden_loss,
                            layer_map=("0:0", "1:2", "2:4"))
  rng = np.random.default_rng(0)
  params = jax.tree.map(
      lambda x: rng.normal(0, 0.3, x.shape).astype(np.float32), state.params)
  batch = jax.jit(recipe.inputs)(
      tiny.batch(), jax.random.split(jax.random.key(0), tiny.BATCH),
      np.int32(0))
  outputs = jax.jit(recipe.network.apply)(params, batch)
  losses = recipe.objective.losses(outputs, batch)
  weights = recipe.objective.weights(batch)
  states, scores = {}, {}
  for name, model in (("encoder", tiny.MODEL), ("teacher", TEACHER)):
    states[name], kept = jax.jit(functools.partial(
        Encoder(model).apply, method="hidden_states", mutable=["attention"]))(
            {"params": params[name]}, batch)
    states[name] = np.float64(states[name])
    scores[name] = scores_of(params[name], states[name], model)
  example_ids = np.asarray(batch["example_ids"])
  real = example_ids > 0
  seen = (example_ids[:, :, None] == example_ids[:, None]) & real[..., None]
  kernel = np.float64(params["hidden_projection"]["kernel"])
  hidden = attention = 0
  for own, other in (0, 0), (1, 2), (2, 4):
    x, y = states["encoder"][own] @ kernel, states["teacher"][other]
    hidden += (((x - y)**2).mean(-1) if hidden_loss == "mse" else
               1 - (x * y).sum(-1) / np.linalg.norm(x, axis=-1)
               / np.linalg.norm(y, axis=-1))[real].sum()
    if own:
      difference = scores["encoder"][own - 1] - scores["teacher"][other - 1]
      attention += ((difference**2).mean(1) * seen).sum()
  assert losses["hidden"] == pytest.approx(2.0 * hidden, rel=1e-5)
  assert losses["attention"] == pytest.approx(3.0 * attention, rel=1e-5)
  assert float(weights["hidden"]) == real.sum()
  assert float(weights["attention"]) == seen.sum()
  masked = np.asarray(batch["masked_weights"])
  soft = divergence(softmax(outputs["teacher"] / 3),
                    np.asarray(outputs["mlm"]) / 3)
  assert losses["soft"] == pytest.approx(
      0.5 * 9 * (soft * masked).sum(), rel=1e-5)
  hard = float(Mlm().losses(outputs, batch)["mlm"])
  assert losses["mlm"] == pytest.approx(0.25 * hard, rel=1e-6)
  metrics = recipe.objective.metrics(outputs, batch, recipe.vocabulary)
  assert metrics["bits_per_byte"].total == pytest.approx(
      hard / np.log(2), rel=1e-6)


def scores_of(params, states_NBLD, model) -> np.ndarray:
  """Attention's scores of each layer, of the states before it, in float64."""
  layers = params["layers"]["attention"]
  query, key = (np.einsum("nbld,ndhk->nblhk", states_NBLD[:-1],
                          np.float64(layers[name]["kernel"]))
                + np.float64(layers[name]["bias"])[:, None, None]
                for name in ("query", "key"))
  return np.einsum("nblhk,nbmhk->nbhlm", query, key) * (
      model.hidden_size // model.num_attention_heads)**-0.5


def test_pairs_of_layers_are_spread_or_given():
  pairs = lambda **options: MlmDistillation(**options).pairs(
      tiny.MODEL, TEACHER)
  assert pairs() == [(0, 0), (1, 2), (2, 4)]
  assert pairs(layer_map=("2:3",)) == [(2, 3)]
  with pytest.raises(UserError, match="2:5: the student has 2 layers, the "
                     "teacher 4"):
    pairs(layer_map=("2:5",))
  with pytest.raises(UserError, match="the student has 2, the teacher 4; set "
                     "model.num_attention_heads=4"):
    MlmDistillation(attention_weight=1.0).pairs(
        tiny.MODEL, dataclasses.replace(TEACHER, num_attention_heads=4))


@pytest.mark.parametrize("options, message", [
    ({"temperature": 0.0}, "objective.temperature=0.0: more than 0"),
    ({"soft_weight": 0.0}, "soft_weight=0, .*: at least 0, and one above"),
    ({"hard_weight": -1.0}, "objective.hard_weight=-1, .* at least 0"),
    ({"layer_map": ("1-2",)}, "layer_map has 1-2: expected pairs")])
def test_bad_options_are_refused(options, message):
  with pytest.raises(UserError, match=message):
    Distillation(**options)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
  """Texts, and a classifier of two layers that is trained on them."""
  folder = tmp_path_factory.mktemp("distillation")
  small_run.write(folder)
  train(teacher_of(folder), folder / "teacher")
  return folder


def teacher_of(folder):
  small = small_run.pretraining(folder)
  return dataclasses.replace(
      small, objective=Classification(), steps=2,
      model=dataclasses.replace(small.model, num_hidden_layers=2),
      data=TableData(length=32, examples_per_row=4,
                     train=str(folder / "train.tsv"),
                     evaluation=str(folder / "dev.tsv"),
                     tokenizer=small.data.tokenizer))


def student_of(folder, *overrides):
  return resolve_experiment(teacher_of(folder), [
      "objective=distillation", f"objective.teacher={folder / 'teacher'}",
      f"init_from={folder / 'teacher'}", "model.num_hidden_layers=1",
      "finetuning.layers_from=1", "objective.hidden_weight=0.5",
      "objective.attention_weight=0.5", "objective.hard_weight=0.5",
      "steps=4", *overrides])


@pytest.fixture(scope="module")
def student(folder):
  """The student's work directory and its result."""
  return folder / "student", train(student_of(folder), folder / "student")


@pytest.mark.slow
def test_teacher_stays_as_it_was(folder, student):
  workdir, result = student
  there = leaves(read_checkpoint(folder / "teacher").params)
  here = leaves(jax.device_get(result.params))
  for path, value in here.items():
    origin = result.run.recipe.objective.teacher_origin(path)
    if origin:
      np.testing.assert_array_equal(value, there[origin], err_msg=path)
  assert "teacher_heads/classifier/kernel" in here
  stored = small_run.stored(workdir, result.run)
  assert not [path for path in leaves(stored.opt_state) if "teacher" in path]
  assert [path for path in leaves(stored.opt_state) if "encoder" in path]


def test_teacher_has_no_gradient_and_no_dropout(folder):
  run = compose(student_of(folder), read_checkpoint(
      folder / "teacher").manifest.tokenizer)
  recipe, row = run.recipe, run.prepared.train.row(0, 0)
  batch = {key: np.stack([value, value]) for key, value in row.items()} | {
      "row": np.arange(2, dtype=np.int32)}
  params = jax.jit(recipe.init)(np.int32(0), batch).params
  keys_B = jax.random.split(jax.random.key(1), 2)

  def loss(params):
    outputs = recipe.network.apply(params, batch, keys_B)
    return sum(recipe.objective.losses(outputs, batch).values()), outputs

  gradient, outputs = jax.jit(jax.grad(loss, has_aux=True))(params)
  for path, value in leaves(gradient).items():
    assert path.startswith("teacher") == (not np.any(value)), path
  # The rows are equal, and so is what the teacher makes of them.
  np.testing.assert_array_equal(*outputs["teacher"])
  assert np.any(outputs["classifier"][0] != outputs["classifier"][1])


def test_student_starts_from_layers_of_the_teacher(folder):
  experiment = student_of(folder)
  source = read_checkpoint(folder / "teacher")
  one = initialize.with_layers(source, (1,), 1)
  layers = leaves(one.params["encoder"]["layers"])
  for path, value in leaves(source.params["encoder"]["layers"]).items():
    np.testing.assert_array_equal(layers[path], value[[1]])
  assert experiment.model.num_hidden_layers == 1
  assert experiment.objective.teacher_model.num_hidden_layers == 2
  for layers, count in ((0, 1), 1), ((2,), 1):
    with pytest.raises(UserError, match="expected model.num_hidden_layers=1 "
                       "layers, each from 0 to 1"):
      initialize.with_layers(source, layers, count)
  shared = dataclasses.replace(source, manifest=types.SimpleNamespace(
      experiment=config.override(source.manifest.experiment,
                                 ["model.stack=shared"])))
  with pytest.raises(UserError, match="model.stack=shared; allowed: uniform"):
    initialize.with_layers(shared, (1,), 1)


@pytest.mark.slow
def test_distillation_resumes_bit_for_bit(folder, student, tmp_path):
  workdir, result = student
  small_run.pull_the_plug(student_of(folder), tmp_path / "run", at=3)
  again = train(student_of(folder), tmp_path / "run")
  small_run.equal(again.params, result.params)
  assert small_run.curve(tmp_path / "run") == small_run.curve(workdir)


@pytest.mark.slow
def test_student_is_evaluated_replayed_and_exported(folder, student, tmp_path):
  workdir, result = student
  assert {"soft_loss", "hidden_loss", "attention_loss", "classifier_loss",
          "accuracy"} <= result.scores.keys()
  scores = predict.of_workdir(str(workdir))
  assert scores == pytest.approx(result.scores, rel=1e-5)
  # Outputs of both networks move with the names of the labels.
  turned = predict.of_workdir(str(workdir), ["objective.labels=warm,other"])
  assert turned["soft_loss"] == pytest.approx(scores["soft_loss"], rel=1e-5)
  assert "soft" in str(replay.replay(workdir, 2))
  shown = describe.describe(student_of(folder), student_of(folder), "")
  assert "teacher/layers" in shown and "teacher_heads/classifier" in shown
  exported = exporter.export(workdir, tmp_path / "hf")
  assert exported.architecture == "BertForSequenceClassification"
  card = (tmp_path / "hf" / "README.md").read_text()
  assert re.search(rf"\| teacher +\| {folder / 'teacher'}: 2 layers of 16, "
                   "frozen", card)
  assert "1 layers of 16" in card
  # The student is what a further run starts from.
  further = resolve_experiment(teacher_of(folder), [f"init_from={workdir}"])
  assert further.model.num_hidden_layers == 1
  states = train(further, tmp_path / "further")
  assert not [path for path in leaves(states.params) if "teacher" in path]


def test_teacher_that_does_not_fit_is_refused(folder, tmp_path):
  with pytest.raises(UserError, match="objective.teacher: name the work"):
    train(student_of(folder, "objective.teacher="), tmp_path / "a")
  with pytest.raises(UserError, match="another tokenizer.*init_from="):
    train(student_of(folder, "init_from=", "finetuning.layers_from=",
                     "data.tokenizer.vocab_size=50"), tmp_path / "b")
  with pytest.raises(UserError, match="lacks teacher_heads/classifier.*for "
                     "other labels, classification other, warm; here it is"):
    (folder / "renamed.tsv").write_text(
        (folder / "train.tsv").read_text().replace("other", "no"))
    train(student_of(folder, f"data.train={folder / 'renamed.tsv'}",
                     "data.evaluation="), tmp_path / "c")


@pytest.mark.slow
def test_predictions_train_a_student(folder, tmp_path):
  """The file as `predict` writes it, and no further option."""
  soft = tmp_path / "soft.tsv"
  predict.predict_file(str(folder / "teacher"), str(folder / "train.tsv"),
                       str(soft))
  result = train(resolve_experiment(teacher_of(folder), [
      "objective=soft_labels", f"data.train={soft}",
      f"init_from={folder / 'teacher'}"]), tmp_path / "run")
  # It is the teacher itself: at its start nothing is to be learned.
  first = next(line for line in small_run.curve(tmp_path / "run")
               if "train/loss" in line)
  assert first["train/loss"] < 0.01
  assert "accuracy" in result.scores
