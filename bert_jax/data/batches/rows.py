"""Rows: row i of epoch e, computed from (fingerprint, seed) alone.

A format plans the examples of a whole epoch, they are packed, and any row can
then be asked for: there is no iterator whose state could be lost.

Dimensions: X examples, R rows, E examples in a row, L tokens in a row, T tokens
of the corpus.
"""

import collections
import copy
import hashlib
import json
import threading
from typing import Any

import numpy as np

from bert_jax.config import UserError
from bert_jax.data.batches.examples import Examples
from bert_jax.data.batches.packing import pack
from bert_jax.data.batches.spec import Keys, empty_row


def generator(*parts: str | int) -> np.random.Generator:
  """A generator that is a function of the parts: text and whole numbers."""
  digest = hashlib.blake2b(json.dumps(parts).encode(), digest_size=16).digest()
  return np.random.default_rng(int.from_bytes(digest, "little"))


def assemble(tokens_T: np.ndarray, vocabulary: Any, examples: Examples,
             example_E: np.ndarray, row: dict[str, np.ndarray]) -> None:
  """Writes the segments `example_E` (-1: none) into an empty row."""
  input_ids_L, at = row["input_ids"], 0
  for slot, example in enumerate(example_E.tolist()):
    if example < 0:
      break
    begin, at = at, at + 1
    row["cls_positions"][slot] = begin
    input_ids_L[begin] = vocabulary.cls_id
    at = _append(input_ids_L, at, tokens_T, examples.a_start_X[example],
                 examples.a_length_X[example], vocabulary.sep_id)
    if examples.b_start_X is not None:
      more = vocabulary.pair_separators - 1
      input_ids_L[at:at + more] = vocabulary.sep_id
      at += more
      b_begin = at
      at = _append(input_ids_L, at, tokens_T, examples.b_start_X[example],
                   examples.b_length_X[example], vocabulary.sep_id)
      row["token_type_ids"][b_begin:at] = vocabulary.pair_token_type
    row["position_ids"][begin:at] = np.arange(at - begin)
    row["example_ids"][begin:at] = slot + 1


def _append(input_ids_L, at, tokens_T, start, length, sep_id) -> int:
  end = at + int(length)
  input_ids_L[at:end] = tokens_T[start:start + length]
  input_ids_L[end] = sep_id
  return end + 1


class Rows:
  """Random access to the rows of every epoch; what `loader` reads.

  An epoch has as many rows as epoch 0: of a later epoch with more (its draws
  differ) the surplus is left out, one with fewer begins again.

  A member sets `keys`, `vocabulary` and what `sizes` has beside L and E.
  """

  keys: Keys
  vocabulary: Any

  def __init__(self, length: int, examples_per_row: int, seed: int,
               shuffle: bool, content: tuple[str, ...], variant: str = ""):
    """
    Args:
      content: fingerprints of what the examples are made of.
      variant: what changes rows, but not their order.
    """
    if examples_per_row < 1:
      raise UserError(f"examples_per_row={examples_per_row}; "
                      "allowed: 1 or more.")
    self.length = length
    self.examples_per_row = examples_per_row
    self.shuffle = shuffle
    self._content, self._variant = content, variant
    self._set_seed(seed)
    self._plans, self._lock = collections.OrderedDict(), threading.Lock()

  def _set_seed(self, seed: int) -> None:
    # Not the packing: with it and without, the examples are the same.
    self.draws = (*self._content, seed)
    self.fingerprint = hashlib.blake2b(
        repr((self.draws, self.length, self.examples_per_row, self.shuffle,
              self._variant)).encode(), digest_size=16).hexdigest()
    self._count = None

  def with_seed(self, seed: int) -> "Rows":
    """What they would be with another seed; nothing is read again."""
    other = copy.copy(self)
    other._set_seed(seed)
    return other

  def examples(self, epoch: int) -> Examples:
    """The examples of an epoch, before packing."""
    raise NotImplementedError

  def row(self, epoch: int, index: int) -> dict[str, np.ndarray]:
    """Row `index` of an epoch; arrays of L tokens and E examples."""
    examples, row_RE = self.plan(epoch)
    return self._row(examples, row_RE[index % len(row_RE)])

  @property
  def sizes(self) -> dict[str, int]:
    """Of the dimensions of a row."""
    return {"L": self.length, "E": self.examples_per_row,
            "S": self.examples_per_row}

  def empty(self) -> dict[str, np.ndarray]:
    """A row without examples, to fill up a batch."""
    return empty_row(self.keys, self.sizes, self.vocabulary)

  def _row(self, examples: Examples,
           example_E: np.ndarray) -> dict[str, np.ndarray]:
    raise NotImplementedError

  def __len__(self) -> int:
    if self._count is None:
      self._count = len(self.plan(0)[1])
    return self._count

  def plan(self, epoch: int) -> tuple[Examples, np.ndarray]:
    """The examples of an epoch and the rows they are packed into."""
    with self._lock:
      if epoch not in self._plans:
        self._plans[epoch] = self._packed(epoch)
        while len(self._plans) > 2:
          self._plans.popitem(last=False)
      return self._plans[epoch]

  def _packed(self, epoch: int) -> tuple[Examples, np.ndarray]:
    examples = self.examples(epoch)
    if not self.shuffle:
      return examples, pack(examples.lengths_X, self.length,
                            self.examples_per_row)
    rng = generator("order", *self.draws, epoch)
    order_X = rng.permutation(len(examples)).astype(np.int32)
    row_RE = pack(examples.lengths_X[order_X], self.length,
                  self.examples_per_row)
    row_RE = np.where(row_RE < 0, -1, order_X[row_RE])
    return examples, rng.permutation(row_RE)

  def __getstate__(self) -> dict[str, Any]:
    return vars(self) | dict(_plans=None, _lock=None)

  def __setstate__(self, state: dict[str, Any]):
    vars(self).update(state)
    self._plans, self._lock = collections.OrderedDict(), threading.Lock()
