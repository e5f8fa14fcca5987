"""Kinds of labels: what holds for all of them, and for each."""

import contextlib
import dataclasses
import functools
import json
import types
from collections.abc import Callable

import jax
import numpy as np
import pytest

from bert_jax import config
from bert_jax.config import UserError
from bert_jax.data.batches import loader
from bert_jax.data.batches.spec import empty_row
from bert_jax.data.labeled.base import KINDS, LabeledSet
from bert_jax.data.labeled.texts import ClassificationSet, RegressionSet
from bert_jax.data.labeled.multi_label import MultiLabelSet
from bert_jax.data.labeled.segments import MultipleChoiceSet, EmbeddingSet
from bert_jax.data.labeled.soft_labels import SoftLabelSet
from bert_jax.data.labeled.tagging import tagged
from bert_jax.data.records.columns import Columns
from bert_jax.experiment import Experiment
from bert_jax.metrics import retrieval
from bert_jax.metrics.scores import label_set_scores, pearson
from bert_jax.objectives.base import Objective
from bert_jax.objectives.classification import Classification, Tagging
from bert_jax.objectives.embedding import Contrastive, Similarity
from bert_jax.runs import evaluation
from tests import tiny
from tests.test_tasks import Letters

COUNT, NAMES = 6, ("a", "b", "c")


class Tiny(Letters):
  """Words of letters, in the vocabulary of the tiny network."""

  vocabulary = tiny.VOCABULARY

  def encode_words(self, words_batch):
    return [[[5 + i % 43 for i in ids] for ids in words]
            for words in super().encode_words(words_batch)]


def texts(seed: int, longest: int = 3) -> list[str]:
  rng = np.random.default_rng(seed)
  return [" ".join("".join(rng.choice(list("abcdef"), rng.integers(1, 5)))
                   for _ in range(rng.integers(1, longest + 1)))
          for _ in range(COUNT)]


def labels(*shape: int, top: int = 3) -> np.ndarray:
  return np.random.default_rng(7).integers(0, top, shape).astype(np.int32)


# A set of each kind; a new kind needs one here.
MADE: dict[str, Callable[[], LabeledSet]] = {
    "classification": lambda: ClassificationSet(
        names=texts(0), texts_a=texts(0), texts_b=texts(1),
        labels=labels(COUNT), label_names=NAMES),
    "regression": lambda: RegressionSet(
        names=texts(0), texts_a=texts(0),
        labels=labels(COUNT).astype(np.float32)),
    "multi_label": lambda: MultiLabelSet(
        names=texts(0), texts_a=texts(0), label_names=NAMES,
        labels=labels(COUNT, 3, top=2).astype(np.float32)),
    "soft_labels": lambda: SoftLabelSet(
        names=texts(0), texts_a=texts(0), labels=labels(COUNT),
        probabilities=np.random.default_rng(3).dirichlet(
            np.ones(3), COUNT).astype(np.float32), label_names=NAMES),
    "tagging": lambda: tagged([
        (text, text.split(), labels(len(text.split())).astype(str))
        for text in texts(0)], ("0", "1", "2")),
    "multiple_choice": lambda: MultipleChoiceSet(
        names=texts(0), texts_a=texts(0, 1), labels=labels(COUNT),
        choices=[list(c) for c in zip(texts(1, 1), texts(2, 1), texts(3, 1))],
        label_names=NAMES),
    "embedding": lambda: EmbeddingSet(
        names=texts(0), texts_a=texts(0), texts_b=texts(1),
        labels=labels(COUNT).astype(np.float32)),
}
OBJECTIVES = {
    name: member for name, member in Objective.members().items()
    if member.label_kind and member.label_kind.kind in MADE
    and member is not Contrastive
    and member.__module__.startswith("bert_jax.")}


# Of members whose defaults leave a part of the loss out.
OPTIONS = {
    "soft_labels": {"hard_weight": 0.5},
    "distillation": {"hard_weight": 0.5, "hidden_weight": 1.0,
                     "attention_weight": 1.0}}


def objective_for(member: type[Objective], labeled: LabeledSet) -> Objective:
  options = OPTIONS.get(member.choice_name, {})
  if "labels" in member.__dataclass_fields__:
    return member(labels=labeled.label_names, **options)
  return member(**options)


def batches_of(labeled: LabeledSet) -> tuple[dict, dict]:
  """One example a row, and up to three, in the same shape for one program."""
  rows = labeled.rows(Tiny(), 72, 3, 0, shuffle=False)
  alone = [rows._row(rows.examples(0), np.array([i, -1, -1]))
           for i in range(COUNT)]
  packed = next(loader.evaluation_batches(rows, COUNT))
  return {key: np.stack([row[key] for row in alone])
          for key in alone[0]} | {"row": packed["row"]}, packed


@pytest.mark.parametrize("name", OBJECTIVES)
def test_packed_examples_equal_one_a_row(name):
  """Same logits and gradients, and predictions in the order of examples."""
  labeled = MADE[OBJECTIVES[name].label_kind.kind]()
  objective = objective_for(OBJECTIVES[name], labeled)
  recipe = tiny.recipe(objective, num_hidden_layers=1,
                       max_position_embeddings=72)
  single, packed = batches_of(labeled)
  assert (packed["example_mask"].sum(-1) > 1).any()
  rng = np.random.default_rng(0)
  params = jax.tree.map(
      lambda x: rng.normal(0, 0.2, x.shape).astype(np.float32),
      jax.eval_shape(recipe.init, np.int32(0), single).params)

  def loss(params, batch):
    logits = recipe.network.apply(params, batch)
    totals, weights = objective.losses(logits, batch), objective.weights(batch)
    pairs = objective.metrics(logits, batch, recipe.vocabulary)
    return sum(totals[name] / weights[name] for name in totals), (
        pairs, objective.predictions(logits))

  run = jax.jit(jax.value_and_grad(loss, has_aux=True))
  both = []
  for batch in (single, packed):
    (value, (pairs, predicted)), gradient = run(params, batch)
    predictions = labeled.collect([(batch, np.asarray(predicted))])
    both.append((value, gradient, pairs, predictions))
  jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=0,
                                 atol=2e-6), *both)
  scores = labeled.scores(both[0][3])
  assert scores and set(scores) <= set(labeled.score_names)
  records = labeled.predictions(both[1][3])
  assert len(records) == COUNT
  assert {len(record) for record in records} == {
      len(labeled.predicted_columns())}


@pytest.mark.parametrize("name, best, wrong", [
    ("classification", "accuracy", "acuracy"), ("regression", "pearson", "f1"),
    ("multi_label", "macro_f1", "accuracy"),
    ("tagging", "f1_2", "entity_f1"),  # its tags are none of entities
    ("multiple_choice", "loss", "exact"),
    ("similarity", "spearman", "recall_5")])
def test_best_is_checked_before_the_first_step(name, best, wrong):
  labeled = MADE[OBJECTIVES[name].label_kind.kind]()
  objective = objective_for(OBJECTIVES[name], labeled)
  recipe = tiny.recipe(objective, num_hidden_layers=1,
                       max_position_embeddings=72)
  rows = labeled.rows(Tiny(), 72, 3, 0)
  row = {key: value[None] for key, value in rows.empty().items()}
  row["row"] = np.zeros(1, np.int32)
  run = types.SimpleNamespace(
      recipe=recipe, row=lambda: row,
      shape=lambda: jax.eval_shape(recipe.init, np.int32(0), row),
      prepared=types.SimpleNamespace(evaluation_set=labeled))
  for metric in best, wrong:
    run.experiment = dataclasses.replace(
        Experiment(), objective=objective, best=metric)
    with (pytest.raises(UserError, match=f"(?s)best={wrong}: no such.*{best}")
          if metric == wrong else contextlib.nullcontext()):
      evaluation.check_best(run)


@pytest.mark.parametrize("kind", MADE)
def test_rows_have_the_declared_keys_and_fills(kind):
  labeled = MADE[kind]()
  rows = labeled.rows(Tiny(), 72, 3, 0)
  expected = empty_row(KINDS[kind].keys, {
      "L": 72, "E": 3, "C": len(labeled.label_names),
      "S": 3 * KINDS[kind].segments(labeled.label_names)}, Tiny.vocabulary)
  row = rows.row(0, 0)
  assert set(row) == set(expected)
  for key, value in expected.items():
    assert (row[key].shape, row[key].dtype) == (value.shape, value.dtype), key
  none = rows._row(rows.examples(0), np.full(3, -1))
  for empty in (none, rows.empty()):
    np.testing.assert_equal(empty, expected)
  assert isinstance(KINDS[kind].describe_label(row, 0, labeled.label_names),
                    str)
  few = labeled.subset([3, 1])
  assert few.names == [labeled.names[3], labeled.names[1]]
  assert few.texts() and len(few.encode(Tiny(), 72)) == 2


class Roberta(Tiny):
  vocabulary = dataclasses.replace(Tiny.vocabulary, pair_separators=2,
                                   pair_token_type=0)


@pytest.mark.parametrize("tokenizer", [Tiny(), Roberta()],
                         ids=["BERT's", "RoBERTa's"])
def test_examples_are_not_split_across_rows(tokenizer):
  labeled = MADE["multiple_choice"]()
  seen = []
  rows = labeled.rows(tokenizer, 72, 3, 0)
  for row in map(lambda i: rows.row(0, i), range(len(rows))):
    for slot, example in enumerate(row["example_index"].tolist()):
      if example < 0:
        continue
      seen.append(example)
      for choice in range(3):
        segment = slot * 3 + choice
        here = row["example_ids"] == segment + 1
        assert row["cls_positions"][segment] == np.flatnonzero(here)[0]
        ids = row["input_ids"][here].tolist()
        a, b = Tiny().encode([labeled.texts_a[example],
                              labeled.choices[example][choice]])
        between = [3] * tokenizer.vocabulary.pair_separators
        assert ids == [2, *a, *between, *b, 3]
        assert row["position_ids"][here].tolist() == list(range(len(ids)))
  assert sorted(seen) == list(range(COUNT))


def write(path, *records: dict) -> str:
  path.write_text("".join(json.dumps(record) + "\n" for record in records))
  return str(path)


def test_label_sets_are_read(tmp_path):
  path = tmp_path / "a.tsv"
  path.write_text("sentence\tlabel\nhi\tred|blue\nho\t\nha\tblue\n")
  labeled = MultiLabelSet.read(str(path), Columns(separator="|"))
  assert labeled.label_names == ("blue", "red")
  assert labeled.labels.tolist() == [[1, 1], [0, 0], [1, 0]]
  labeled.write(str(tmp_path / "b.tsv"), np.array(
      [[0.9, 0.8], [0.1, 0.2], [0.7, 0.3]]))
  again = MultiLabelSet.read(str(tmp_path / "b.tsv"), Columns(
      label="predicted_labels", separator="|"))
  np.testing.assert_array_equal(again.labels, labeled.labels)
  lists = write(tmp_path / "a.jsonl", {"sentence": "x", "label": ["red"]},
                {"sentence": "y", "label": ["rde", "blue"]})
  with pytest.raises(UserError, match="a.jsonl:2: the label 'rde' is not known"
                     "; did you mean 'red'"):
    MultiLabelSet.read(lists, Columns(), labeled.label_names)
  remaining = MultiLabelSet.read(lists, Columns(bad_records="skip"),
                                 ("blue", "red"))
  assert remaining.labels.tolist() == [[0, 1]]


def test_choices_are_read(tmp_path):
  columns = Columns("premise", pair="begins", choices=("one", "two"))
  path = tmp_path / "a.tsv"
  path.write_text("premise\tbegins\tone\ttwo\tlabel\n"
                  "It rained.\tSo\twe ran\twe slept\t1\n")
  labeled = MultipleChoiceSet.read(str(path), columns)
  assert labeled.choices == [["So we ran", "So we slept"]]
  assert labeled.labels.tolist() == [1]
  assert labeled.label_names == ("0", "1")
  lists = write(tmp_path / "a.jsonl",
                {"q": "x", "options": ["u", "v", "w"], "label": "C"},
                {"q": "y", "options": ["u", "v"], "label": "A"})
  with pytest.raises(UserError, match="1 with another number of choices.*\n"
                     ".*:2: 2 choices, not 3"):
    MultipleChoiceSet.read(lists, Columns("q", choices=("options",)),
                           ("A", "B", "C"))
  with pytest.raises(UserError, match="name the columns of the choices"):
    MultipleChoiceSet.read(lists, Columns("q"))


def test_vectors_are_scored_by_similarity_or_retrieval():
  labeled = MADE["embedding"]()
  vectors = np.random.default_rng(0).normal(size=(COUNT, 2, 4))
  similar = labeled.scores(vectors)
  assert similar["pearson"] == pearson(
      labeled.labels, (vectors[:, 0] * vectors[:, 1]).sum(-1))
  unlabeled = dataclasses.replace(labeled, labels=None)
  vectors[:, 1] = vectors[:, 0]
  assert unlabeled.scores(vectors / np.linalg.norm(
      vectors, axis=-1, keepdims=True))["recall_1"] == 1
  single = EmbeddingSet(names=labeled.names, texts_a=labeled.texts_a)
  assert single.encode(Tiny(), 72).segments == 1
  assert single.scores(vectors[:, :1]) == {}


def test_retrieval_scores_count_ties():
  query, passage = np.eye(3), np.eye(3)
  assert retrieval.retrieval_scores(query, passage) == {
      "mrr": 1, "recall_1": 1, "recall_10": 1}
  scores = retrieval.retrieval_scores(query, passage[[1, 0, 2]])
  # The third ranks first; for the others one is nearer, and one as near.
  assert scores["mrr"] == pytest.approx((1 + 1 / 3 + 1 / 3) / 3)
  # A copy of the right passage is no rival; another one as near is.
  copies = retrieval.retrieval_scores(np.eye(2)[[0, 0]], np.eye(2)[[0, 0]])
  assert copies["recall_1"] == 1


def test_label_set_scores_equal_sklearn():
  sklearn = pytest.importorskip("sklearn.metrics")
  gold, predicted = (np.random.default_rng(i).random((40, 5)) < 0.4
                     for i in range(2))
  gold[:, 4] = predicted[:, 4] = False  # a class without examples
  scores = label_set_scores(gold, predicted)
  for average in ("micro", "macro"):
    assert scores[f"{average}_f1"] == pytest.approx(sklearn.f1_score(
        gold, predicted, average=average, zero_division=0))
  assert scores["exact_match"] == pytest.approx(
      sklearn.accuracy_score(gold, predicted))


def test_negatives_are_the_other_examples_of_the_row():
  contrastive = Contrastive(scale=2.0)
  vectors = np.random.default_rng(0).normal(size=(2, 3, 2, 4)).astype("f4")
  mask = np.array([[1, 1, 0], [1, 0, 0]], np.float32)
  batch = {"example_mask": mask}
  score = 2.0 * vectors[0, :2, 0] @ vectors[0, :2, 1].T
  expected = sum(np.log(np.exp(score[i]).sum()) - score[i, i] for i in range(2))
  assert contrastive.weights(batch)["contrastive"] == 2
  assert contrastive.losses({"vectors": vectors}, batch)[
      "contrastive"] == pytest.approx(expected, rel=1e-5)
  with pytest.raises(UserError, match="data.examples_per_row to at least 2"):
    contrastive.losses({"vectors": vectors[:, :1]},
                       {"example_mask": mask[:, :1]})
  with pytest.raises(UserError, match="data.columns.pair"):
    Similarity().losses({"vectors": vectors[:, :, :1]}, batch)


def test_class_weights_give_a_weighted_mean():
  """As torch's CrossEntropyLoss(weight): the weights' sum divides."""
  rng = np.random.default_rng(0)
  logits = rng.normal(size=(2, 3, 2)).astype(np.float32)
  labels_BE = np.array([[0, 1, 1], [1, -1, -1]], np.int32)
  mask_BE = (labels_BE >= 0).astype(np.float32)
  batch = {"labels": labels_BE, "example_mask": mask_BE}
  weights = np.array([3.0, 0.5])
  log_p = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
  real = [(0, 0), (0, 1), (0, 2), (1, 0)]
  expected = sum(-weights[labels_BE[i]] * log_p[i][labels_BE[i]] for i in real)
  for member in (Classification, Tagging):
    objective = member(labels=("x", "y"), class_weights=(3.0, 0.5))
    loss = objective.losses({"classifier": logits}, batch)["classifier"]
    assert loss == pytest.approx(expected, rel=1e-5)
    assert objective.weights(batch)["classifier"] == pytest.approx(4.5)


def test_balanced_weights_come_from_the_training_set():
  labeled = ClassificationSet(names=list("abcd"), texts_a=list("abcd"),
                              labels=np.array([0, 1, 1, 1], np.int32),
                              label_names=("x", "y"))
  objective = Classification(balanced=True).complete(labeled)
  assert objective.class_weights == (2.0, 4 / 6)  # scikit-learn's "balanced"
  assert objective.labels == ("x", "y")
  assert objective.complete(labeled) == objective
  tags = tagged([("x", ["a", "b"], ["O", "B"]), ("y", ["c"], ["O"])])
  assert Tagging(balanced=True).complete(tags).class_weights == (1.5, 0.75)
  one = ClassificationSet(names=["a"], texts_a=["a"], label_names=("x", "y"),
                          labels=np.zeros(1, np.int32))
  for examples in (one, tagged([("x", ["a", "b"], ["O", "O"])]),
                   MultipleChoiceSet(names=["a"], texts_a=["a"],
                                     choices=[["b"]], label_names=("0",),
                                     labels=np.zeros(1, np.int32)),
                   MultiLabelSet(names=["a"], texts_a=["a"],
                                 label_names=("x", "y"),
                                 labels=np.ones((1, 2), np.float32)),
                   RegressionSet(names=["a", "b"], texts_a=["a", "b"],
                                 labels=np.ones(2, np.float32))):
    with pytest.raises(UserError, match="that all have the same label"):
      Classification().complete(examples)
  with pytest.raises(UserError, match="has 3 weights, but there are 2 labels"):
    Classification(class_weights=(1.0, 2.0, 3.0)).complete(labeled)
  for weights in ((1.0, -1.0), (0.0, 0.0), (float("nan"), 1.0)):
    with pytest.raises(UserError, match="each at least 0, and one above"):
      Classification(class_weights=weights)
  with pytest.raises(UserError, match="data.columns.label"):
    Similarity().complete(dataclasses.replace(MADE["embedding"](), labels=None))
  assert config.override(
      Experiment(objective=Classification()),
      ["objective.class_weights=1,2.5"]).objective.class_weights == (1, 2.5)
