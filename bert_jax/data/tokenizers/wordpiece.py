"""BERT's own WordPiece, ready for use."""

from collections.abc import Mapping, Sequence
from typing import Any

from bert_jax.data.tokenizers.vocabulary import UNK
from bert_jax.data.tokenizers.hf_tokenizers import (
    LibraryTokenizer, around, files)
from bert_jax.data.tokenizers.vocabulary import SPECIAL

_LONGEST_WORD = 100  # google-research/bert counts to 200


class WordPiece(LibraryTokenizer):
  """The longest piece that fits, again and again, of each word."""

  def __init__(self, vocabulary: Sequence[str], text: Mapping[str, Any],
               longest_word: int = _LONGEST_WORD,
               special: Sequence[str] = SPECIAL,
               added: Sequence[Mapping[str, Any]] = ()):
    """
    Args:
      text: options of `bert_text`.
      longest_word: a word of more characters is unknown.
      vocabulary, special, added: see `LibraryTokenizer`.
    """
    import tokenizers
    self._text, self._longest_word = dict(text), longest_word
    tokenizer = bert_text(tokenizers.models.WordPiece(
        {piece: i for i, piece in enumerate(vocabulary)},
        unk_token=special[SPECIAL.index(UNK)],
        max_input_chars_per_word=longest_word), **text)
    continues = [p.startswith("##") and len(p) > 2 for p in vocabulary]
    super().__init__(
        tokenizer, vocabulary, special, added, [not c for c in continues],
        [len(p.encode()) - 2 if c else len(p.encode()) + p[:1].isalnum()
         for p, c in zip(vocabulary, continues)])
    tokenizer.post_processor = around(self.vocabulary, self.pieces)

  def file(self) -> bytes:
    return "".join(f"{piece}\n" for piece in self._vocabulary).encode()

  def directory(self, model_max_length: int | None = None) -> dict[str, bytes]:
    # BertTokenizer rebuilds itself from these options, which are not all there
    # are; the other class takes tokenizer.json as it is.
    reproducible = (self._text["clean_text"]
                    and self._longest_word == _LONGEST_WORD)
    return {"vocab.txt": self.file()} | files(
        self._tokenizer, {
            "tokenizer_class":
                "BertTokenizer" if reproducible else "PreTrainedTokenizerFast",
            "model_input_names": [
                "input_ids", "token_type_ids", "attention_mask"],
            "do_lower_case": self._text["lowercase"],
            "strip_accents": self._text["strip_accents"],
            "tokenize_chinese_chars": self._text["handle_chinese_chars"]},
        self._special, model_max_length)

  def serialize(self) -> dict[str, Any]:
    return {"kind": "wordpiece", "vocabulary": self._vocabulary,
            "text": self._text, "longest_word": self._longest_word,
            "special": list(self._special), "added": self._added}


def has_capitals(pieces: Sequence[str]) -> bool:
  """Whether one begins a word that lower-cased text does not have."""
  return any("A" <= piece[:1] <= "Z" for piece in pieces)


def bert_text(model: Any, lowercase: bool, strip_accents: bool | None,
              handle_chinese_chars: bool, clean_text: bool) -> Any:
  """A `tokenizers.Tokenizer` that treats text as google-research/bert does.

  Args:
    strip_accents: None: if `lowercase`, as Google does.
    handle_chinese_chars: each of them is a word.
    clean_text: control characters vanish, and all white space is one.
  """
  import tokenizers
  tokenizer = tokenizers.Tokenizer(model)
  tokenizer.normalizer = tokenizers.normalizers.BertNormalizer(
      clean_text, handle_chinese_chars, strip_accents, lowercase)
  tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.BertPreTokenizer()
  tokenizer.decoder = tokenizers.decoders.WordPiece(prefix="##")
  return tokenizer
