"""The tokenizer in a directory as Hugging Face's `transformers` leaves it."""

import json
import logging
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from bert_jax.config import UserError
from bert_jax.data.tokenizers import byte_bpe
from bert_jax.data.tokenizers.base import LoadedTokenizer
from bert_jax.data.tokenizers.byte_bpe import ByteLevel
from bert_jax.data.tokenizers.hf_tokenizers import FLAGS, ROLES
from bert_jax.data.tokenizers.json_file import JsonFile, pieces_of
from bert_jax.data.tokenizers.sentencepiece import SentencePiece
from bert_jax.data.tokenizers.vocabulary import SPECIAL
from bert_jax.data.tokenizers.wordpiece import WordPiece, has_capitals

_CONFIG, _FILE = "tokenizer_config.json", "tokenizer.json"
# Whose vocab.txt holds pieces of words; others cut words by other programs.
_WORDPIECE = ("BertTokenizer", "DistilBertTokenizer", "ElectraTokenizer",
              "PreTrainedTokenizer", "TokenizersBackend")
_LOG = logging.getLogger(__name__)


def from_directory(path: str | os.PathLike) -> LoadedTokenizer:
  """Reads a tokenizer that `transformers` or `directory` wrote.

  Of tokenizer.json, or vocab.txt, or vocab.json and merges.txt, the first that
  is there. What tokenizer_config.json says of letters, accents and Chinese
  characters goes before what tokenizer.json says, as in `transformers`; where
  neither says it, the text is lower-cased, as there.

  Raises:
    UserError: no tokenizer, or one of a kind that is not supported.
  """
  folder = pathlib.Path(path).expanduser()
  if not folder.is_dir():
    raise UserError(f"{folder} is no directory; give the one that holds "
                    "vocab.txt or tokenizer.json.")
  config = _json(folder / "special_tokens_map.json") | _json(folder / _CONFIG)
  if (folder / _FILE).exists():
    return _from_file(folder, _json(folder / _FILE), config)
  if (folder / "vocab.txt").exists():
    _check_class(folder, config)
    pieces = vocabulary_lines(folder / "vocab.txt")
    if "do_lower_case" not in config and has_capitals(pieces):
      _LOG.warning(
          "%s: the vocabulary has capitals, but nothing says that text keeps "
          "its own, so it is lower-cased, as transformers does. If it should "
          "not be, write {\"do_lower_case\": false} into %s there.", folder,
          _CONFIG)
    return _wordpiece(folder, pieces, {}, config, _added(
        folder, pieces, _outside(folder, config)))
  if (folder / "vocab.json").exists() and (folder / "merges.txt").exists():
    pieces = _numbered(folder, _json(folder / "vocab.json"))
    merges = [line for line in _lines(_text(folder / "merges.txt"))
              if line and not line.startswith("#version")]
    return _byte_level(folder, pieces, merges, {}, config, _added(
        folder, pieces, _outside(folder, config)))
  names = ", ".join(sorted(p.name for p in folder.iterdir())) or "nothing"
  raise UserError(f"{folder} holds no tokenizer: neither tokenizer.json, nor "
                  "vocab.txt, nor vocab.json with merges.txt. There is "
                  f"{names}. (A SentencePiece .model alone: data.tokenizer="
                  "sentencepiece data.tokenizer.path=FILE.)")


def _check_class(folder: pathlib.Path, config: Mapping[str, Any]) -> None:
  name = config["tokenizer_class"] if "tokenizer_class" in config else None
  if name and name.removesuffix("Fast") not in _WORDPIECE:
    raise UserError(f"{folder / _CONFIG}: tokenizer_class={name} is not "
                    "supported; a vocab.txt is read as WordPiece's, after "
                    f"BERT's rules for words ({', '.join(_WORDPIECE)}).")


def vocabulary_lines(path: pathlib.Path) -> list[str]:
  """The pieces of a vocab.txt, the number of a line its id.

  Where a piece is there again, the last line counts, as for Google and the
  tokenizers library; no text has what the earlier ones are called instead.
  """
  pieces = _lines(_text(path))
  last = {piece: i for i, piece in enumerate(pieces)}
  again = [i for i, piece in enumerate(pieces) if last[piece] != i]
  if again:
    _LOG.warning(
        "%s: %d lines are there again further down, as line %d, %r; the last "
        "of them counts, and the ids of the others stay unused.", path,
        len(again), again[0] + 1, pieces[again[0]])
  for i in again:
    pieces[i] = f"[unused duplicate {i}]"
  return pieces


def _lines(text: str) -> list[str]:
  """Of a vocabulary: what other programs call the end of a line may be one."""
  return text.replace("\r\n", "\n").removesuffix("\n").split("\n")


def _from_file(folder: pathlib.Path, content: Mapping[str, Any],
               config: Mapping[str, Any]) -> LoadedTokenizer:
  """Of tokenizer.json."""
  missing = [key for key in ("model", "normalizer", "pre_tokenizer",
                             "added_tokens") if key not in content]
  if missing:
    raise UserError(f"{folder / _FILE} has no {', '.join(missing)}, and is "
                    "none that the tokenizers library wrote.")
  model = content["model"]
  kind = _type(model) or ("BPE" if "merges" in model else "WordPiece")
  if (folder / "spiece.model").exists() and (
      set(SPECIAL) <= {*pieces_of(model)}):
    return _sentencepiece(folder, model)
  pieces = _numbered(folder, model["vocab"]) if kind in (
      "WordPiece", "BPE") else []
  steps = [_type(content[step]) for step in ("normalizer", "pre_tokenizer")]
  between = _type(content.get("post_processor"))
  if kind == "WordPiece" and steps[1] == "BertPreTokenizer" and (
      steps[0] in ("BertNormalizer", None)) and (
          between != "RobertaProcessing"):
    return _wordpiece(folder, pieces, content, config, _added(
        folder, pieces, content["added_tokens"]))
  if kind == "BPE" and steps == [None, "ByteLevel"]:
    merges = [merge if isinstance(merge, str) else " ".join(merge)
              for merge in model["merges"]]
    return _byte_level(folder, pieces, merges, content, config, _added(
        folder, pieces, content["added_tokens"]))
  if kind not in ("WordPiece", "BPE", "Unigram"):
    raise UserError(f"{folder / _FILE}: a {kind} model is not supported; there "
                    "are WordPiece, BPE and Unigram.")
  pieces = pieces or pieces_of(model)
  description = {key: value for key, value in content.items() if key not in (
      "version", "truncation", "padding", "added_tokens")}
  try:
    return JsonFile(description, _guessed(config, pieces), _added(
        folder, pieces, content["added_tokens"], spaces=True))
  except UserError as error:
    raise UserError(f"{folder / _FILE}: {error}") from None


def _wordpiece(folder: pathlib.Path, pieces: Sequence[str],
               content: Mapping[str, Any], config: Mapping[str, Any],
               added: Sequence[Mapping[str, Any]]) -> WordPiece:
  text = {"lowercase": True, "strip_accents": None,
          "handle_chinese_chars": True, "clean_text": True}
  options = {"max_input_chars_per_word": 100, "continuing_subword_prefix": "##"}
  if content:
    off = dict(lowercase=False, strip_accents=False,
               handle_chinese_chars=False, clean_text=False)
    normalizer = content["normalizer"] or off
    text |= {k: v for k, v in normalizer.items() if k in text}
    options |= content["model"]
  if options["continuing_subword_prefix"] != "##":
    raise UserError(f"{folder / _FILE}: continuing_subword_prefix="
                    f"{options['continuing_subword_prefix']!r}; only '##' is "
                    "supported.")
  for name, theirs in (("lowercase", "do_lower_case"),
                       ("strip_accents", "strip_accents"),
                       ("handle_chinese_chars", "tokenize_chinese_chars")):
    if theirs in config:
      text[name] = config[theirs]
  return WordPiece(pieces, text, options["max_input_chars_per_word"],
                   _names(config, SPECIAL), added)


def _byte_level(folder: pathlib.Path, pieces: Sequence[str],
                merges: Sequence[str], content: Mapping[str, Any],
                config: Mapping[str, Any],
                added: Sequence[Mapping[str, Any]]) -> ByteLevel:
  prefix_space = False
  if content:
    odd = {key: value for key, value in content["model"].items()
           if value and key not in ("type", "vocab", "merges", "unk_token")}
    if not content["pre_tokenizer"].get("use_regex", True):
      odd["use_regex"] = False
    if odd:
      raise UserError(f"{folder / _FILE}: {odd} of byte-level BPE is not "
                      "supported.")
    prefix_space = content["pre_tokenizer"]["add_prefix_space"]
  if "add_prefix_space" in config:
    prefix_space = config["add_prefix_space"]
  return ByteLevel(pieces, merges, prefix_space,
                   _names(config, byte_bpe.SPECIAL), added)


def _sentencepiece(folder: pathlib.Path,
                   model: Mapping[str, Any]) -> SentencePiece:
  """What `SentencePiece.directory` wrote."""
  data = (folder / "spiece.model").read_bytes()
  tokenizer = SentencePiece.of(data)
  vocabulary = model["vocab"]
  pieces = _numbered(folder, vocabulary) if isinstance(
      vocabulary, dict) else [piece for piece, _ in vocabulary]
  if tuple(pieces) != tokenizer.pieces:
    raise UserError(f"{folder}: tokenizer.json numbers the pieces otherwise "
                    "than spiece.model; that is not supported.")
  return tokenizer


def _names(config: Mapping[str, Any], names: Sequence[str]) -> list[str]:
  """What the special tokens are called, in the order of ROLES."""
  given = (config.get(f"{role}_token") or name
           for role, name in zip(ROLES, names))
  return [name if isinstance(name, str) else name["content"] for name in given]


def _guessed(config: Mapping[str, Any], pieces: Sequence[str]) -> list[str]:
  """As `_names`, where the vocabulary says whether they are BERT's or
  RoBERTa's."""
  known = set(pieces)
  return _names(config, [next((name for name in names if name in known),
                              names[0])
                         for names in zip(SPECIAL, byte_bpe.SPECIAL)])


def _outside(folder: pathlib.Path,
             config: Mapping[str, Any]) -> list[Mapping[str, Any]]:
  """Tokens that were added to a vocabulary that is no tokenizer.json."""
  if "added_tokens_decoder" in config:
    return [{"id": int(i), **token}
            for i, token in config["added_tokens_decoder"].items()]
  special = {name if isinstance(name, str) else name["content"] for key in (
      "additional_special_tokens", "extra_special_tokens")
      for name in config.get(key) or ()}
  special.update(_names(config, SPECIAL))
  return [{"id": i, "content": name, "special": name in special,
           "normalized": name not in special, "single_word": False,
           "lstrip": False, "rstrip": False}
          for name, i in _json(folder / "added_tokens.json").items()]


def _added(folder: pathlib.Path, pieces: Sequence[str],
           tokens: Sequence[Mapping[str, Any]],
           spaces: bool = False) -> list[dict[str, Any]]:
  """Those that the vocabulary does not say all about: first those that are
  not in it, in the order of their ids; `spaces`: they may take some."""
  known = set(pieces)
  more = sorted((token for token in tokens if token["content"] not in known),
                key=lambda token: token["id"])
  if [token["id"] for token in more] != list(
      range(len(pieces), len(pieces) + len(more))):
    raise UserError(f"{folder}: the ids of the added tokens "
                    f"{[token['content'] for token in more][:5]} do not follow "
                    f"the {len(pieces)} of the vocabulary.")
  for token in tokens:
    if not spaces and not token["special"] and (
        token["lstrip"] or token["rstrip"] or " " in token["content"]):
      raise UserError(f"{folder}: the added token {token['content']!r} takes "
                      "spaces; that is not supported.")
  more += [token for token in tokens
           if token["content"] in known and not token["special"]]
  return [{key: token[key] for key in ("content", *FLAGS)} for token in more]


def _numbered(folder: pathlib.Path, ids: Mapping[str, int]) -> list[str]:
  pieces = sorted(ids, key=ids.__getitem__)
  if sorted(ids.values()) != list(range(len(ids))):
    raise UserError(f"{folder}: the ids of the vocabulary are not the numbers "
                    f"from 0 to {len(ids) - 1}.")
  return pieces


def _type(part: Mapping[str, Any] | None) -> str | None:
  return part and part.get("type")


def _text(path: pathlib.Path) -> str:
  try:
    return path.read_bytes().decode("utf-8-sig")
  except OSError as error:
    raise UserError(f"{path}: {error.strerror}.") from None
  except UnicodeDecodeError:
    raise UserError(f"{path} is no UTF-8 text.") from None


def _json(path: pathlib.Path) -> dict[str, Any]:
  """What a file holds; nothing if there is none."""
  if not path.exists():
    return {}
  try:
    value = json.loads(_text(path))
  except ValueError as error:
    raise UserError(f"{path} is no JSON: {error}.") from None
  if not isinstance(value, dict):
    raise UserError(f"{path} holds {type(value).__name__}, not an object.")
  return value
