"""Entities in tags, as conlleval reads them, and scores of tags by themselves.

Tags are O, or a letter and a kind of entity: B-PER, I-PER. The letters are
those of IOB1, IOB2, IOE1, IOE2, IOBES, BILOU (L is E, U is S) and BMES or BMEW
(M is I, W is S); one way of reading serves them all.
"""

import dataclasses
import math
from collections.abc import Iterable, Sequence

import numpy as np

Tags = Sequence[str]
OUTSIDE = "O"
_LETTERS = {"B": "B", "I": "I", "M": "I", "E": "E", "L": "E", "S": "S",
            "U": "S", "W": "S"}
_FAMILIES = "BIES", "BILU", "BMES", "BMEW"  # the letters that go together


@dataclasses.dataclass(frozen=True)
class Scheme:
  """How tags of entities are spelled.

  Attributes:
    separator: between letter and kind; "": there are only letters.
    letter_first: B-PER rather than PER-B.
  """

  separator: str = "-"
  letter_first: bool = True

  def split(self, tag: str) -> tuple[str, str] | None:
    """(letter, kind) of a tag; None if it is not of this scheme."""
    if tag == OUTSIDE:
      return OUTSIDE, ""
    if not self.separator:
      return (tag, "") if tag in _LETTERS else None
    if self.letter_first:
      letter, _, kind = tag.partition(self.separator)
    else:
      kind, _, letter = tag.rpartition(self.separator)
    return (letter, kind) if letter in _LETTERS and kind else None

  def reads(self, tags: Iterable[str]) -> bool:
    """Whether these tags, and more than O, are of this scheme."""
    letters = {(self.split(tag) or "?")[0] for tag in tags} - {OUTSIDE}
    # Without a B or an I, other tags than B-X are likelier something else.
    usual = self == Scheme() or letters & set("BIM")
    return bool(letters and usual and any(
        letters <= set(family) for family in _FAMILIES))


_SCHEMES = (Scheme(), Scheme("_"), Scheme("-", False), Scheme("_", False),
            Scheme(""))


def scheme_of(label_names: Iterable[str]) -> Scheme | None:
  """The scheme of a set of tags; None if they are not of entities."""
  tags = set(label_names)
  return next((scheme for scheme in _SCHEMES if scheme.reads(tags)), None)


def description(label_names: Sequence[str]) -> str:
  """A sentence on how the tags are read; "" for the usual B-X."""
  scheme = scheme_of(label_names)
  if scheme == Scheme():
    return ""
  if scheme:
    tag = next(tag for tag in label_names if tag != OUTSIDE)
    letter, kind = scheme.split(tag)
    return (f"The tags are read as entities: {tag} is {letter} of "
            f"{kind or 'a single kind'}.")
  other = [tag for tag in label_names if not Scheme().split(tag)]
  return (f"The tags are none of entities (as B-X, I-X and O are; but "
          f"{', '.join(other[:5]) or 'there is only O'}): they get "
          "tag_accuracy and an F1 each, and no entity scores.")


def entities(tags: Tags,
             scheme: Scheme = Scheme()) -> set[tuple[int, int, str]]:
  """(start, end, kind) of every chunk, as conlleval.

  An I or E that continues no chunk of its kind begins one, and whatever does
  not continue a chunk ends it, so that IOB1 and IOB2 are both read (Tjong Kim
  Sang and Buchholz 2000).
  """
  spans, start, open_kind = set(), 0, None
  for i, tag in enumerate([*tags, OUTSIDE]):
    letter, kind = scheme.split(tag)
    place = _LETTERS.get(letter, OUTSIDE)
    if place not in ("I", "E") or kind != open_kind:
      if open_kind is not None:
        spans.add((start, i, open_kind))
      start, open_kind = i, None if place == OUTSIDE else kind
    if place in ("E", "S"):
      spans.add((start, i + 1, kind))
      open_kind = None
  return spans


def entity_counts(labels: Sequence[Tags], predictions: Sequence[Tags],
                  scheme: Scheme = Scheme()) -> np.ndarray:
  """Of each sentence how many entities are right, predicted and labeled, int
  (X, 3). An entity is right when bounds and kind are."""
  pairs = [[entities(tags, scheme) for tags in pair]
           for pair in zip(labels, predictions, strict=True)]
  return np.array([(len(gold & proposed), len(proposed), len(gold))
                   for gold, proposed in pairs], int).reshape(-1, 3)


def entity_scores(labels: Sequence[Tags], predictions: Sequence[Tags],
                  scheme: Scheme = Scheme()) -> dict[str, float]:
  """What conlleval prints, of sentences of tags.

  Precision, recall and F1 are zero where their denominator is; `tag_accuracy`
  is the share of words with the right tag, nan where there are none.
  """
  correct, predicted, labeled = map(int, entity_counts(
      labels, predictions, scheme).sum(0))
  words = sum(map(len, labels))
  correct_words = sum(
      a == b for label, prediction in zip(labels, predictions)
      for a, b in zip(label, prediction, strict=True))
  return {
      "tag_accuracy": correct_words / words if words else math.nan,
      "entity_precision": correct / max(predicted, 1),
      "entity_recall": correct / max(labeled, 1),
      "entity_f1": 2 * correct / max(predicted + labeled, 1),
  }


def tag_scores(labels_W: np.ndarray, predictions_W: np.ndarray,
               label_names: Sequence[str]) -> dict[str, float]:
  """Of tags that are no entities: accuracy, and the F1 of each and their mean.

  Args:
    labels_W: the number of each word's tag.
    predictions_W: likewise.

  The F1 of a tag is zero where it is neither a label nor predicted; the
  accuracy is nan where there are no words.
  """
  right_W = labels_W == predictions_W
  hits_C, labeled_C, predicted_C = (
      np.bincount(tags, minlength=len(label_names))
      for tags in (labels_W[right_W], labels_W, predictions_W))
  f1_C = 2 * hits_C / np.maximum(labeled_C + predicted_C, 1)
  return {"tag_accuracy": float(right_W.mean()) if len(labels_W) else math.nan,
          "macro_f1": float(f1_C.mean()),
          **{f"f1_{name}": float(f1) for name, f1 in zip(label_names, f1_C)}}
