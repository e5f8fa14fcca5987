import math
import pathlib
import re

import numpy as np
import pytest
from hypothesis import given, strategies as st

from bert_jax.config import UserError
from bert_jax.data.labeled.tagging import tagged
from bert_jax.data.labeled.texts import ClassificationSet
from bert_jax.metrics import entities, weighted
from bert_jax.metrics.scores import score

CLASS = ("accuracy", "precision", "recall", "f1", "matthews")
REAL = ("pearson", "spearman")


def scores(names, labels, predictions, classes=2):
  return {name: score(name, labels, predictions, classes) for name in names}


def test_pairs_add_up_to_means_over_all():
  merged = weighted.merge([
      {"mlm_loss": (np.float32(6), 3), "nsp_loss": (1, 1), "empty": (0, 0)},
      {"mlm_loss": (np.float32(4), 1), "nsp_loss": (0, 1)}])
  assert merged["mlm_loss"] == (10, 4)
  values = weighted.summarize(merged)
  assert math.isnan(values.pop("empty"))
  assert values == pytest.approx({
      "mlm_loss": 2.5, "nsp_loss": .5, "loss": 3, "perplexity": math.exp(2.5)})
  assert weighted.summarize({}) == {}
  assert weighted.without_weight(merged | {"sop_loss": (0, 0)}) == ["sop_loss"]
  for random in (1, 3):  # Of four pairs, what a constant answer gets right.
    pairs = weighted.summarize({"nsp_majority": weighted.Mean(random, 4)})
    assert pairs == {"nsp_majority": .75}


def test_perplexity_overflows_to_infinity():
  assert weighted.perplexity(math.log(8)) == pytest.approx(8)
  assert weighted.perplexity(1e6) == math.inf


def test_binary_scores_are_those_of_class_one():
  labels, predictions = [1, 1, 1, 0, 0, 0, 0, 0], [1, 0, 0, 1, 0, 0, 0, 0]
  values = scores(CLASS, labels, predictions)
  assert values == pytest.approx({
      "accuracy": 5 / 8, "precision": 1 / 2, "recall": 1 / 3, "f1": 2 / 5,
      "matthews": (1 * 4 - 1 * 2) / math.sqrt(2 * 3 * 5 * 6)})


@pytest.mark.parametrize("labels, predictions, f1, recall", [
    ([0, 1, 2, 2], [0, 1, 1, 2], (1 + 2 / 3 + 2 / 3) / 3, (1 + 1 + 1 / 2) / 3),
    ([0, 0, 1, 1], [0, 1, 1, 1], (2 / 3 + 4 / 5) / 3, (1 / 2 + 1) / 3),
    ([0, 0, 0], [0, 0, 0], 1 / 3, 1 / 3)])
def test_scores_of_more_classes_are_means_over_them(labels, predictions, f1,
                                                    recall):
  """Over those that are declared, whichever happen to occur."""
  assert scores(["f1", "recall"], labels, predictions, 3) == pytest.approx(
      {"f1": f1, "recall": recall})
  labeled = ClassificationSet(
      names=list(map(str, labels)), texts_a=list(map(str, labels)),
      labels=np.array(labels, np.int32), label_names=("a", "b", "c"))
  assert labeled.scores(np.eye(3)[predictions])["f1"] == pytest.approx(f1)


def test_correlations_match_hand_computed_values():
  values = scores(REAL, [1.0, 2.0, 3.0], [0.5, 0.5, 8.0])
  assert values == pytest.approx({"pearson": math.sqrt(3) / 2,
                                 "spearman": math.sqrt(3) / 2})
  far = score("spearman", [1, 2, 3, 4], [1, 2, 4, 100])
  assert far == pytest.approx(1)
  ties = score("spearman", [1, 2, 2, 3], [1, 2, 3, 3])
  assert ties == pytest.approx(5 / 6)


@pytest.mark.parametrize("labels", [[0, 1, 0], [1, 1, 1], [0]])
def test_constant_predictions_have_defined_scores(labels):
  values = scores(CLASS + REAL, labels, [0] * len(labels))
  assert values["matthews"] == values["f1"] == values["precision"] == 0
  assert math.isnan(values["pearson"]) and math.isnan(values["spearman"])


def test_scores_of_no_examples_are_nan():
  values = scores(CLASS + REAL, [], [])
  assert all(math.isnan(value) for value in values.values())


def test_unknown_metric_suggests_the_nearest():
  with pytest.raises(UserError, match="'acuracy'; did you mean 'accuracy'"):
    score("acuracy", [1], [1])


@pytest.mark.parametrize("tags, expected", [
    ("O B-x I-x O", {(1, 3, "x")}),
    ("O I-x I-x", {(1, 3, "x")}),  # I- after O begins a chunk
    ("B-x I-y", {(0, 1, "x"), (1, 2, "y")}),  # so does another kind
    ("B-x B-x", {(0, 1, "x"), (1, 2, "x")}),
    ("I-x B-x I-x", {(0, 1, "x"), (1, 3, "x")}),
    ("O E-x I-x E-y", {(1, 2, "x"), (2, 3, "x"), (3, 4, "y")}),
    ("S-x E-x B-x S-x", {(0, 1, "x"), (1, 2, "x"), (2, 3, "x"), (3, 4, "x")}),
    ("O O", set()),
])
def test_entities_follow_conlleval(tags, expected):
  assert entities.entities(tags.split()) == expected


# What the first, inner, last and only word of an entity is called; in IOB1 and
# IOE1 the first and the last, where another of its kind is beside them.
_FORMS = {"IOB1": "BIII", "IOB2": "BIIB", "IOE1": "IIEI", "IOE2": "IIEE",
          "IOBES": "BIES", "BILOU": "BILU", "BMES": "BMES", "BMEW": "BMEW"}


@given(st.lists(st.tuples(st.integers(0, 2), st.integers(1, 4),
                          st.sampled_from(["PER", "geo-loc"])), min_size=1,
                max_size=6), st.sampled_from(list(_FORMS)),
       st.sampled_from([("-", True), ("_", True), ("-", False), ("", True)]))
def test_entities_are_read_in_every_scheme(spans, form, spelling):
  separator, letter_first = spelling
  if not separator:
    spans = [(gap, size, "") for gap, size, _ in spans]
  spell = lambda x, kind: separator.join([x, kind][::1 if letter_first else -1])
  first, inner, last, only = _FORMS[form]
  tags, expected, kind_before = [], set(), None
  for (gap, size, kind), (next_gap, _, next_kind) in zip(
      spans, [*spans[1:], (1, 1, "")]):
    letters = [first, *inner * (size - 2), last] if size > 1 else [only]
    if form == "IOB1":
      letters[0] = "B" if not gap and kind == kind_before else "I"
    if form == "IOE1":
      letters[-1] = "E" if not next_gap and kind == next_kind else "I"
    tags += ["O"] * gap
    expected.add((len(tags), len(tags) + size, kind))
    tags += [spell(x, kind) for x in letters]
    kind_before = kind
  scheme = entities.scheme_of([
      "O", *(spell(x, kind) for x in set(_FORMS[form]) for kind in
             {kind for *_, kind in spans})])
  assert entities.entities(tags, scheme) == expected


@pytest.mark.parametrize("label_names, said", [
    (("B-x", "I-x", "O"), ""), (("O", "S-x"), ""),
    (("B_x", "I_x", "O"), "B_x is B of x"),
    (("O", "geo-loc-B", "geo-loc-I"), "geo-loc-B is B of geo-loc"),
    (("B", "I", "O"), "B is B of a single kind"),
    (("ADJ", "NOUN", "O", "X"), "none of entities .*ADJ, NOUN, X"),
    (("B-x", "I-x", "O", "_"), "none of entities .*but _"),
    (("B-x", "E-x", "L-x"), "none of entities"), (("NN-S", "O"), "none"),
    (("S", "O", "V"), "none"), (("O",), "none .*only O")])
def test_tags_that_are_no_entities_have_no_entity_scores(label_names, said,
                                                         caplog):
  tags = [*label_names, label_names[0], label_names[-1]]
  labeled = tagged([("x", tags, tags)])
  assert re.search(said, caplog.text) and bool(said) == bool(caplog.text)
  wrong = np.eye(len(label_names))[labeled.labels[0]]
  wrong[0] = np.eye(len(label_names))[-1]
  values = labeled.scores([wrong])
  assert tuple(values) == labeled.score_names
  assert values["tag_accuracy"] == np.mean(
      wrong.argmax(-1) == labeled.labels[0])
  if "none" not in said:
    assert "entity_f1" in values and len(values) == 4
    return
  assert list(values) == ["tag_accuracy", "macro_f1"] + [
      f"f1_{name}" for name in labeled.label_names]
  sklearn = pytest.importorskip("sklearn.metrics")
  assert values["macro_f1"] == pytest.approx(sklearn.f1_score(
      labeled.labels[0], wrong.argmax(-1), average="macro", zero_division=0))


def test_entities_must_agree_in_bounds_and_kind():
  labels = [["B-x", "I-x", "O", "B-y"], ["B-x"]]
  predictions = [["B-x", "O", "O", "B-y"], ["O"]]
  assert entities.entity_scores(labels, predictions) == pytest.approx({
      "tag_accuracy": 3 / 5, "entity_precision": 1 / 2,
      "entity_recall": 1 / 3, "entity_f1": 2 / 5})


def test_entity_scores_without_entities_are_zero():
  assert entities.entity_scores([["O"]], [["O"]]) == {
      "tag_accuracy": 1, "entity_precision": 0, "entity_recall": 0,
      "entity_f1": 0}
  assert math.isnan(entities.entity_scores([], [])["tag_accuracy"])


def test_entity_scores_equal_those_of_conlleval():
  # The tags of conlleval's own example, with the scores that it prints.
  text = (pathlib.Path(__file__).parent / "data/conlleval.txt").read_text()
  sentences = [[line.split() for line in block.split("\n")]
               for block in text.strip().split("\n\n")]
  labels, predictions = (
      [[word[column] for word in sentence] for sentence in sentences]
      for column in (0, 1))
  values = entities.entity_scores(labels, predictions)
  assert {name: round(100 * value, 2) for name, value in values.items()} == {
      "tag_accuracy": 84.08, "entity_precision": 68.83,
      "entity_recall": 80.83, "entity_f1": 74.35}
