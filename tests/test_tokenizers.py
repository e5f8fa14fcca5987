"""The common interface of tokenizers, and the behavior of each."""

import io
import json
import pathlib
import random
import time

import numpy as np
import pytest
import sentencepiece
import tokenizers
from sentencepiece import sentencepiece_model_pb2
from hypothesis import given, strategies as st

from bert_jax.config import UserError
from bert_jax.data.text import documents
from bert_jax.data.tokenizers import (
    base as loaded_tokenizers, byte_bpe, choices, training_text)
from bert_jax.data.tokenizers.byte_bpe import ByteLevel
from bert_jax.data.tokenizers.choices import (
    ByteLevelTokenizer, SentencePieceTokenizer, Tokenizer, WordPieceTokenizer)
from bert_jax.data.tokenizers.sentencepiece import SentencePiece
from bert_jax.data.tokenizers.vocabulary import SPECIAL

FROZEN = pathlib.Path(__file__).parent / "data" / "tokens.json"
HARD = ["", " ", "  two  spaces ", "Hello [MASK] world[SEP] [UNK] [CLS] [PAD]",
        "<0x41> ▁ under_score", "naïve café ﬁ ﬂ ①", "日本語 and 中文。 🤗",
        "tab\tnew\nline\x0b\x1c\u2028\u3000\u200b", "a\x00b \x07",
        "´ ́e \u0301", "x" * 300, "don't (stop) it's 3.14%"]


@pytest.fixture(scope="module")
def sentences():
  folder = pathlib.Path(json.__file__).parent
  return [s for d in documents.read(f"{folder}/*.py?format=prose")
          for s in d.sentences]


TRAINED = {
    "sentencepiece": SentencePieceTokenizer(vocab_size=600),
    "unigram": SentencePieceTokenizer(model_type="unigram", vocab_size=600),
    "small": SentencePieceTokenizer(byte_fallback=False, vocab_size=300),
    "wordpiece": WordPieceTokenizer(vocab_size=600),
    "cased": WordPieceTokenizer(vocab_size=600, lowercase=False),
    "words with Chinese": WordPieceTokenizer(
        vocab_size=600, chinese_characters=False),
    "trained bytes": ByteLevelTokenizer(vocab_size=600, prefix_space=True)}


# What other programs train SentencePiece models with.
MODELS = {
    "no prefix": dict(add_dummy_prefix=False),
    "spaces kept": dict(remove_extra_whitespaces=False),
    "no rules": dict(normalization_rule_name="identity"),
    "symbols": dict(user_defined_symbols=["[MASK]", "[CLS]", "<sep>", "<a b>"]),
    "unknown spaces": dict(byte_fallback=False, vocab_size=300)}
SPECIAL_IDS = dict(pad_id=0, pad_piece="[PAD]", unk_id=1, unk_piece="[UNK]",
                   bos_piece="[CLS]", eos_id=3, eos_piece="[SEP]")


def model(sentences, **options) -> bytes:
  """A SentencePiece model, trained without this project."""
  file = io.BytesIO()
  symbols = options.get("user_defined_symbols", ())
  sentencepiece.SentencePieceTrainer.train(
      sentence_iterator=iter(sentences), model_writer=file,
      **SPECIAL_IDS | dict(
          vocab_size=500, model_type="bpe", byte_fallback=True, num_threads=1,
          bos_id=-1 if "[CLS]" in symbols else 2, minloglevel=2,
          control_symbols=[] if "[MASK]" in symbols else ["[MASK]"]) | options)
  proto = sentencepiece_model_pb2.ModelProto.FromString(file.getvalue())
  for piece in proto.pieces:
    if piece.piece == "▁" and not proto.trainer_spec.byte_fallback:
      piece.piece = "\u16a0"  # So that the model does not know a space.
  return proto.SerializeToString()


@pytest.fixture(scope="module")
def trained(sentences):
  """One of each choice, the frozen byte-level BPE, and models of others."""
  frozen = json.loads(FROZEN.read_text())["byte_level"]
  byte_level = lambda *options: ByteLevel(
      frozen["vocabulary"], frozen["merges"], *options)
  return {name: choice.build(sentences) for name, choice in TRAINED.items()} | {
      "byte_level": byte_level(), "prefix": byte_level(True),
      "plain names": byte_level(False, ("a", "b", "c", "d", "e"))} | {
          name: SentencePiece.of(model(sentences, **options))
          for name, options in MODELS.items()}


@pytest.fixture(params=[*TRAINED, "byte_level", "prefix", "plain names",
                        *MODELS], scope="module")
def loaded(request, trained):
  return trained[request.param]


def test_every_choice_is_tested():
  assert {choice.choice_name for choice in TRAINED.values()} == set(
      Tokenizer.members()) - {"directory"}


@pytest.mark.parametrize("name", TRAINED)
def test_training_is_repeatable(name, trained, sentences):
  choice, loaded = TRAINED[name], trained[name]
  again = choice.build(iter(sentences))
  assert again.serialize() == loaded.serialize()
  assert again.fingerprint == loaded.fingerprint
  assert choice.build(sentences[::2]).fingerprint != loaded.fingerprint


def test_tokenizer_survives_json(loaded):
  copy = choices.deserialize(json.loads(json.dumps(loaded.serialize())))
  assert copy.fingerprint == loaded.fingerprint
  assert copy.encode(HARD) == loaded.encode(HARD)


def test_vocabulary_describes_every_id(loaded):
  vocabulary = loaded.vocabulary
  special = [vocabulary.pad_id, vocabulary.unk_id, vocabulary.cls_id,
             vocabulary.sep_id, vocabulary.mask_id]
  if loaded.pieces[special[0]] != "a":
    assert loaded.tokens(special) == list(
        byte_bpe.SPECIAL if vocabulary.pair_separators == 2 else SPECIAL)
  assert sorted([*special, *vocabulary.ordinary_ids]) == list(
      range(vocabulary.size))
  assert not vocabulary.word_start_V[special].any()
  assert not vocabulary.byte_count_V[special].any()
  assert (vocabulary.byte_count_V[vocabulary.ordinary_ids] > 0).all()


def library(loaded):
  """Ids of a text, by the library alone and the file it gets."""
  if isinstance(loaded, SentencePiece):
    return sentencepiece.SentencePieceProcessor(
        model_proto=loaded.file()).encode
  theirs = tokenizers.Tokenizer.from_str(
      loaded.directory()["tokenizer.json"].decode())
  theirs.encode_special_tokens = True
  return lambda text: theirs.encode(text, add_special_tokens=False).ids


NAMES = (*SPECIAL, *byte_bpe.SPECIAL, "<sep>", "<a b>", "▁", "<0x41>", "a", "b")
TEXTS = st.one_of(
    st.text(st.characters(exclude_categories=["Cs"]), max_size=30),
    st.lists(st.sampled_from((
        *NAMES, " ", "  ", "\u3000", "\t", "\x1c", "\u200b", "\x07", "\u0301",
        "´", "e\u0301", "ﬁ", "中", "の", "the", "the ", "an", "İ", "ß", ".",
        "'s")), max_size=12).map("".join))


@given(TEXTS)
def test_ids_are_those_of_the_library(loaded, text):
  special = np.setdiff1d(np.arange(loaded.vocabulary.size),
                         loaded.vocabulary.ordinary_ids)
  ids, = loaded.encode([text])
  # No text writes a special id,
  assert set(special).intersection(ids) <= {loaded.vocabulary.unk_id}
  theirs = library(loaded)(text)
  if set(special).intersection(theirs) <= {loaded.vocabulary.unk_id}:
    assert ids == theirs  # even where the library lets it.
  elif not isinstance(loaded, SentencePiece):
    assert ids == [loaded.vocabulary.unk_id if i in special else i
                   for i in theirs]


def test_ids_of_sentences_are_those_of_the_library(loaded, sentences):
  texts = HARD + sentences[:500]
  theirs = library(loaded)
  special = set(SPECIAL) | {"<a b>", "<sep>"}
  texts = [text for text in texts if not any(s in text for s in special)]
  if loaded.pieces[loaded.vocabulary.pad_id] != "a":
    assert loaded.encode(texts) == [theirs(text) for text in texts]


@pytest.mark.parametrize("options, setting", [
    ({"treat_whitespace_as_suffix": True}, "treat_whitespace_as_suffix"),
    ({"split_by_whitespace": False}, "split_by_whitespace=false")])
def test_model_without_word_starts_is_refused(options, setting):
  with pytest.raises(UserError, match=setting):
    SentencePiece.of(model(["of the of the"] * 50, vocab_size=275, **options))


def test_words_are_tokenized_as_in_their_text(loaded, sentences):
  words = [s.split() for s in sentences[:200]]
  joined = loaded.encode([" ".join(line) for line in words])
  assert [sum(line, []) for line in loaded.encode_words(words)] == joined
  starts = loaded.vocabulary.word_start_V
  # RoBERTa and others mark word starts by spaces; the first word has none.
  first, second, third = loaded.encode_words([["a", "list", "a"]])[0]
  if loaded.vocabulary.unk_id not in third:
    assert starts[second[0]] and starts[third[0]]
    assert starts[first[0]] or first != third


def test_offsets_are_places_in_the_text_as_given(loaded):
  texts = HARD + ["İİİ ﬃ e\u0301e\u0301 Ünï, x", "ﷺ ①  word\t next"]
  encoded = loaded.encode_offsets(texts)
  assert [ids.tolist() for ids, _, _ in encoded] == loaded.encode(texts)
  text = "ﬁne ﬁne  Café, ok"  # The ligatures are one character, not two.
  words = [text[i:j] for _, i, j in zip(*loaded.encode_offsets([text])[0])]
  assert set("".join(words)) == set(text) - {" "}
  assert words[-1] in ("ok", "k") and not any(" " in word for word in words)


@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=30))
def test_offsets_lie_in_order_within_the_text(loaded, text):
  (ids, starts, ends), = loaded.encode_offsets([text])
  assert [ids.tolist()] == loaded.encode([text])
  assert len(ids) == len(starts) == len(ends)
  assert (0 <= starts).all() and (starts <= ends).all()
  assert (ends <= len(text)).all() and (np.diff(starts) >= 0).all()


def test_half_a_surrogate_pair_is_refused_and_not_cached(loaded):
  expected = loaded.encode(["some words"])
  for encode in (loaded.encode, loaded.encode_offsets):
    with pytest.raises(UserError, match=r"ud83d.* half of a surrogate pair"):
      encode(["some", "new \ud83d words"])
    with pytest.raises(UserError, match="list of texts, as .'some words'"):
      encode("some words")
  assert loaded.encode(["some words"]) == expected
  assert loaded.encode(["new words"]) == choices.deserialize(
      loaded.serialize()).encode(["new words"])


def test_white_space_runs_do_not_move_pieces(trained):
  rng = np.random.default_rng(0)
  texts = ["".join(rng.choice(list("ab, \n\t \u3000\x1c\x85'\u00a0 "), 12))
           for _ in range(300)]
  for name in ("byte_level", "prefix"):
    loaded = trained[name]
    assert loaded.encode(texts) == [list(t) for t in loaded._encode(texts)]


def test_full_cache_is_cleared(loaded, sentences, monkeypatch):
  expected = loaded.encode(sentences)
  monkeypatch.setattr(loaded_tokenizers, "_CACHED_WORDS", 50)
  parts = [sentences[i:i + 7] for i in range(0, len(sentences), 7)]
  assert sum(map(loaded.encode, parts), []) == expected
  assert len(loaded._numbers) < 500


def test_bytes_of_tokens_are_bytes_of_text(sentences):
  loaded = SentencePieceTokenizer(vocab_size=600).build(sentences)
  text = "A naïve 日本語 text, 3.14 🤗"
  ids = loaded.encode([text])[0]
  # One more: the first word counts a space before it.
  assert loaded.vocabulary.byte_count_V[ids].sum() == len(text.encode()) + 1
  assert loaded.decode(ids) == text


def test_bytes_alone_keep_a_text_as_it_is(tmp_path):
  loaded = ByteLevelTokenizer(vocab_size=261).build(["any text"])
  path = tmp_path / "play.txt"
  path.write_bytes(b"ROMEO:\n  But soft!\n\nJULIET:\nAy me!")
  document, = documents.read(f"{path}?format=verbatim")
  ids = sum(loaded.encode(document.sentences), [])
  assert len(ids) == path.stat().st_size + 1  # The last line gets its end.
  assert loaded.decode(ids) == path.read_text() + "\n"
  assert (loaded.vocabulary.byte_count_V[ids] == 1).all()


def test_uncased_vocabulary_treats_text_as_bert_does(tmp_path):
  path = tmp_path / "vocab.txt"
  path.write_text("\n".join([
      "[PAD]", "[unused0]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "un", "##aff",
      "##able", "cafe", ",", "中", "国", "the", "The"]) + "\n")
  uncased = WordPieceTokenizer(path=str(path)).build([])
  assert uncased.vocabulary.size == 15 and uncased.vocabulary.mask_id == 5
  assert uncased.tokens(uncased.encode(["UNaffable, Café中国The zz"])[0]) == [
      "un", "##aff", "##able", ",", "cafe", "中", "国", "the", "[UNK]"]
  cased = WordPieceTokenizer(path=str(path), lowercase=False).build([])
  assert cased.tokens(cased.encode(["The café"])[0]) == ["The", "[UNK]"]
  assert uncased.vocabulary.byte_count_V[6:11].tolist() == [3, 3, 4, 5, 1]
  assert uncased.vocabulary.word_start_V[6:11].tolist() == [
      True, False, False, True, True]


def test_accents_and_chinese_characters_are_options(tmp_path):
  path = tmp_path / "vocab.txt"
  path.write_text("\n".join([
      "[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "é", "e", "É", "E", "中",
      "##中"]) + "\n")

  def pieces(**options):
    loaded = WordPieceTokenizer(path=str(path), **options).build([])
    return loaded.tokens(loaded.encode(["É 中中"])[0])

  assert pieces() == ["e", "中", "中"]
  assert pieces(strip_accents=False) == ["é", "中", "中"]
  assert pieces(lowercase=False) == ["É", "中", "中"]
  assert pieces(lowercase=False, strip_accents=True)[0] == "E"
  assert pieces(chinese_characters=False) == ["e", "中", "##中"]
  # Training learns no pieces that no text is split into.
  for apart in (True, False):
    trained = WordPieceTokenizer(vocab_size=40, chinese_characters=apart)
    assert ("##中" in trained.build(["中中 abc ab"]).pieces) != apart


def test_characters_are_bounded_by_the_vocabulary():
  """Those that cover the text are in it, and rare ones leave room for words."""
  chinese = ["".join(chr(0x4E00 + (7 * i + j) % 3000) for j in range(40))
             for i in range(500)]
  loaded = WordPieceTokenizer(vocab_size=4000).build(chinese)
  ids = np.array(loaded.encode(chinese))
  assert (ids == loaded.vocabulary.unk_id).mean() <= 0.001
  with pytest.raises(UserError, match="too small for the characters.*at least"):
    WordPieceTokenizer(vocab_size=2000).build(chinese)
  rare = "".join(chr(0x1400 + i) for i in range(200))
  loaded = WordPieceTokenizer(vocab_size=150).build(
      ["the quick brown fox jumps over a lazy dog " * 100] * 100 + [rare])
  assert "quick" in loaded.pieces and rare[-1] not in loaded.pieces


def test_published_vocabulary_gives_published_ids(shared):
  path = shared / "data/vocab/bert-base-uncased-vocab.txt"
  loaded = WordPieceTokenizer(path=str(path)).build([])
  assert loaded.encode(["Hello, my dog is cute!"])[0] == [
      7592, 1010, 2026, 3899, 2003, 10140, 999]
  assert (loaded.vocabulary.size, loaded.vocabulary.mask_id) == (30522, 103)


def test_sample_is_even_and_bounded(monkeypatch):
  monkeypatch.setattr(training_text, "_SAMPLE_CHARACTERS", 1000)
  kept = training_text.sample(f"{i:010}" for i in range(12_345))
  gaps = set(np.diff([int(s) for s in kept]))
  assert len(gaps) == 1 and 500 <= sum(map(len, kept)) <= 1000


def test_training_is_linear_in_the_length_of_a_word(caplog):
  word = "".join(random.Random(0).choices("abcdefgh", k=200_000))
  start = time.perf_counter()
  trained = WordPieceTokenizer(vocab_size=200).build([word, "short words"])
  assert trained.vocabulary.size == 200 and time.perf_counter() - start < 10
  assert "1 sentence has words of more than 256 characters" in caplog.text
  sample, = training_text.sample([word])
  assert sample.replace(" ", "") == word
  assert max(map(len, sample.split())) == 256


def test_bad_tokenizer_options_are_refused(tmp_path):
  short = tmp_path / "short.txt"
  short.write_text("[PAD]\n[UNK]\nthe\n")
  text = ["only a few words here"]
  for choice, message in [
      (SentencePieceTokenizer(vocab_size=9000), "9000 is more.*at most"),
      (SentencePieceTokenizer(vocab_size=9), "vocab_size=9"),
      (SentencePieceTokenizer(vocab_size=1), "^(?!.*INTERNAL).*vocab_size=1"),
      (SentencePieceTokenizer(vocab_size=-5), "vocab_size=-5: more than 5"),
      (WordPieceTokenizer(vocab_size=-5), "vocab_size=-5: more than 5"),
      (WordPieceTokenizer(vocab_size=0), "vocab_size=0: more than 5"),
      (WordPieceTokenizer(vocab_size=20), "vocab_size=20 is too small .* 29"),
      (SentencePieceTokenizer(path=str(short)), "no SentencePiece model"),
      (SentencePieceTokenizer(path="no.model"), "no.model.*No such file"),
      (WordPieceTokenizer(path=str(short)), "lacks .CLS., .SEP., .MASK.")]:
    with pytest.raises(UserError, match=message):
      choice.build(text)
  for choice in (SentencePieceTokenizer(), WordPieceTokenizer()):
    with pytest.raises(UserError, match="No text"):
      choice.build([])
  with pytest.raises(UserError, match="^No text to train a tokenizer on.$"):
    SentencePieceTokenizer().build(["▁▁"])
