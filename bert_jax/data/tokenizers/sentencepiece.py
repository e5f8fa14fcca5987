"""SentencePiece (Kudo and Richardson 2018), ready for use."""

import base64
from collections.abc import Sequence
from typing import Any

import numpy as np

from bert_jax.config import UserError
from bert_jax.data.tokenizers.base import LoadedTokenizer, threads
from bert_jax.data.tokenizers.vocabulary import UNK
from bert_jax.data.tokenizers.hf_tokenizers import around, files
from bert_jax.data.tokenizers.vocabulary import SPECIAL, vocabulary_of

# The library has no pieces that text is never made of: so unlikely are they.
_NEVER = -1e4
# Rules of the library's own that reach over no space and make a ▁ in a text a
# space like any other.
_OWN_RULES = ("nmt_nfkc", "nmt_nfkc_cf")


class SentencePiece(LoadedTokenizer):
  """A model of the library; [PAD] and the like are control pieces.

  Where a model has them as user-defined symbols, which a text may write, they
  are control pieces here all the same.
  """

  def __init__(self, model: str):
    import sentencepiece
    self._model = model
    self._processor = processor = sentencepiece.SentencePieceProcessor()
    proto = _proto(base64.b64decode(model))
    for piece in proto.pieces:
      if piece.piece in SPECIAL and piece.type != piece.UNKNOWN:
        piece.type = piece.CONTROL
    self._by_word = _has_independent_words(proto)
    processor.LoadFromSerializedProto(proto.SerializeToString())
    size = processor.get_piece_size()
    super().__init__([processor.id_to_piece(i) for i in range(size)])
    special = [i for i in range(size) if processor.is_control(i)
               or processor.is_unknown(i)]
    self.vocabulary = vocabulary_of(
        self.pieces, special, [p.startswith("▁") for p in self.pieces],
        [1 if processor.is_byte(i) else len(p.replace("▁", " ").encode())
         for i, p in enumerate(self.pieces)])

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
    """A tokenizer.json of the `tokenizers` library, and the model itself.

    The library composes characters of several marks otherwise, so that text
    with decomposed or half-width letters may get other ids there.

    Raises:
      UserError: the model was trained with settings that the library lacks.
    """
    return {"spiece.model": self.file()} | files(
        self._translated(), {"tokenizer_class": "PreTrainedTokenizerFast",
                             "model_input_names": [
                                 "input_ids", "token_type_ids",
                                 "attention_mask"]},
        SPECIAL, model_max_length)

  def _translated(self) -> Any:
    """The same tokenizer as a `tokenizers.Tokenizer`."""
    import tokenizers
    from sentencepiece import sentencepiece_model_pb2 as pb2
    proto = pb2.ModelProto.FromString(self._processor.serialized_model_proto())
    trained, text = proto.trainer_spec, proto.normalizer_spec
    odd = [piece.piece for piece in proto.pieces if piece.type in (
        pb2.ModelProto.SentencePiece.USER_DEFINED,
        pb2.ModelProto.SentencePiece.UNUSED)]
    if (odd or trained.model_type not in (trained.BPE, trained.UNIGRAM)
        or not text.add_dummy_prefix or not text.remove_extra_whitespaces):
      raise UserError(
          "This SentencePiece model was trained with settings that a "
          "tokenizer.json cannot express (user-defined or unused pieces, no "
          "space before the first word, or white space kept); others read its "
          ".model, which `tokenizer train` writes.")
    make = _bpe if trained.model_type == trained.BPE else _unigram
    built = tokenizers.Tokenizer(make(proto, trained.byte_fallback))
    parts, decoders = tokenizers.normalizers, tokenizers.decoders
    built.normalizer = parts.Sequence([
        # Of a capital with an accent of its own the table, as the library
        # reads it, would take the capital only.
        *([parts.Lowercase()] if text.name.endswith("_cf") else []),
        *([parts.Precompiled(text.precompiled_charsmap)]
          if text.precompiled_charsmap else []),
        parts.Replace(tokenizers.Regex("^ +| +$"), ""),
        parts.Replace(tokenizers.Regex(" {2,}"), " ")])
    built.pre_tokenizer = tokenizers.pre_tokenizers.Metaspace()
    built.decoder = decoders.Sequence([
        decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(),
        decoders.Strip(" ", 1, 0)])
    built.post_processor = around(self.vocabulary, SPECIAL)
    built.add_special_tokens(list(SPECIAL))
    return built

  def serialize(self) -> dict[str, Any]:
    return {"kind": "sentencepiece", "model": self._model}


def _proto(model: bytes) -> Any:
  """What a .model says.

  Raises:
    UserError: no model, or one in which a piece does not tell whether it begins
      a word.
  """
  import sentencepiece
  from google.protobuf.message import DecodeError
  from sentencepiece import sentencepiece_model_pb2 as pb2
  try:
    sentencepiece.SentencePieceProcessor().LoadFromSerializedProto(model)
    proto = pb2.ModelProto.FromString(model)
  except (RuntimeError, DecodeError):
    raise UserError("This is no SentencePiece model.") from None
  problem = None
  if proto.trainer_spec.treat_whitespace_as_suffix:
    problem = "treat_whitespace_as_suffix=true: spaces behind words"
  elif not proto.normalizer_spec.escape_whitespaces:
    problem = "escape_whitespaces=false: spaces that are not written as ▁"
  elif any("▁" in piece.piece.lstrip("▁") for piece in proto.pieces):
    problem = "split_by_whitespace=false: pieces that reach over a space"
  if problem:
    raise UserError(f"This SentencePiece model has {problem}, so that its "
                    "pieces do not say where words begin; that is unsupported.")
  return proto


def _has_independent_words(proto: Any) -> bool:
  """Whether a text's ids are those of its words, one after another.

  Not those of a unigram model, which compares sums over the complete text, as
  they are rounded; nor if spaces are kept, or are unknown (unknown neighbors
  are one token), or stand in a symbol or a rule of the model's own.
  """
  trained, text = proto.trainer_spec, proto.normalizer_spec
  spaces_are_known = trained.byte_fallback or any(
      piece.piece == "▁" and piece.type == piece.NORMAL
      for piece in proto.pieces)
  return (trained.model_type == trained.BPE and text.add_dummy_prefix
          and text.remove_extra_whitespaces and text.name in _OWN_RULES
          and spaces_are_known and not any(
              piece.type == piece.USER_DEFINED and {" ", "▁"} & {*piece.piece}
              for piece in proto.pieces))


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
      if not text[slice(*shared)].strip(" "):
        shared = shared[1], shared[1]  # Of a space nothing is left.
    places.append(shared)
  return [piece.id for piece in encoded.pieces], places[::-1]


def _bpe(proto: Any, byte_fallback: bool) -> Any:
  """Pairs of pieces that make a piece, in the order of its score."""
  import tokenizers
  ids = {piece.piece: i for i, piece in enumerate(proto.pieces)}
  normal = {piece.piece for piece in proto.pieces if piece.type == piece.NORMAL}
  merges = sorted(
      (-piece.score, ids[piece.piece], piece.piece[:cut], piece.piece[cut:])
      for piece in proto.pieces for cut in range(1, len(piece.piece))
      if piece.piece in normal and piece.piece[:cut] in normal
      and piece.piece[cut:] in normal)
  return tokenizers.models.BPE(
      ids, [(left, right) for _, _, left, right in merges],
      unk_token=UNK, fuse_unk=True, byte_fallback=byte_fallback)


def _unigram(proto: Any, byte_fallback: bool) -> Any:
  import tokenizers
  return tokenizers.models.Unigram(
      [(piece.piece, piece.score if piece.type == piece.NORMAL else _NEVER)
       for piece in proto.pieces],
      [piece.type for piece in proto.pieces].index(
          proto.pieces[0].UNKNOWN), byte_fallback)
