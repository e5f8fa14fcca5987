import math

import numpy as np
import pytest

from bert_jax import metrics
from bert_jax.config import UserError

TAGS = (*metrics.OF_TAGS,)


def test_pairs_add_up_to_the_mean_over_all():
  merged = metrics.merge([{"loss": (np.float32(6), 3), "nsp": (1, 1)},
                          {"loss": (np.float32(4), 1), "empty": (0, 0)}])
  assert merged["loss"] == (10.0, 4.0)
  means = metrics.mean(merged)
  assert means["loss"] == 2.5 and means["nsp"] == 1
  assert math.isnan(means["empty"])


def test_loss_in_other_units():
  assert metrics.perplexity(math.log(8)) == pytest.approx(8)
  assert metrics.perplexity(1e6) == math.inf
  assert metrics.bits_per_byte(16 * math.log(2), 8) == pytest.approx(2)


def test_binary_scores_are_those_of_class_one():
  labels, predictions = [1, 1, 1, 0, 0, 0, 0, 0], [1, 0, 0, 1, 0, 0, 0, 0]
  found = metrics.scores(["accuracy", "precision", "recall", "f1", "matthews"],
                         labels, predictions)
  assert found == pytest.approx({
      "accuracy": 5 / 8, "precision": 1 / 2, "recall": 1 / 3, "f1": 2 / 5,
      "matthews": (1 * 4 - 1 * 2) / math.sqrt(2 * 3 * 5 * 6)})


def test_scores_of_more_classes_are_means_over_them():
  found = metrics.scores(["f1", "recall"], [0, 1, 2, 2], [0, 1, 1, 2])
  assert found == pytest.approx({"f1": (1 + 2 / 3 + 2 / 3) / 3,
                                 "recall": (1 + 1 + 1 / 2) / 3})


def test_correlations():
  found = metrics.scores(["pearson", "spearman"], [1.0, 2.0, 3.0],
                         [0.5, 0.5, 8.0])
  assert found == pytest.approx({"pearson": math.sqrt(3) / 2,
                                 "spearman": math.sqrt(3) / 2})
  far = metrics.scores(["spearman"], [1, 2, 3, 4], [1, 2, 4, 100])
  assert far["spearman"] == pytest.approx(1)
  ties = metrics.scores(["spearman"], [1, 2, 2, 3], [1, 2, 3, 3])
  assert ties["spearman"] == pytest.approx(5 / 6)


@pytest.mark.parametrize("labels", [[0, 1, 0], [1, 1, 1], [0]])
def test_constant_predictions_have_defined_scores(labels):
  found = metrics.scores(metrics.OF_LABELS, labels, [0] * len(labels))
  assert found["matthews"] == found["f1"] == found["precision"] == 0
  assert math.isnan(found["pearson"]) and math.isnan(found["spearman"])


def test_no_examples_no_score():
  found = metrics.scores([*metrics.OF_LABELS, *TAGS], [], [])
  assert all(math.isnan(value) for value in found.values())


def test_an_unknown_metric_names_the_nearest():
  with pytest.raises(UserError, match="'acuracy'; did you mean 'accuracy'"):
    metrics.scores(["acuracy"], [1], [1])


@pytest.mark.parametrize("tags, expected", [
    ("O B-x I-x O", {(1, 3, "x")}),
    ("O I-x I-x", {(1, 3, "x")}),  # I- after O begins a chunk
    ("B-x I-y", {(0, 1, "x"), (1, 2, "y")}),  # so does another kind
    ("B-x B-x", {(0, 1, "x"), (1, 2, "x")}),
    ("I-x B-x I-x", {(0, 1, "x"), (1, 3, "x")}),
    ("B I O", {(0, 2, "")}),
    ("O O", set()),
])
def test_entities(tags, expected):
  assert metrics.entities(tags.split()) == expected


def test_entities_must_agree_in_bounds_and_kind():
  labels = [["B-x", "I-x", "O", "B-y"], ["B-x"]]
  predictions = [["B-x", "O", "O", "B-y"], ["O"]]
  assert metrics.scores(TAGS, labels, predictions) == pytest.approx({
      "tag_accuracy": 3 / 5, "entity_precision": 1 / 2, "entity_recall": 1 / 3,
      "entity_f1": 2 / 5})
  nothing = metrics.scores(TAGS, [["O"]], [["O"]])
  assert nothing["entity_f1"] == nothing["entity_precision"] == 0


def test_scores_of_conlleval(shared):
  text = (shared / "data/golden/conlleval_ground_truth.txt").read_text()
  sentences = [[line.split()[-2:] for line in block.split("\n") if line]
               for block in text.strip().split("\n\n")]
  columns = [[[word[i] for word in sentence] for sentence in sentences]
             for i in (0, 1)]
  found = metrics.scores(TAGS, *columns)
  assert {name: round(100 * value, 2) for name, value in found.items()} == {
      "tag_accuracy": 84.08, "entity_precision": 68.83, "entity_recall": 80.83,
      "entity_f1": 74.35}
