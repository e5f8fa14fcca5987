"""The keys of a batch: dtype, dimensions, and what stands where nothing is.

All keys that batches share are declared here; a kind of label and an objective
declare those that they add in their own class, as `keys`. What assembles rows,
pads batches, evaluates or prices a step reads it from there.

Dimensions of a row: L tokens, E examples, S segments (E times those of an
example), C classes, P predicted positions, J numbers of a vector.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np


@dataclasses.dataclass(frozen=True)
class Key:
  """One key of a batch.

  Attributes:
    dtype: of its array.
    dimensions: letters of those of a row.
    fill: where there is nothing; a name: that attribute of the vocabulary.
    locates: it says where in the data set the predictions of a row belong.
    weighs: it weighs losses, which are linear in it.
  """

  dtype: Any
  dimensions: str
  fill: int | str = 0
  locates: bool = False
  weighs: bool = False


Keys = Mapping[str, Key]

# What stands at each place of a row; `model.inputs` says which of them it reads.
TOKEN_KEYS: Keys = {
    "input_ids": Key(np.int32, "L", fill="pad_id"),
    "token_type_ids": Key(np.int32, "L")}
VALUE_KEYS: Keys = {"values": Key(np.float32, "LJ")}
# Of every row. `row`, the position in the global batch, comes on top.
PLACE_KEYS: Keys = {
    "position_ids": Key(np.int32, "L"),  # 0, 1, ... in each packed example
    "example_ids": Key(np.int32, "L", locates=True),  # 1, 2, ...; 0: padding
    "cls_positions": Key(np.int32, "S"),
    "example_mask": Key(np.float32, "E", weighs=True),
}
# Of rows of tokens.
KEYS: Keys = TOKEN_KEYS | PLACE_KEYS
# Of rows of running text; 1: the second text is of another document.
PRETRAINING_KEYS: Keys = KEYS | {"next_sentence_labels": Key(np.int32, "E")}


def of_inputs(keys: Keys, reads: Sequence[str]) -> Keys:
  """The keys of rows of tokens as those of rows of what `reads` names."""
  inputs = TOKEN_KEYS | VALUE_KEYS
  return {name: inputs[name] for name in reads if name in inputs} | {
      name: key for name, key in keys.items() if name not in inputs}


def empty_row(keys: Keys, sizes: Mapping[str, int],
              vocabulary: Any) -> dict[str, np.ndarray]:
  """A row without examples, with the sizes of its dimensions by letter."""
  def array(key: Key) -> np.ndarray:
    fill = (getattr(vocabulary, key.fill) if isinstance(key.fill, str)
            else key.fill)
    return np.full([sizes[d] for d in key.dimensions], fill, key.dtype)

  return {name: array(key) for name, key in keys.items()}


def locating(keys: Keys, batch: Mapping[str, Any]) -> dict[str, Any]:
  """What of a batch says where in the data set its predictions belong."""
  return {name: batch[name] for name, key in keys.items() if key.locates}


def weights(keys: Keys, batch: Mapping[str, Any]) -> dict[str, Any]:
  """The weights of a batch's positions and examples that losses have."""
  return {name: batch[name] for name, key in keys.items()
          if key.weighs and name in batch}
