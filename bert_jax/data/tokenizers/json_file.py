"""A tokenizer of the `tokenizers` library as its tokenizer.json describes it."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from bert_jax.config import UserError
from bert_jax.data.tokenizers.hf_tokenizers import LibraryTokenizer, files

# What begins a word's first piece, by a step that writes it there.
_MARKS = {"Metaspace": "▁", "ByteLevel": "Ġ"}


class JsonFile(LibraryTokenizer):
  """Steps and a model in any order that the library has: ModernBERT's byte-level
  BPE, XLM-RoBERTa's and ALBERT's unigram model, MPNet's WordPiece.

  Texts are not cut into words beforehand, as nothing is known of the steps.
  """

  _by_word = False

  def __init__(self, description: Mapping[str, Any], special: Sequence[str],
               added: Sequence[Mapping[str, Any]] = ()):
    """
    Args:
      description: the content of tokenizer.json without `added_tokens`.
      special, added: see `LibraryTokenizer`.

    Raises:
      UserError: it is none, or pieces do not say where words begin.
    """
    import tokenizers
    self._description = dict(description)
    try:
      tokenizer = tokenizers.Tokenizer.from_str(json.dumps(
          {"version": "1.0", "truncation": None, "padding": None,
           "added_tokens": [], **self._description}))
    except Exception as error:  # The library has no other.
      raise UserError(f"the tokenizers library refuses it: {error}") from None
    vocabulary = pieces_of(description["model"])
    starts, bytes_ = _places(description, vocabulary)
    super().__init__(tokenizer, vocabulary, special, added, starts, bytes_,
                     mask_takes_space=True, **_pairs(
                         description.get("post_processor"), special[3]))

  def file(self) -> bytes:
    return self.directory()["tokenizer.json"]

  def directory(self, model_max_length: int | None = None) -> dict[str, bytes]:
    # This class takes tokenizer.json as it is.
    return files(self._tokenizer, {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_input_names": ["input_ids", "attention_mask"]}, self._special,
        model_max_length)

  def serialize(self) -> dict[str, Any]:
    return {"kind": "json_file", "description": self._description,
            "special": list(self._special), "added": self._added}


def pieces_of(model: Mapping[str, Any]) -> list[str]:
  """In the order of their ids."""
  vocabulary = model["vocab"]
  if isinstance(vocabulary, Mapping):
    return sorted(vocabulary, key=vocabulary.__getitem__)
  return [piece for piece, _ in vocabulary]


def _places(description: Mapping[str, Any], vocabulary: Sequence[str]
            ) -> tuple[list[bool], list[int]]:
  """Whether each piece begins a word, and how many bytes of text it has."""
  if description["model"].get("continuing_subword_prefix") == "##":
    continues = [p.startswith("##") and len(p) > 2 for p in vocabulary]
    return [not c for c in continues], [
        len(p.encode()) - 2 if c else len(p.encode()) + p[:1].isalnum()
        for p, c in zip(vocabulary, continues)]
  steps = json.dumps(description["pre_tokenizer"])
  step = next((step for step in _MARKS if f'"{step}"' in steps), None)
  if step is None:
    raise UserError("This tokenizer.json has pieces that do not say where words "
                    "begin (neither ##, nor steps of "
                    f"{' or '.join(_MARKS)}); that is unsupported.")
  # A character of the byte level is a byte.
  size = len if step == "ByteLevel" else (
      lambda piece: len(piece.replace("▁", " ").encode()))
  return ([p.startswith(_MARKS[step]) for p in vocabulary],
          [size(p) for p in vocabulary])


def _pairs(step: Mapping[str, Any] | None, sep: str) -> dict[str, int]:
  """What the last step puts between two texts, and the type of the second."""
  if step and step["type"] == "RobertaProcessing":
    return {"pair_separators": 2, "pair_token_type": 0}
  if not step or step["type"] != "TemplateProcessing":
    return {}
  pair = [part for parts in step["pair"] for part in parts.items()]
  return {"pair_separators": sum(
      kind == "SpecialToken" and part["id"] == sep for kind, part in pair) - 1,
          "pair_token_type": next(
              part["type_id"] for kind, part in pair
              if kind == "Sequence" and part["id"] == "B")}
