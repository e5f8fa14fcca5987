"""What a network needs to know of a tokenizer: ids, words, bytes."""

import dataclasses
import hashlib
import json
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from bert_jax.config import UserError

SPECIAL = PAD, UNK, CLS, SEP, MASK = (
    "[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")


@dataclasses.dataclass(frozen=True, eq=False)
class Vocabulary:
  """What models and objectives know about the ids.

  `byte_count_V` is UTF-8 bytes of text that an id stands for (0 for special
  ids), a space before a word included; it is what bits per byte divide by.
  WordPiece forgets spaces, so there one is counted for each word, none for
  punctuation.
  """

  size: int
  pad_id: int
  unk_id: int
  cls_id: int
  sep_id: int
  mask_id: int
  word_start_V: np.ndarray  # bool: this id begins a word
  byte_count_V: np.ndarray  # int32
  ordinary_ids: np.ndarray  # int32: every id that is not special
  # RoBERTa has two separators between the texts of a pair, and one token type.
  pair_separators: int = 1
  pair_token_type: int = 1  # of the second text

  def special_tokens(self, pairs: bool) -> int:
    """How many stand around the texts of an example."""
    return 2 + self.pair_separators * pairs


def vocabulary_of(pieces: Sequence[str], special: Iterable[int],
                  word_start: Sequence[bool], byte_count: Sequence[int],
                  names: Sequence[str] = SPECIAL, **pairs: int) -> Vocabulary:
  """
  Args:
    special: ids that no text is made of.
    names: of [PAD] [UNK] [CLS] [SEP] [MASK].
    pairs: `pair_separators`, `pair_token_type`.

  Raises:
    UserError: a name is not in the vocabulary.
  """
  ids = {piece: i for i, piece in enumerate(pieces)}
  missing = [name for name in names if name not in ids]
  if missing:
    raise UserError(f"The vocabulary lacks {', '.join(missing)}; it needs "
                    f"{', '.join(names)}.")
  ordinary = np.ones(len(pieces), bool)
  ordinary[[*special, *(ids[name] for name in names)]] = False
  return Vocabulary(
      len(pieces), *(ids[name] for name in names),
      word_start_V=np.array(word_start) & ordinary,
      byte_count_V=np.where(ordinary, byte_count, 0).astype(np.int32),
      ordinary_ids=np.flatnonzero(ordinary).astype(np.int32), **pairs)


def fingerprint(state: dict[str, Any]) -> str:
  """Of what `serialize` gives."""
  text = json.dumps(state, sort_keys=True).encode()
  return hashlib.blake2b(text, digest_size=16).hexdigest()
