"""What stands for a tokenizer where the data is no text."""

from collections.abc import Sequence
from typing import Any, NoReturn

import numpy as np

from bert_jax.config import UserError
from bert_jax.data.tokenizers.base import LoadedTokenizer
from bert_jax.data.tokenizers.vocabulary import Vocabulary


class WithoutText(LoadedTokenizer):
  """No pieces and no ids; a text is an error."""

  vocabulary = Vocabulary(0, 0, 0, 0, 0, 0, np.zeros(0, bool),
                          np.zeros(0, np.int32), np.zeros(0, np.int32))
  _by_word = False

  def __init__(self):
    super().__init__(())

  def _no_text(self, *_: Any) -> NoReturn:
    raise UserError("This network reads arrays of numbers and has no "
                    "tokenizer: a text means nothing to it. evaluate and "
                    "predict take arrays, as data=arrays reads them.")

  def _encode(self, texts: Sequence[str]) -> list[list[int]]:
    self._no_text()

  def _spans(self, texts: Sequence[str]) -> list[
      tuple[list[int], list[tuple[int, int]]]]:
    self._no_text()

  def decode(self, ids: Sequence[int]) -> str:
    self._no_text()

  def serialize(self) -> dict[str, Any]:
    return {"kind": "without_text"}

  def file(self) -> bytes:
    self._no_text()

  def directory(self, model_max_length: int | None = None) -> dict[str, bytes]:
    self._no_text()
