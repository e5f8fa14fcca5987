"""Entities in tags: BIO, as conlleval reads them."""

import math
from collections.abc import Sequence

Tags = Sequence[str]


def entities(tags: Tags) -> set[tuple[int, int, str]]:
  """(start, end, kind) of every chunk of B-, I- and O tags, as conlleval.

  An I- that continues no chunk of its kind begins one, so that IOB1 and IOB2
  are both read (Tjong Kim Sang and Buchholz 2000). No tag at all ("") is O.
  """
  spans, start, open_kind = set(), 0, None
  for i, tag in enumerate([*tags, "O"]):
    prefix, _, kind = tag.partition("-")
    if prefix == "I" and kind == open_kind:
      continue
    if open_kind is not None:
      spans.add((start, i, open_kind))
    start, open_kind = i, None if prefix in ("O", "") else kind
  return spans


def entity_scores(
    labels: Sequence[Tags], predictions: Sequence[Tags]
) -> dict[str, float]:
  """What conlleval prints, of sentences of tags.

  An entity is right when bounds and kind are. Precision, recall and F1 are
  zero where their denominator is; `tag_accuracy` is the share of labeled words
  with the right tag, nan where there are none.
  """
  correct = predicted = labeled = words = correct_words = 0
  for label, prediction in zip(labels, predictions, strict=True):
    gold, proposed = entities(label), entities(prediction)
    correct += len(gold & proposed)
    predicted += len(proposed)
    labeled += len(gold)
    pairs = [pair for pair in zip(label, prediction, strict=True) if pair[0]]
    words += len(pairs)
    correct_words += sum(a == b for a, b in pairs)
  return {
      "tag_accuracy": correct_words / words if words else math.nan,
      "entity_precision": correct / max(predicted, 1),
      "entity_recall": correct / max(labeled, 1),
      "entity_f1": 2 * correct / max(predicted + labeled, 1),
  }
