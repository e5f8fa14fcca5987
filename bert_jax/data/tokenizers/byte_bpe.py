"""Byte-level BPE as RoBERTa has it, ready for use."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from bert_jax.data.tokenizers.hf_tokenizers import (
    LibraryTokenizer, files, json_bytes)

SPECIAL = ("<pad>", "<unk>", "<s>", "</s>", "<mask>")
_SPACE = "Ġ"  # how a vocabulary spells the byte of a space
# No piece reaches over these places: a piece begins with the space before it,
# and white space after white space belongs together.
_BREAK = re.compile(r"(?<=\S)(?= )")


class ByteLevel(LibraryTokenizer):
  """Pieces of bytes (Radford et al. 2019), each word with the space before it.

  So a word at the beginning of a text has other pieces than the same word
  later on.
  """

  _gap = 0

  def __init__(self, vocabulary: Sequence[str], merges: Sequence[str],
               prefix_space: bool = False, special: Sequence[str] = SPECIAL,
               added: Sequence[Mapping[str, Any]] = ()):
    """
    Args:
      merges: pairs of pieces, "a b", the first merged first.
      prefix_space: a text that does not begin with a space gets one.
      vocabulary, special, added: see `LibraryTokenizer`.
    """
    import tokenizers
    self._merges, self._prefix_space = list(merges), prefix_space
    tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE(
        {piece: i for i, piece in enumerate(vocabulary)},
        [tuple(merge.split(" ")) for merge in merges]))
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(
        add_prefix_space=prefix_space)
    tokenizer.decoder = tokenizers.decoders.ByteLevel()
    super().__init__(
        tokenizer, vocabulary, special, added,
        [p.startswith(_SPACE) for p in vocabulary],
        # A character of the vocabulary's alphabet is a byte.
        map(len, vocabulary), mask_takes_space=True, pair_separators=2,
        pair_token_type=0)
    cls, sep = ((self.pieces[i], i) for i in (
        self.vocabulary.cls_id, self.vocabulary.sep_id))
    tokenizer.post_processor = tokenizers.processors.RobertaProcessing(
        sep, cls, add_prefix_space=prefix_space)

  def _split(self, text: str) -> list[str]:
    return _BREAK.split(text)

  def encode_words(
      self, words_batch: Sequence[Sequence[str]]) -> list[list[list[int]]]:
    """Ids of each word of each text, as if spaces stood between the words."""
    return super().encode_words([
        [f" {word}" if i else word for i, word in enumerate(words)]
        for words in words_batch])

  def file(self) -> bytes:
    return self.directory()["tokenizer.json"]

  def directory(self, model_max_length: int | None = None) -> dict[str, bytes]:
    numbered = {piece: i for i, piece in enumerate(self._vocabulary)}
    merges = "".join(f"{merge}\n" for merge in self._merges)
    return {
        "vocab.json": json_bytes(numbered),
        "merges.txt": f"#version: 0.2\n{merges}".encode(),
    } | files(self._tokenizer, {
        "tokenizer_class": "RobertaTokenizer",
        "model_input_names": ["input_ids", "attention_mask"],
        "add_prefix_space": self._prefix_space}, self._special,
        model_max_length)

  def serialize(self) -> dict[str, Any]:
    return {"kind": "byte_level", "vocabulary": self._vocabulary,
            "merges": self._merges, "prefix_space": self._prefix_space,
            "special": list(self._special), "added": self._added}
