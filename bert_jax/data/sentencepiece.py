"""SentencePiece (Kudo and Richardson 2018), ready for use."""

import base64
from collections.abc import Sequence
from typing import Any

import numpy as np

from bert_jax.config import UserError
from bert_jax.data.loaded import LoadedTokenizer, threads, vocabulary_of


class SentencePiece(LoadedTokenizer):

  def __init__(self, model: str):
    import sentencepiece
    self._model = model
    self._processor = sentencepiece.SentencePieceProcessor()
    try:
      self._processor.LoadFromSerializedProto(base64.b64decode(model))
    except RuntimeError:
      raise UserError("This is no SentencePiece model.") from None
    processor = self._processor
    size = processor.get_piece_size()
    super().__init__([processor.id_to_piece(i) for i in range(size)])
    special = [i for i in range(size) if processor.is_control(i)
               or processor.is_unknown(i)]
    self.vocabulary = vocabulary_of(
        self.pieces, special, [p.startswith("▁") for p in self.pieces],
        [1 if processor.is_byte(i) else len(p.replace("▁", " ").encode())
         for i, p in enumerate(self.pieces)])
    if any("▁" in p.lstrip("▁") for p in self.pieces):
      raise UserError("This SentencePiece model has pieces that reach over a "
                      "space (split_by_whitespace=false); that is unsupported.")

  @classmethod
  def of(cls, model: bytes) -> "SentencePiece":
    """Of the content of a .model."""
    return cls(base64.b64encode(model).decode())

  def _encode(self, texts: Sequence[str]) -> list[list[int]]:
    return self._processor.encode(list(texts), num_threads=threads())

  def _spans(self, texts: Sequence[str]) -> list[
      tuple[list[int], list[tuple[int, int]]]]:
    from sentencepiece import sentencepiece_pb2
    encoded = self._processor.encode(
        list(texts), out_type="serialized_proto", num_threads=threads())
    return [_places(text, sentencepiece_pb2.SentencePieceText.FromString(e))
            for text, e in zip(texts, encoded)]

  def decode(self, ids: Sequence[int]) -> str:
    return self._processor.decode([int(i) for i in ids])

  def file(self) -> bytes:
    return base64.b64decode(self._model)

  def directory(self, model_max_length: int | None = None) -> dict[str, bytes]:
    raise UserError("SentencePiece models are not yet written for others.")

  def serialize(self) -> dict[str, Any]:
    return {"kind": "sentencepiece", "model": self._model}


def _places(text: str, encoded: Any) -> tuple[list[int], list[tuple[int, int]]]:
  """From places in UTF-8 bytes to places in characters.

  The library gives a character to the last of its pieces, none to the others.
  """
  character = np.cumsum(
      [0, *((byte & 0xC0) != 0x80 for byte in text.encode())]) - 1
  size = len(text)
  places, shared = [], (size, size)
  for piece in reversed(encoded.pieces):
    if piece.end > piece.begin:
      shared = (int(character[piece.begin + 1]),
                int(character[piece.end]) + 1)
    places.append(shared)
  return [piece.id for piece in encoded.pieces], places[::-1]
