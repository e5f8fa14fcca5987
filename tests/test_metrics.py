import math
import pathlib

import numpy as np
import pytest

from bert_jax.config import UserError
from bert_jax.metrics import entities, weighted
from bert_jax.metrics.scores import score

CLASS = ("accuracy", "precision", "recall", "f1", "matthews")
REAL = ("pearson", "spearman")


def scores(names, labels, predictions):
  return {name: score(name, labels, predictions) for name in names}


def test_pairs_add_up_to_means_over_all():
  merged = weighted.merge([
      {"mlm_loss": (np.float32(6), 3), "nsp_loss": (1, 1), "empty": (0, 0)},
      {"mlm_loss": (np.float32(4), 1), "nsp_loss": (0, 1)}])
  assert merged["mlm_loss"] == (10, 4)
  values = weighted.summarize(merged)
  assert math.isnan(values.pop("empty"))
  assert values == pytest.approx({
      "mlm_loss": 2.5, "nsp_loss": .5, "loss": 3, "perplexity": math.exp(2.5)})


def test_perplexity_overflows_to_infinity():
  assert weighted.perplexity(math.log(8)) == pytest.approx(8)
  assert weighted.perplexity(1e6) == math.inf


def test_binary_scores_are_those_of_class_one():
  labels, predictions = [1, 1, 1, 0, 0, 0, 0, 0], [1, 0, 0, 1, 0, 0, 0, 0]
  values = scores(CLASS, labels, predictions)
  assert values == pytest.approx({
      "accuracy": 5 / 8, "precision": 1 / 2, "recall": 1 / 3, "f1": 2 / 5,
      "matthews": (1 * 4 - 1 * 2) / math.sqrt(2 * 3 * 5 * 6)})


def test_scores_of_more_classes_are_means_over_them():
  values = scores(["f1", "recall"], [0, 1, 2, 2], [0, 1, 1, 2])
  assert values == pytest.approx({"f1": (1 + 2 / 3 + 2 / 3) / 3,
                                 "recall": (1 + 1 + 1 / 2) / 3})


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
    ("B I O", {(0, 2, "")}),
    ("O O", set()),
])
def test_entities_follow_conlleval(tags, expected):
  assert entities.entities(tags.split()) == expected


def test_entities_must_agree_in_bounds_and_kind():
  labels = [["B-x", "I-x", "O", "B-y"], ["B-x", ""]]
  predictions = [["B-x", "O", "O", "B-y"], ["", "O"]]
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
