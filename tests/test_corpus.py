"""A corpus is complete or not there, and says what it holds."""

import json
import os
import pathlib
import signal
import subprocess
import sys

import numpy as np
import pytest

from bert_jax.config import UserError
from bert_jax.data import corpus, documents
from bert_jax.data.tokenizers import (
    SPECIAL, SentencePieceTokenizer, WordPieceTokenizer)

TOKENIZER = SentencePieceTokenizer(vocab_size=400)
PERCENT = 20


@pytest.fixture
def text(tmp_path) -> pathlib.Path:
  path = tmp_path / "text.txt"
  rng = np.random.default_rng(0)
  words = [f"{a}{b}{c}" for a in "bdfk" for b in "aeiou" for c in "lmnr"]
  path.write_text("\n\n".join(
      "\n".join(" ".join(rng.choice(words, 8)).capitalize() + "."
                for _ in range(rng.integers(1, 6))) for _ in range(200)))
  return path


def _documents(split, tokenizer):
  starts, tokens = split.sentence_starts_S1, split.tokens_T
  return [[tokenizer.decode(tokens[starts[s]:starts[s + 1]].tolist())
           for s in range(*split.document_starts_U1[u:u + 2])]
          for u in range(len(split.document_starts_U1) - 1)]


def test_it_holds_the_documents_split_by_name(text, tmp_path):
  splits = corpus.build(str(text), TOKENIZER, tmp_path / "c", PERCENT)
  for split, held in ((splits.train, False), (splits.heldout, True)):
    expected = [d.sentences for d in documents.read(str(text))
                if documents.held_out(d.name, PERCENT) == held]
    assert _documents(split, splits.tokenizer) == expected
    assert split.counts["bytes"] == sum(len(s) for d in expected for s in d)
    assert split.tokens_T.dtype == np.uint16
    assert split.vocabulary_size == splits.tokenizer.vocabulary.size
  # The tokenizer has seen the training split only.
  train = [s for d in documents.read(str(text)) for s in d.sentences
           if not documents.held_out(d.name, PERCENT)]
  assert TOKENIZER.build(train).fingerprint == splits.tokenizer.fingerprint


def test_batches_and_rereading_change_nothing(text, tmp_path, monkeypatch):
  expected = corpus.build(str(text), TOKENIZER, tmp_path / "a", PERCENT)
  monkeypatch.setattr(corpus, "_BATCH_CHARACTERS", 100)
  monkeypatch.setattr(corpus, "_KEPT_CHARACTERS", 100)
  found = corpus.build(str(text), TOKENIZER, tmp_path / "b", PERCENT)
  for a, b in ((expected.train, found.train), (expected.heldout, found.heldout)):
    assert a.fingerprint == b.fingerprint
    np.testing.assert_array_equal(a.tokens_T, b.tokens_T)
    np.testing.assert_array_equal(a.document_starts_U1, b.document_starts_U1)


def test_the_fingerprint_is_of_content_and_tokenizer(text, tmp_path):
  def fingerprint(name, tokenizer=TOKENIZER):
    return corpus.build(str(text), tokenizer, tmp_path / name,
                        0).train.fingerprint
  before = fingerprint("a")
  assert fingerprint("a") == before  # replaces the older one
  def words(*pieces):
    path = tmp_path / "vocab.txt"
    path.write_text("\n".join((*SPECIAL, "##l", "b", *pieces)))
    return WordPieceTokenizer(path=str(path))
  assert fingerprint("b", words()) != fingerprint("b", words("unseen"))
  text.write_text(text.read_text() + "\nOne more.")
  assert fingerprint("c") != before


def test_a_second_run_reuses_and_a_change_rebuilds(text, tmp_path, monkeypatch):
  def prepare(percent=PERCENT, tokenizer=TOKENIZER):
    return corpus.prepare(str(text), tokenizer, tmp_path / "root", percent)
  first = prepare()
  with monkeypatch.context() as patch:
    patch.setattr(corpus, "build", None)
    assert prepare().train.fingerprint == first.train.fingerprint
    for change in (lambda: prepare(1), lambda: os.utime(text, (0, 0)) or
                   prepare(), lambda: prepare(
                       tokenizer=SentencePieceTokenizer(vocab_size=399))):
      with pytest.raises(TypeError):
        change()
  assert len(list((tmp_path / "root").iterdir())) == 1


def test_a_killed_build_leaves_nothing_that_looks_finished(text, tmp_path):
  code = (
      "import os, signal\n"
      "from bert_jax.data import corpus, tokenizers\n"
      "corpus._add = lambda *a: os.kill(os.getpid(), signal.SIGKILL)\n"
      f"corpus.prepare({str(text)!r}, tokenizers.SentencePieceTokenizer("
      f"vocab_size=400), {str(tmp_path / 'root')!r}, {PERCENT})\n")
  ended = subprocess.run([sys.executable, "-c", code], timeout=60,
                         cwd=pathlib.Path(__file__).parents[1])
  assert ended.returncode == -signal.SIGKILL
  left, = (tmp_path / "root").iterdir()
  assert left.name.startswith(".")
  splits = corpus.prepare(str(text), TOKENIZER, tmp_path / "root", PERCENT)
  assert splits.train.counts["documents"] > 100
  found, = (tmp_path / "root").iterdir()
  assert not found.name.startswith(".")


def test_a_failed_build_leaves_nothing(text, tmp_path):
  with pytest.raises(UserError, match="more than this text"):
    corpus.build(str(text), SentencePieceTokenizer(vocab_size=60_000),
                 tmp_path / "root" / "c", PERCENT)
  assert not list((tmp_path / "root").iterdir())


def test_damage_is_found_on_opening(text, tmp_path):
  folder = tmp_path / "c"
  corpus.build(str(text), TOKENIZER, folder, PERCENT)
  assert corpus.Corpus.open(folder / "train").counts["documents"] > 100
  tokens = folder / "train" / "tokens.bin"
  size = tokens.stat().st_size
  os.truncate(tokens, size - 2)
  with pytest.raises(UserError,
                     match=f"tokens.bin has {size - 2:,} .* expected {size:,}"):
    corpus.Splits.open(folder)
  tokens.unlink()
  with pytest.raises(UserError, match="tokens.bin: No such file"):
    corpus.Splits.open(folder)
  (folder / "corpus.json").write_text('{"spec"')
  with pytest.raises(UserError, match="corpus.json is damaged"):
    corpus.Splits.open(folder)
  with pytest.raises(UserError, match="no complete corpus"):
    corpus.Splits.open(tmp_path / "absent")


def test_nothing_else_is_overwritten(text, tmp_path):
  (tmp_path / "thesis").mkdir()
  (tmp_path / "thesis" / "chapter.tex").write_text("years of work")
  with pytest.raises(UserError, match="holds no corpus"):
    corpus.build(str(text), TOKENIZER, tmp_path / "thesis", PERCENT)
  assert (tmp_path / "thesis" / "chapter.tex").exists()
  with pytest.raises(UserError, match="100 percent"):
    corpus.build(str(text), TOKENIZER, tmp_path / "c", 100)


def test_a_split_may_be_empty(tmp_path):
  (tmp_path / "one.txt").write_text("A single sentence of a few words.\n")
  splits = corpus.build(str(tmp_path / "one.txt"),
                        SentencePieceTokenizer(vocab_size=285), tmp_path / "c",
                        0)
  assert len(splits.train.document_starts_U1) == 2
  assert len(splits.heldout.tokens_T) == 0
  assert splits.heldout.document_starts_U1.tolist() == [0]
  about = json.loads((tmp_path / "c" / "corpus.json").read_text())
  assert about["splits"]["train"]["sentences"] == 1
