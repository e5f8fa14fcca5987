"""Tokenizers in Hugging Face directories, against ids of `transformers`."""

import dataclasses
import json
import pathlib

import numpy as np
import pytest

from bert_jax.config import UserError
from bert_jax.data.batches.examples import Examples
from bert_jax.data.batches.rows import assemble
from bert_jax.data.batches.spec import KEYS, empty_row
from bert_jax.data.pretraining.formats import PairsFormat
from bert_jax.data.pretraining.rows import PretrainingRows
from bert_jax.data.tokenizers import choices, hf_directory
from bert_jax.data.tokenizers.byte_bpe import ByteLevel
from bert_jax.data.tokenizers.choices import (
    DirectoryTokenizer, SentencePieceTokenizer, WordPieceTokenizer)
from bert_jax.data.tokenizers.vocabulary import SPECIAL
from bert_jax.data.tokenizers.wordpiece import WordPiece
from tests import memory_corpus

# Made by tools/token_parity.py --freeze.
FROZEN = json.loads((pathlib.Path(__file__).parent / "data" / "tokens.json"
                     ).read_text())
TEXTS, VOCABULARY = FROZEN["texts"], FROZEN["vocabulary"]
SENTENCES = pathlib.Path(json.__file__).read_text().splitlines()
PLAIN = dict(lowercase=True, strip_accents=None, handle_chinese_chars=True,
             clean_text=True)


def added(content, special=False, **flags):
  return {"content": content, "special": special, "normalized": not special,
          "single_word": False, "lstrip": False, "rstrip": False} | flags


def write(folder, files):
  for name, content in files.items():
    (folder / name).write_bytes(content if isinstance(content, bytes)
                                else json.dumps(content).encode())
  return folder


def roberta(prefix_space=False):
  frozen = FROZEN["byte_level"]
  return ByteLevel(frozen["vocabulary"], frozen["merges"], prefix_space)


KINDS = {
    "uncased": lambda: WordPiece(VOCABULARY, PLAIN),
    "cased": lambda: WordPiece(VOCABULARY, PLAIN | {"lowercase": False}),
    "other settings": lambda: WordPiece(
        VOCABULARY, PLAIN | {"clean_text": False}, longest_word=12),
    "added": lambda: WordPiece(VOCABULARY, PLAIN, added=[
        added("[E1]", special=True), added("covid19"),
        added("Zebra", normalized=False, single_word=True)]),
    "byte level": roberta, "prefix": lambda: roberta(True),
    "sentencepiece": lambda: SentencePieceTokenizer(vocab_size=400).build(
        SENTENCES),
    "lower-case pieces": lambda: SentencePieceTokenizer(
        vocab_size=400, lowercase=True).build(SENTENCES),
    "without bytes": lambda: SentencePieceTokenizer(
        vocab_size=200, byte_fallback=False).build(SENTENCES),
    "unigram": lambda: SentencePieceTokenizer(
        vocab_size=400, model_type="unigram").build(SENTENCES)}


@pytest.mark.parametrize("setting", FROZEN["wordpiece"])
def test_ids_equal_those_of_transformers(setting, tmp_path):
  frozen = FROZEN["wordpiece"][setting]
  path = tmp_path / "vocab.txt"
  path.write_text("".join(f"{piece}\n" for piece in VOCABULARY))
  choice = WordPieceTokenizer(path=str(path), **frozen["options"])
  for text, own, theirs in zip(TEXTS, choice.build([]).encode(TEXTS),
                               frozen["ids"]):
    assert own == theirs, text


@pytest.mark.parametrize("name, separators, second_type", [
    ("albert", 1, 1), ("xlm-roberta", 2, 0), ("mpnet", 2, 0),
    ("modernbert", 1, 0)])
def test_other_families_ids_equal_those_of_transformers(
    tmp_path, name, separators, second_type):
  frozen = json.loads((pathlib.Path(__file__).parent / "data"
                       / "tokens_of_families.json").read_text())[name]
  tokenizer = hf_directory.from_directory(write(tmp_path, frozen["files"]))
  known = tokenizer.vocabulary
  assert (known.pair_separators, known.pair_token_type) == (
      separators, second_type)
  special = {known.pad_id, known.cls_id, known.sep_id, known.mask_id}
  again = choices.deserialize(tokenizer.serialize())
  (tmp_path / "out").mkdir()
  written = hf_directory.from_directory(write(
      tmp_path / "out", tokenizer.directory(64)))
  assert written.pieces == tokenizer.pieces
  for text, *ours, theirs in zip(
      TEXTS, *(t.encode(TEXTS) for t in (tokenizer, again, written)),
      frozen["ids"]):
    # No text writes special tokens here, although the model may find them.
    theirs = [known.unk_id if i in special else i for i in theirs]
    assert ours == [theirs] * 3, text


def test_bytes_equal_those_of_transformers():
  for text, own, theirs in zip(TEXTS, roberta().encode(TEXTS),
                               FROZEN["byte_level"]["ids"]):
    assert own == theirs, text


@pytest.mark.parametrize("kind", KINDS)
def test_directory_holds_the_complete_tokenizer(kind, tmp_path):
  made = KINDS[kind]()
  write(tmp_path, made.directory(128))
  back = DirectoryTokenizer(path=str(tmp_path)).build([])
  assert back.fingerprint == made.fingerprint
  again = choices.deserialize(json.loads(json.dumps(back.serialize())))
  assert again.encode(TEXTS) == made.encode(TEXTS)
  config = json.loads((tmp_path / "tokenizer_config.json").read_text())
  assert config["model_max_length"] == 128
  # The tokenizers library parses special tokens, and adds them to a text.
  import tokenizers as library
  theirs = library.Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
  special = made.vocabulary
  ids = theirs.encode(f"a {made.pieces[special.mask_id]} a", "a").ids
  assert special.mask_id in ids and ids[0] == special.cls_id
  assert ids.count(special.sep_id) == special.special_tokens(True) - 1
  # Without special tokens, and characters that only SentencePiece composes.
  texts = [text for text in TEXTS
           if not set("[<\u0301\uff9f\u0130") & set(text)] + ["<0x41> a"]
  assert [theirs.encode(text, add_special_tokens=False).ids
          for text in texts] == made.encode(texts)


def test_older_files_are_read_as_transformers_reads_them(tmp_path):
  vocabulary = "".join(f"{piece}\n" for piece in VOCABULARY).encode()

  def options(name, **files):
    (tmp_path / name).mkdir()
    files = {key.replace("__", "."): value for key, value in files.items()}
    return hf_directory.from_directory(
        write(tmp_path / name, files)).serialize()["text"]

  assert options("plain", vocab__txt=vocabulary) == PLAIN
  assert options("crlf", vocab__txt=vocabulary.replace(b"\n", b"\r\n")) == PLAIN
  config = {"do_lower_case": False, "strip_accents": True,
            "tokenize_chinese_chars": False}
  cased = dict(lowercase=False, strip_accents=True, handle_chinese_chars=False,
               clean_text=True)
  assert options("cased", vocab__txt=vocabulary,
                 tokenizer_config__json=config) == cased
  contents = json.loads(
      WordPiece(VOCABULARY, PLAIN).directory()["tokenizer.json"])
  # tokenizer_config.json takes precedence over tokenizer.json.
  assert options("both", tokenizer__json=contents,
                 tokenizer_config__json=config) == cased
  contents["normalizer"]["lowercase"] = False
  assert options("alone", tokenizer__json=contents) == PLAIN | {
      "lowercase": False}
  tokenizer = hf_directory.from_directory(write(tmp_path / "plain", {
      "added_tokens.json": {"[E1]": len(VOCABULARY)},
      "special_tokens_map.json": {"additional_special_tokens": ["[E1]"]}}))
  assert tokenizer.vocabulary.size == len(VOCABULARY) + 1
  assert len(VOCABULARY) not in tokenizer.vocabulary.ordinary_ids


def test_prefix_space_makes_the_first_word_like_any_other():
  spaced = roberta().encode([" one two"])
  assert roberta(True).encode(["one two", " one two"]) == spaced * 2
  assert roberta().encode(["one two"]) != spaced


@pytest.mark.parametrize("file, space", [
    ("tokenizer.json", True), ("tokenizer_config.json", True),
    ("tokenizer_config.json", False)])
def test_prefix_space_is_read_from_either_file(file, space, tmp_path):
  files = roberta(space).directory()
  other = roberta(not space).directory()["tokenizer.json"]
  config = {} if file == "tokenizer.json" else {"add_prefix_space": space}
  contents = other if config else files["tokenizer.json"]
  read = hf_directory.from_directory(write(tmp_path, {
      "tokenizer.json": contents, "tokenizer_config.json": config}))
  assert read.fingerprint == roberta(space).fingerprint


def test_vocab_json_and_merges_suffice(tmp_path):
  made = roberta()
  files = made.directory()
  # Without this line, other libraries skip the first pair.
  assert files["merges.txt"].startswith(b"#version: 0.2\n")
  write(tmp_path, {name: files[name] for name in ("vocab.json", "merges.txt")})
  assert hf_directory.from_directory(tmp_path).fingerprint == made.fingerprint


def test_added_tokens_are_parsed_but_special_ones_are_not():
  made = KINDS["added"]()
  first = len(VOCABULARY)
  ids = made.encode(["[E1] xCOVID19x Zebra xZebra"])[0]
  assert first not in ids
  assert ids.count(first + 1) == 1 and ids.count(first + 2) == 1
  assert made.vocabulary.size == first + 3
  assert first not in made.vocabulary.ordinary_ids


def test_repeated_lines_keep_the_ids_of_all_others(tmp_path, caplog):
  """The last line of a piece counts, as in the tokenizers library."""
  import tokenizers as library
  pieces = [*SPECIAL, "the", "cat", "the", "", "", "##s"]
  text = "".join(f"{piece}\n" for piece in pieces).encode()
  # Windows marks the beginning of a file.
  write(tmp_path, {"vocab.txt": b"\xef\xbb\xbf" + text,
                   "added_tokens.json": {"[E1]": len(pieces)}})
  read = hf_directory.from_directory(tmp_path)
  assert caplog.text.count("2 lines are there again further down, as line 6, "
                           "'the'") == 1
  assert read.encode(["the cats"]) == [[7, 6, 10]]
  assert read.pieces.index("[E1]") == read.vocabulary.size - 1 == len(pieces)
  (tmp_path / "again").mkdir()
  back = hf_directory.from_directory(write(tmp_path / "again",
                                           read.directory()))
  assert back.fingerprint == read.fingerprint
  (tmp_path / "plain.txt").write_bytes(text)
  theirs = library.models.WordPiece.from_file(str(tmp_path / "plain.txt"))
  assert theirs.token_to_id("the") == 7
  alone = WordPieceTokenizer(path=str(tmp_path / "vocab.txt")).build([])
  assert alone.file() == read.file() and alone.encode(["the"]) == [[7]]
  (tmp_path / "latin.txt").write_bytes("[PAD]\nGr\xfc\xdfe\n".encode("latin1"))
  with pytest.raises(UserError, match="latin.txt is no UTF-8"):
    WordPieceTokenizer(path=str(tmp_path / "latin.txt")).build([])
  with pytest.raises(UserError, match="1 pieces more than once, as 'cat'"):
    WordPiece([*SPECIAL, "cat", "cat"], PLAIN)


def test_pieces_may_be_added_tokens_too(tmp_path):
  """They are matched in a text before it is split into words."""
  piece = next(p for p in VOCABULARY if p.isalpha() and len(p) > 2)
  made = WordPiece(VOCABULARY, PLAIN, added=[added(piece)])
  read = hf_directory.from_directory(write(tmp_path, made.directory()))
  assert read.fingerprint == made.fingerprint
  number = VOCABULARY.index(piece)
  assert number in read.encode([f"qqq{piece}qqq"])[0]


@pytest.mark.parametrize("change, message", [
    ({"model": {"type": "WordLevel", "vocab": {}}}, "WordLevel .*not"),
    ({"model": {"type": "Unigram", "vocab": [["a", 0.0]], "unk_id": 0},
      "added_tokens": []}, "do not say where words begin"),
    ({"normalizer": {"type": "NFX"}}, "library refuses it"),
    ({"normalizer": ...}, "has no normalizer"),
    ({"added_tokens": [{"id": 9999, **added("new")}]}, "do not follow"),
    *(({"added_tokens": [{"id": len(VOCABULARY), **token}]}, "takes spaces")
      for token in (added("new", lstrip=True), added("new", rstrip=True),
                    added("two words"))),
])
def test_unsupported_tokenizer_file_is_refused(change, message, tmp_path):
  files = WordPiece(VOCABULARY, PLAIN).directory()
  contents = json.loads(files["tokenizer.json"]) | change
  contents = {key: value for key, value in contents.items() if value is not ...}
  with pytest.raises(UserError, match=message):
    hf_directory.from_directory(write(tmp_path, {"tokenizer.json": contents}))


def test_vocabulary_of_another_tokenizer_is_refused(tmp_path):
  files = {"vocab.txt": WordPiece(VOCABULARY, PLAIN).file()}
  write(tmp_path, files | {"tokenizer_config.json": {
      "tokenizer_class": "BertJapaneseTokenizer"}})
  with pytest.raises(UserError, match="tokenizer_class=BertJapanese"):
    hf_directory.from_directory(tmp_path)


@pytest.mark.parametrize("config, warnings", [
    ({}, 1), ({"do_lower_case": False}, 0), ({"do_lower_case": True}, 0)])
def test_lost_capitals_are_reported(config, warnings, tmp_path, caplog):
  pieces = [*VOCABULARY, "Capital"]
  write(tmp_path, {"vocab.txt": "".join(f"{p}\n" for p in pieces).encode(),
                   "tokenizer_config.json": config})
  hf_directory.from_directory(tmp_path)
  assert caplog.text.count("the vocabulary has capitals") == warnings


def test_directory_without_a_tokenizer_is_refused(tmp_path):
  with pytest.raises(UserError, match="is no directory"):
    hf_directory.from_directory(tmp_path / "nowhere")
  (tmp_path / "config.json").write_text("{}")
  with pytest.raises(UserError, match="no tokenizer: .*There is config.json"):
    hf_directory.from_directory(tmp_path)
  (tmp_path / "tokenizer.json").write_text("{")
  with pytest.raises(UserError, match="tokenizer.json is no JSON"):
    hf_directory.from_directory(tmp_path)
  with pytest.raises(UserError, match="tokenizer.path"):
    DirectoryTokenizer().build([])


def test_pairs_of_roberta_have_two_separators():
  vocabulary = roberta().vocabulary
  cls, sep, pad = vocabulary.cls_id, vocabulary.sep_id, vocabulary.pad_id
  pairs = Examples(np.array([0]), np.array([2]), np.array([2]), np.array([1]),
                   separators=2)
  assert pairs.lengths_X.tolist() == [7]
  row = empty_row(KEYS, {"L": 8, "E": 1, "S": 1}, vocabulary)
  assemble(np.array([10, 11, 12]), vocabulary, pairs, np.array([0]), row)
  assert row["input_ids"].tolist() == [
      cls, 10, 11, sep, sep, 12, sep, pad]
  assert not row["token_type_ids"].any()
  assert row["position_ids"].tolist() == [0, 1, 2, 3, 4, 5, 6, 0]


def test_pretraining_leaves_room_for_two_separators():
  corpus = memory_corpus.random_corpus(8, 6, 9)
  vocabulary = dataclasses.replace(
      memory_corpus.vocabulary(corpus.vocabulary_size), pair_separators=2,
      pair_token_type=0)
  rows = PretrainingRows(corpus, vocabulary, PairsFormat(), 16, 1, 0)
  for index in range(len(rows)):
    row = rows.row(0, index)
    used = int((row["example_ids"] > 0).sum())
    assert row["input_ids"][used - 1] == vocabulary.sep_id
    assert (row["input_ids"] == vocabulary.sep_id).sum() == 3
