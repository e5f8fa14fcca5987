"""Examples that are vectors of numbers, with a label each or without.

Dimensions: X examples of L vectors with J numbers each, E of them in a row.
"""

import dataclasses
import functools
import hashlib
from typing import Any, ClassVar

import numpy as np

from bert_jax.config import UserError
from bert_jax.data.batches import spec
from bert_jax.data.batches.rows import Rows
from bert_jax.data.labeled.base import LabeledSet, Records
from bert_jax.data.labeled.texts import OneClass, OneNumber


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class VectorSet(LabeledSet):
  """Examples without labels.

  Attributes:
    values_XLJ: float32, as the network gets them.
  """

  keys: ClassVar[spec.Keys] = spec.of_inputs(LabeledSet.keys, ("values",))
  order_key: ClassVar = "vectors of numbers"
  values_XLJ: np.ndarray

  @property
  def lengths_X(self) -> np.ndarray:
    """Places of each example in a row: [CLS] and its vectors."""
    return np.full(len(self), 1 + self.values_XLJ.shape[1])

  def rows(self, tokenizer: Any, length: int, examples_per_row: int, seed: int,
           shuffle: bool = True, **_: Any) -> "VectorRows":
    return VectorRows(self, tokenizer, length, examples_per_row, seed, shuffle)

  def fingerprint(self) -> str:
    content = hashlib.blake2b(
        repr((self.order_key, self.values_XLJ.shape, self.label_names)).encode(),
        digest_size=16)
    content.update(np.ascontiguousarray(self.values_XLJ).tobytes())
    if self.labels is not None:
      content.update(self.labels.tobytes())
    return content.hexdigest()

  def given(self) -> Records:
    """The number of each example, from 0."""
    return ["example"], [[i] for i in range(len(self))]


def _labeled(keys: spec.Keys) -> spec.Keys:
  return VectorSet.keys | {"labels": keys["labels"]}


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class VectorClasses(OneClass, VectorSet):
  """One class for each example; outputs: probabilities (X, C)."""

  keys: ClassVar = _labeled(OneClass.keys)
  order_key: ClassVar = f"{VectorSet.order_key}, class"


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class VectorNumbers(OneNumber, VectorSet):
  """One number for each example; outputs: numbers (X,)."""

  keys: ClassVar = _labeled(OneNumber.keys)
  order_key: ClassVar = f"{VectorSet.order_key}, number"


class VectorRows(Rows):
  """Rows of vectors: every example once in an epoch, whole, behind a [CLS]."""

  def __init__(self, vectors: VectorSet, tokenizer: Any, length: int,
               examples_per_row: int, seed: int, shuffle: bool):
    if not len(vectors):
      raise UserError("The arrays hold no examples.")
    needed = 1 + vectors.values_XLJ.shape[1]
    if needed > length:
      raise UserError(f"data.length={length}: an example makes {needed - 1} "
                      f"vectors, and [CLS] stands before them; set data.length="
                      f"{needed}, or larger patches by data.patch.")
    self.vocabulary, self.keys = tokenizer.vocabulary, vectors.keys
    self._vectors = vectors
    super().__init__(length, examples_per_row, seed, shuffle,
                     (vectors.fingerprint(), tokenizer.fingerprint))

  @property
  def sizes(self) -> dict[str, int]:
    return super().sizes | {"J": self._vectors.values_XLJ.shape[2],
                            "C": len(self._vectors.label_names)}

  def examples(self, epoch: int) -> VectorSet:
    return self._vectors

  def _row(self, vectors: VectorSet,
           example_E: np.ndarray) -> dict[str, np.ndarray]:
    row, real_E = self.empty(), example_E >= 0
    places = 1 + vectors.values_XLJ.shape[1]
    for slot, example in enumerate(example_E[real_E].tolist()):
      begin, end = slot * places, (slot + 1) * places
      row["cls_positions"][slot] = begin
      row["position_ids"][begin:end] = np.arange(places)
      row["example_ids"][begin:end] = slot + 1
      row["values"][begin + 1:end] = vectors.values_XLJ[example]
    row["example_index"][:] = example_E
    row["example_mask"][:] = real_E
    if "labels" in row:
      row["labels"][real_E] = vectors.labels_X()[example_E[real_E]]
    return row


def patches(samples: np.ndarray, patch: tuple[int, ...]) -> np.ndarray:
  """(X, L, J): samples (X, ...) cut into patches, those of the last axis first.

  Args:
    patch: the size of a patch along each axis of a sample; the axes behind
      these, as channels, belong to each patch as they are.

  Raises:
    UserError: a sample has fewer axes, or they are no multiples.
  """
  shape = samples.shape[1:]
  given = ",".join(map(str, patch))
  if not patch or len(patch) > len(shape):
    raise UserError(f"data.patch={given}: samples are of shape {shape}; give "
                    f"the size of a patch along 1 to {len(shape)} of their "
                    "axes.")
  if any(size < 1 or axis % size for axis, size in zip(shape, patch)):
    raise UserError(f"data.patch={given}: samples are of shape {shape}, whose "
                    "first axes have to be multiples of it.")
  axes = len(patch)
  split = [n for axis, size in zip(shape, patch) for n in (axis // size, size)]
  cut = samples.reshape(len(samples), *split, *shape[axes:])
  order = [0, *range(1, 2 * axes, 2), *range(2, 2 * axes + 1, 2),
           *range(2 * axes + 1, cut.ndim)]
  vectors = [axis // size for axis, size in zip(shape, patch)]
  return np.ascontiguousarray(cut.transpose(order)).reshape(
      len(samples), int(np.prod(vectors)), -1)


def names_of(samples: np.ndarray) -> list[str]:
  """A name for each sample: the hash of its numbers, so that equal ones are
  trained on or held out together."""
  digest = functools.partial(hashlib.blake2b, digest_size=16)
  return [digest(np.ascontiguousarray(sample).tobytes()).hexdigest()
          for sample in samples]
