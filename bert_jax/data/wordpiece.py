"""BERT's own WordPiece, ready for use."""

from collections.abc import Sequence
from typing import Any

from bert_jax.data.loaded import SPECIAL, UNK, LoadedTokenizer, vocabulary_of


class WordPiece(LoadedTokenizer):

  def __init__(self, vocabulary: Sequence[str], lowercase: bool):
    import tokenizers
    self._lowercase = lowercase
    ids = {piece: i for i, piece in enumerate(vocabulary)}
    self._tokenizer = bert_text(
        tokenizers.models.WordPiece(ids, unk_token=UNK), lowercase)
    super().__init__(vocabulary)
    continues = [p.startswith("##") and len(p) > 2 for p in self.pieces]
    bytes_ = [len(p.encode()) - 2 if c else len(p.encode()) + p[:1].isalnum()
              for p, c in zip(self.pieces, continues)]
    special = [i for i, p in enumerate(self.pieces) if p in SPECIAL]
    self.vocabulary = vocabulary_of(
        self.pieces, special, [not c for c in continues], bytes_)

  def _encode(self, texts: Sequence[str]) -> list[list[int]]:
    return [e.ids for e in self._tokenizer.encode_batch_fast(
        list(texts), add_special_tokens=False)]

  def _spans(self, texts: Sequence[str]) -> list[
      tuple[list[int], list[tuple[int, int]]]]:
    return [(e.ids, e.offsets) for e in self._tokenizer.encode_batch(
        list(texts), add_special_tokens=False)]

  def decode(self, ids: Sequence[int]) -> str:
    special = set(range(len(self.pieces))) - set(
        self.vocabulary.ordinary_ids.tolist())
    return self._tokenizer.decode([int(i) for i in ids if i not in special])

  def file(self) -> bytes:
    return "".join(f"{piece}\n" for piece in self.pieces).encode()

  def serialize(self) -> dict[str, Any]:
    return {"kind": "wordpiece", "vocabulary": list(self.pieces),
            "lowercase": self._lowercase}


def bert_text(model: Any, lowercase: bool) -> Any:
  """A `tokenizers.Tokenizer` that treats text as google-research/bert does."""
  import tokenizers
  tokenizer = tokenizers.Tokenizer(model)
  tokenizer.normalizer = tokenizers.normalizers.BertNormalizer(
      lowercase=lowercase)
  tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.BertPreTokenizer()
  tokenizer.decoder = tokenizers.decoders.WordPiece(prefix="##")
  return tokenizer
