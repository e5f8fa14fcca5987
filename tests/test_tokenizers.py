"""One face over every tokenizer, and what is particular to each."""

import json
import pathlib

import numpy as np
import pytest

from bert_jax.config import UserError
from bert_jax.data import documents, tokenizers
from bert_jax.data import loaded as loaded_tokenizers
from bert_jax.data.tokenizers import (
    SentencePieceTokenizer, Tokenizer, WordPieceTokenizer)

HARD = ["", " ", "  two  spaces ", "Hello [MASK] world[SEP] [UNK] [CLS] [PAD]",
        "<0x41> ▁ under_score", "naïve café ﬁ ﬂ ①", "日本語 and 中文。 🤗",
        "tab\tnew\nline\x0b\x1c\u2028\u3000\u200b", "a\x00b \x07",
        "´ ́e \u0301", "x" * 300, "don't (stop) it's 3.14%"]


@pytest.fixture(scope="module")
def sentences():
  folder = pathlib.Path(json.__file__).parent
  return [s for d in documents.read(f"{folder}/*.py?format=prose")
          for s in d.sentences]


@pytest.fixture(scope="module", params=sorted(set(Tokenizer.members()) - {"directory"}) + [
    "unigram", "small"])
def built(request, sentences):
  choice = {
      "unigram": SentencePieceTokenizer(model_type="unigram", vocab_size=600),
      "small": SentencePieceTokenizer(byte_fallback=False, vocab_size=300),
  }.get(request.param)
  if choice is None:
    choice = Tokenizer.members()[request.param](vocab_size=600)
  return choice, choice.build(sentences)


def test_training_is_repeatable(built, sentences):
  choice, loaded = built
  again = choice.build(iter(sentences))
  assert again.serialize() == loaded.serialize()
  assert again.fingerprint == loaded.fingerprint
  assert choice.build(sentences[::2]).fingerprint != loaded.fingerprint


def test_it_survives_json(built):
  _, loaded = built
  copy = tokenizers.deserialize(json.loads(json.dumps(loaded.serialize())))
  assert copy.fingerprint == loaded.fingerprint
  assert copy.encode(HARD) == loaded.encode(HARD)


def test_the_vocabulary_describes_every_id(built):
  _, loaded = built
  vocabulary = loaded.vocabulary
  special = [vocabulary.pad_id, vocabulary.unk_id, vocabulary.cls_id,
             vocabulary.sep_id, vocabulary.mask_id]
  assert loaded.tokens(special) == list(tokenizers.SPECIAL)
  assert sorted([*special, *vocabulary.ordinary_ids]) == list(
      range(vocabulary.size))
  assert not vocabulary.word_start_V[special].any()
  assert not vocabulary.byte_count_V[special].any()
  assert (vocabulary.byte_count_V[vocabulary.ordinary_ids] > 0).all()


def test_no_text_writes_special_tokens(built):
  _, loaded = built
  special = set(range(loaded.vocabulary.size)) - set(
      loaded.vocabulary.ordinary_ids.tolist())
  ids = loaded.encode(["Hello [MASK] world[SEP][CLS] [PAD]"])[0]
  assert special.intersection(ids) <= {loaded.vocabulary.unk_id}


def test_looking_words_up_changes_nothing(built, sentences):
  _, loaded = built
  texts = HARD + sentences[:500]
  assert loaded.encode(texts) == [list(t) for t in loaded._encode(texts)]


def test_words_are_tokenized_as_in_their_text(built, sentences):
  _, loaded = built
  words = [s.split() for s in sentences[:200]]
  joined = loaded.encode([" ".join(line) for line in words])
  assert [sum(line, []) for line in loaded.encode_words(words)] == joined
  starts = loaded.vocabulary.word_start_V
  assert all(starts[ids[0]] for line in loaded.encode_words([["a", "list"]])
             for ids in line)


def test_a_full_memory_is_forgotten(built, sentences, monkeypatch):
  _, loaded = built
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


def test_an_uncased_vocabulary_treats_text_as_bert_does(tmp_path):
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


def test_the_published_vocabulary(shared):
  path = shared / "data/vocab/bert-base-uncased-vocab.txt"
  loaded = WordPieceTokenizer(path=str(path)).build([])
  assert loaded.encode(["Hello, my dog is cute!"])[0] == [
      7592, 1010, 2026, 3899, 2003, 10140, 999]
  assert (loaded.vocabulary.size, loaded.vocabulary.mask_id) == (30522, 103)


def test_a_sample_is_even_and_bounded(monkeypatch):
  monkeypatch.setattr(tokenizers, "_SAMPLE_CHARACTERS", 1000)
  kept = tokenizers._sample(f"{i:010}" for i in range(12_345))
  gaps = set(np.diff([int(s) for s in kept]))
  assert len(gaps) == 1 and 500 <= sum(map(len, kept)) <= 1000


def test_what_is_wrong_is_said(tmp_path):
  short = tmp_path / "short.txt"
  short.write_text("[PAD]\n[UNK]\nthe\n")
  text = ["only a few words here"]
  for choice, message in [
      (SentencePieceTokenizer(vocab_size=9000), "9000 is more.*at most"),
      (SentencePieceTokenizer(vocab_size=9), "vocab_size=9"),
      (SentencePieceTokenizer(path=str(short)), "no SentencePiece model"),
      (SentencePieceTokenizer(path="no.model"), "no.model.*No such file"),
      (WordPieceTokenizer(path=str(short)), "lacks .CLS., .SEP., .MASK.")]:
    with pytest.raises(UserError, match=message):
      choice.build(text)
  for choice in (SentencePieceTokenizer(), WordPieceTokenizer()):
    with pytest.raises(UserError, match="No text"):
      choice.build([])
