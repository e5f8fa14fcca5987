"""What tokenizers of the `tokenizers` library share, inside and as files."""

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from bert_jax.data.tokenizers.base import LoadedTokenizer
from bert_jax.data.tokenizers.vocabulary import Vocabulary, vocabulary_of

# What tokenizer_config.json calls the special tokens, in the order of SPECIAL.
ROLES = ("pad", "unk", "cls", "sep", "mask")
# What `tokenizer.json` says of a token beside its name and id.
FLAGS = ("single_word", "lstrip", "rstrip", "normalized", "special")


class LibraryTokenizer(LoadedTokenizer):
  """A tokenizer of the library, with the tokens that were added to it.

  Added tokens are found in a text before it is cut into words, unless they
  are special: those no text can write.
  """

  def __init__(self, tokenizer: Any, vocabulary: Sequence[str],
               special: Sequence[str], added: Sequence[Mapping[str, Any]],
               word_start: Iterable[bool], byte_count: Iterable[int],
               mask_takes_space: bool = False, **pairs: int):
    """
    Args:
      tokenizer: a `tokenizers.Tokenizer`.
      vocabulary: its pieces in the order of their ids.
      special: names of [PAD] [UNK] [CLS] [SEP] [MASK] in this vocabulary.
      added: further tokens, as in `tokenizer.json`: "content" and `FLAGS`.
        The ids of those that are not in the vocabulary follow its own.
      word_start, byte_count: of the vocabulary, see `Vocabulary`.
      mask_takes_space: that stands before a [MASK] which others, who let texts
        write it, find in a text.
      pairs: see `vocabulary_of`.
    """
    import tokenizers
    self._tokenizer, self._vocabulary = tokenizer, list(vocabulary)
    self._special, self._added = tuple(special), [dict(a) for a in added]
    known = set(vocabulary)
    own = [_special(name, mask_takes_space and name == special[-1])
           for name in special if name in known]
    for token in own + self._added:
      tokenizer.add_tokens([tokenizers.AddedToken(
          token["content"], **{flag: token[flag] for flag in FLAGS})])
    tokenizer.encode_special_tokens = True  # as the text that they are
    more = [a["content"] for a in added if a["content"] not in known]
    super().__init__([*vocabulary, *more])
    self.vocabulary = vocabulary_of(
        self.pieces, [tokenizer.token_to_id(token["content"])
                      for token in added if token["special"]],
        [*word_start, *(True for _ in more)],
        [*byte_count, *(len(name.encode()) for name in more)],
        self._special, **pairs)

  def _encode(self, texts: Sequence[str]) -> list[list[int]]:
    return [e.ids for e in self._tokenizer.encode_batch_fast(
        list(texts), add_special_tokens=False)]

  def _spans(self, texts: Sequence[str]) -> list[
      tuple[list[int], list[tuple[int, int]]]]:
    return [(e.ids, e.offsets) for e in self._tokenizer.encode_batch(
        list(texts), add_special_tokens=False)]

  def decode(self, ids: Sequence[int]) -> str:
    return self._tokenizer.decode([int(i) for i in ids])


def around(vocabulary: Vocabulary, pieces: Sequence[str]) -> Any:
  """Puts [CLS] and [SEP] around texts, as BERT has them."""
  import tokenizers
  cls, sep = (pieces[i] for i in (vocabulary.cls_id, vocabulary.sep_id))
  return tokenizers.processors.TemplateProcessing(
      single=f"{cls} $A {sep}", pair=f"{cls} $A {sep} $B:1 {sep}:1",
      special_tokens=[(cls, vocabulary.cls_id), (sep, vocabulary.sep_id)])


def files(tokenizer: Any, options: Mapping[str, Any], special: Sequence[str],
          model_max_length: int | None) -> dict[str, bytes]:
  """tokenizer.json and tokenizer_config.json of a `tokenizers.Tokenizer`.

  Args:
    options: for tokenizer_config.json, by which `transformers` makes some
      tokenizers again.
    special: names of [PAD] [UNK] [CLS] [SEP] [MASK].
  """
  description = json.loads(tokenizer.to_str())
  config = dict(options) | {
      f"{role}_token": name for role, name in zip(ROLES, special)} | {
          "added_tokens_decoder": {
              token["id"]: {flag: token[flag] for flag in ("content", *FLAGS)}
              for token in description["added_tokens"]}}
  if model_max_length:
    config["model_max_length"] = model_max_length
  return {"tokenizer.json": json_bytes(description),
          "tokenizer_config.json": json_bytes(config)}


def _special(name: str, takes_space: bool) -> dict[str, Any]:
  return {"content": name, **dict.fromkeys(FLAGS, False), "special": True,
          "lstrip": takes_space}


def json_bytes(value: Any) -> bytes:
  return (json.dumps(value, ensure_ascii=False, indent=2) + "\n").encode()
