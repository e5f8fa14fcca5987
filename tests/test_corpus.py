"""Corpora are built atomically, cached, and checked when opened."""

import concurrent.futures
import errno
import fcntl
import os
import pathlib
import pickle
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence

import numpy as np
import pytest

from bert_jax.config import UserError
from bert_jax.data.batches.splits import held_out_names
from bert_jax.data.pretraining import corpus, corpus_builder, corpus_text
from bert_jax.data.text import documents
from bert_jax.data.tokenizers.choices import (
    SentencePieceTokenizer, WordPieceTokenizer, deserialize)
from bert_jax.data.tokenizers.vocabulary import SPECIAL
from tests import small_disk

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


@pytest.fixture(scope="module")
def built(tmp_path_factory) -> pathlib.Path:
  folder = tmp_path_factory.mktemp("built")
  (folder / "text.txt").write_text("A few words, and no more of them.\n" * 9)
  corpus_builder.build(str(folder / "text.txt"),
                       SentencePieceTokenizer(vocab_size=285),
                       folder / "c", 0)
  return folder / "c"


def _documents(split, tokenizer):
  starts, tokens = split.sentence_starts_S1, split.tokens_T
  return [[tokenizer.decode(tokens[starts[s]:starts[s + 1]].tolist())
           for s in range(*split.document_starts_U1[u:u + 2])]
          for u in range(len(split.document_starts_U1) - 1)]


def test_corpus_holds_the_documents_split_by_name(text, tmp_path):
  splits = corpus_builder.build(str(text), TOKENIZER, tmp_path / "c", PERCENT)
  held_out = held_out_names([d.name for d in documents.read(str(text))],
                            PERCENT)
  assert len(held_out) == 40
  for split, held in ((splits.train, False), (splits.held_out, True)):
    expected = [d.sentences for d in documents.read(str(text))
                if (d.name in held_out) == held]
    assert _documents(split, splits.tokenizer) == expected
    assert split.counts["bytes"] == sum(len(s) for d in expected for s in d)
    assert split.tokens_T.dtype == np.uint16
    assert split.vocabulary_size == splits.tokenizer.vocabulary.size
  # The tokenizer was trained on the training split only.
  train = [s for d in documents.read(str(text)) for s in d.sentences
           if d.name not in held_out]
  assert TOKENIZER.build(train).fingerprint == splits.tokenizer.fingerprint


def test_batch_size_and_rereading_change_nothing(text, tmp_path, monkeypatch):
  expected = corpus_builder.build(str(text), TOKENIZER, tmp_path / "a", PERCENT)
  monkeypatch.setattr(corpus_builder, "_BATCH_CHARACTERS", 100)
  monkeypatch.setattr(corpus_text, "_KEPT_CHARACTERS", 100)
  rebuilt = corpus_builder.build(str(text), TOKENIZER, tmp_path / "b", PERCENT)
  for a, b in ((expected.train, rebuilt.train),
               (expected.held_out, rebuilt.held_out)):
    assert a.fingerprint == b.fingerprint
    np.testing.assert_array_equal(a.tokens_T, b.tokens_T)
    np.testing.assert_array_equal(a.document_starts_U1, b.document_starts_U1)


def test_fingerprint_depends_on_content_and_tokenizer(text, tmp_path):
  def fingerprint(name, tokenizer=TOKENIZER):
    return corpus_builder.build(str(text), tokenizer, tmp_path / name,
                                0).train.fingerprint
  before = fingerprint("a")
  assert fingerprint("a") == before  # replaces the first one
  def words(*pieces):
    path = tmp_path / "vocab.txt"
    path.write_text("\n".join((*SPECIAL, "##l", "b", *pieces)))
    return WordPieceTokenizer(path=str(path))
  assert fingerprint("b", words()) != fingerprint("b", words("unseen"))
  text.write_text(text.read_text() + "\nOne more.")
  assert fingerprint("c") != before


def test_corpus_is_reused_until_a_change(text, tmp_path, monkeypatch):
  def prepare(percent=PERCENT, tokenizer=TOKENIZER):
    return corpus_builder.prepare(str(text), tokenizer, tmp_path / "root",
                                  percent)
  first = prepare()
  with monkeypatch.context() as patch:
    patch.setattr(corpus_builder, "_write", None)
    assert prepare().train.fingerprint == first.train.fingerprint
    for change in (lambda: prepare(1), lambda: os.utime(text, (0, 0)) or
                   prepare(), lambda: prepare(
                       tokenizer=SentencePieceTokenizer(vocab_size=399))):
      with pytest.raises(TypeError):
        change()
  assert len(visible(tmp_path / "root")) == 1


def test_loaded_tokenizer_reuses_its_corpus(
    text, tmp_path, monkeypatch):
  first = corpus_builder.prepare(str(text), TOKENIZER, tmp_path, PERCENT)
  other = SentencePieceTokenizer(vocab_size=399).build(["a few more words"] * 9
                                                       + [text.read_text()])
  find = lambda tokenizer, percent: corpus_builder.prepare(
      str(text), tokenizer, tmp_path, percent)
  with monkeypatch.context() as patch:
    patch.setattr(corpus_builder, "_write", None)
    same = deserialize(first.tokenizer.serialize())
    assert find(same, PERCENT).train.directory == first.train.directory
    for tokenizer, percent in ((other, PERCENT), (same, PERCENT + 1)):
      with pytest.raises(TypeError):
        find(tokenizer, percent)
  assert find(other, PERCENT).tokenizer.fingerprint == other.fingerprint


BUILD = """
import os, signal, sys
from bert_jax.config import UserError
from bert_jax.data.pretraining import corpus_builder
from bert_jax.data.tokenizers import choices
def build():
  return corpus_builder.prepare({text!r}, choices.SentencePieceTokenizer(
      vocab_size=400), {root!r}, {percent})
"""


def started(text: pathlib.Path, root: pathlib.Path, code: str,
            prefix: Sequence[str] = ()) -> subprocess.Popen:
  """Starts a process whose code may call `build()`."""
  code = BUILD.format(text=str(text), root=str(root), percent=PERCENT) + code
  return subprocess.Popen(
      [*prefix, sys.executable, "-c", code, str(root)], text=True,
      stdout=subprocess.PIPE, cwd=pathlib.Path(__file__).parents[1])


def visible(root: pathlib.Path) -> list[pathlib.Path]:
  """Entries of a folder except the locks, which stay."""
  return [path for path in root.iterdir() if path.name != ".locks"]


@pytest.mark.parametrize("moment", [
    "choices.SentencePieceTokenizer.build", "corpus_builder._add",
    "corpus_builder.publish"])
def test_killed_build_leaves_nothing(text, tmp_path, moment):
  root = tmp_path / "root"
  with started(text, root, f"{moment} = lambda *a: os.kill(os.getpid(), "
               "signal.SIGKILL)\nbuild()") as process:
    assert process.wait(60) == -signal.SIGKILL
  assert any(".building-" in path.name for path in root.iterdir()) != (
      "Tokenizer" in moment)  # Nothing is written yet.
  splits = corpus_builder.prepare(str(text), TOKENIZER, root, PERCENT)
  assert visible(root) == [splits.train.directory.parent]
  expected = corpus_builder.build(str(text), TOKENIZER, tmp_path / "c", PERCENT)
  assert splits.train.fingerprint == expected.train.fingerprint
  assert not list(tmp_path.glob(".*.building-*"))


def test_next_process_builds_if_the_first_is_killed(
    text, tmp_path, caplog, monkeypatch):
  root = tmp_path / "root"
  process = started(
      text, root, "import time\n"
      "corpus_builder._write = lambda *a: print('begun', flush=True) or "
      "time.sleep(600)\nbuild()")
  assert process.stdout.readline() == "begun\n"
  write, written = corpus_builder._write, []
  monkeypatch.setattr(corpus_builder, "_write",
                      lambda *a: written.append(a) or write(*a))
  with concurrent.futures.ThreadPoolExecutor(3) as threads:
    tasks = [threads.submit(corpus_builder.prepare, str(text), TOKENIZER, root,
                            PERCENT)
             for _ in range(3)]
    while len(caplog.records) < 3 and not any(f.done() for f in tasks):
      time.sleep(.01)
    assert not written and "waiting for it" in caplog.text
    process.kill()
    assert len({f.result(60).train.fingerprint for f in tasks}) == 1
  assert len(written) == 1 and len(visible(root)) == 1
  process.communicate()


def test_hosts_build_apart_and_share_the_first_result(
    text, tmp_path, monkeypatch):
  prepare = lambda: corpus_builder.prepare(str(text), TOKENIZER,
                                           tmp_path / "root", PERCENT)
  monkeypatch.setattr(socket, "gethostname", lambda: "slow")
  add, inner = corpus_builder._add, []

  def overtaken(*arguments):
    if not inner:
      inner.append(None)  # Only the first time.
      with monkeypatch.context() as patch:
        patch.setattr(socket, "gethostname", lambda: "quick")
        inner[0] = prepare()
    return add(*arguments)

  monkeypatch.setattr(corpus_builder, "_add", overtaken)
  first = prepare()
  inode = lambda splits: (splits.train.directory / "tokens.bin").stat().st_ino
  assert inode(first) == inode(inner[0])
  assert len(visible(tmp_path / "root")) == 1


def test_leftovers_of_other_hosts_are_deleted_after_a_day(text, tmp_path):
  prepare = lambda: corpus_builder.prepare(str(text), TOKENIZER, tmp_path,
                                           PERCENT)
  name = prepare().train.directory.parent.name
  rest = tmp_path / f".{name}.building-elsewhere-7-7" / "new"
  rest.mkdir(parents=True)
  (rest / "tokens.bin").write_bytes(b"\0" * 99)
  prepare()
  assert rest.exists()  # Its process may be alive.
  for path in (rest / "tokens.bin", rest, rest.parent):
    os.utime(path, (0, 0))
  prepare()
  assert not rest.parent.exists()


def test_disk_without_locks_is_supported(text, tmp_path, monkeypatch):
  def flock(*_):
    raise OSError(errno.ENOLCK, "No locks available")

  monkeypatch.setattr(fcntl, "flock", flock)
  corpus_builder.prepare(str(text), TOKENIZER, tmp_path / "root", PERCENT)
  assert len(visible(tmp_path / "root")) == 1


@pytest.mark.parametrize("read_only, reason", [
    (False, "No space left on device; 0.00 GB are free"),
    (True, "Read-only file system")])
def test_full_disk_is_reported_and_stays_clean(
    text, tmp_path, read_only, reason):
  disk = tmp_path / "disk"
  text.write_text("\n".join([text.read_text()] * 40))
  process = started(text, disk / "cache" / "corpora", """
try:
  build()
except UserError as error:
  print(error)
print([path for path, _, files in os.walk(sys.argv[1])
       if files and not path.endswith('.locks')])
""", small_disk.prefix(disk, 1, read_only))
  output, _ = process.communicate(timeout=60)
  message, left = output.splitlines()
  assert f"{disk}/cache/corpora cannot be written: {reason}" in message
  assert "BERT_JAX_CACHE=" in message and left == "[]"
  assert ("are free" in message) == (not read_only)


def test_cache_that_cannot_be_made_is_not_called_full(text, tmp_path):
  (tmp_path / "file").touch()
  for root, words in ((pathlib.Path("/proc/nothing/x"), "No such file"),
                      (tmp_path / "file" / "x", "Not a directory")):
    with pytest.raises(UserError, match=f"cannot be written: {words}") as error:
      corpus_builder.prepare(str(text), TOKENIZER, root, PERCENT)
    assert "free" not in str(error.value)


def test_failed_build_leaves_nothing(text, tmp_path):
  with pytest.raises(UserError, match="more than this text"):
    corpus_builder.build(str(text), SentencePieceTokenizer(vocab_size=60_000),
                         tmp_path / "root" / "c", PERCENT)
  assert not visible(tmp_path / "root")


def test_damage_is_reported_on_opening(text, tmp_path):
  folder = tmp_path / "c"
  corpus_builder.build(str(text), TOKENIZER, folder, PERCENT)
  assert corpus.Corpus.open(folder / "train").counts["documents"] > 100
  tokens = folder / "train" / "tokens.bin"
  size = tokens.stat().st_size
  os.truncate(tokens, size - 2)
  with pytest.raises(UserError,
                     match=f"tokens.bin has {size - 2:,} .* expected {size:,}"):
    corpus.Splits.open(folder)
  tokens.unlink()
  with pytest.raises(UserError, match=f"tokens.bin: No such file.* Delete the "
                     f"folder {folder}"):
    corpus.Splits.open(folder)
  with pytest.raises(UserError, match="no complete corpus"):
    corpus.Splits.open(tmp_path / "absent")


@pytest.mark.parametrize("file", ["corpus.json", "tokenizer.json"])
@pytest.mark.parametrize("damage", [
    "", "{}", "[1]", '{"spec"', "\0\0", '{"kind": "sentencepiece"}', None])
def test_damaged_descriptions_are_reported(built, file, damage):
  content = (built / file).read_bytes()
  if damage is None:
    (built / file).write_bytes(content[:len(content) // 2])
  else:
    (built / file).write_text(damage)
  with pytest.raises(UserError, match=f"{file} is .*Delete .* {built};"):
    corpus.Splits.open(built)
  (built / file).write_bytes(content)


def test_pickled_corpus_opens_the_same_files(text, tmp_path):
  before = corpus_builder.build(str(text), TOKENIZER, tmp_path / "c",
                                PERCENT).train
  pickled = pickle.dumps(before)
  assert len(pickled) < 500 < before.tokens_T.nbytes
  after = pickle.loads(pickled)
  assert isinstance(after.tokens_T, np.memmap)
  np.testing.assert_array_equal(after.tokens_T, before.tokens_T)
  assert after.counts == before.counts
  corpus_builder.build(str(text), TOKENIZER, tmp_path / "c", PERCENT + 20)
  with pytest.raises(UserError, match="replaced by another"):
    pickle.loads(pickled)


def test_other_folders_are_not_overwritten(text, tmp_path):
  (tmp_path / "thesis").mkdir()
  (tmp_path / "thesis" / "chapter.tex").write_text("years of work")
  with pytest.raises(UserError, match="holds no corpus"):
    corpus_builder.build(str(text), TOKENIZER, tmp_path / "thesis", PERCENT)
  assert (tmp_path / "thesis" / "chapter.tex").exists()


def test_split_may_be_empty(text, tmp_path, capsys):
  """All, nothing, and a document alone."""
  (tmp_path / "one.txt").write_text("A single sentence of a few words.\n")
  small = SentencePieceTokenizer(vocab_size=285)
  loaded = small.build(["A single sentence of a few words."])
  for spec, tokenizer, percent, train, held in (
      ("one.txt", small, 0, 1, 0), ("one.txt", small, 2, 1, 0),
      ("one.txt", loaded, 100, 0, 1), ("text.txt", TOKENIZER, 0, 200, 0),
      ("text.txt", loaded, 100, 0, 200), ("text.txt", TOKENIZER, .1, 199, 1),
      ("text.txt", loaded, 99.9, 1, 199)):
    corpus_builder.say.cache_clear()
    splits = corpus_builder.prepare(str(tmp_path / spec), tokenizer,
                                    tmp_path / "root", percent)
    assert splits.train.counts["documents"] == train
    assert splits.held_out.counts["documents"] == held
    assert len(splits.held_out.document_starts_U1) == held + 1
    said = capsys.readouterr().err.splitlines()[-1]
    assert f"; {held} documents held out, {train} to train on" in said
    assert f"{train + held:,} documents, " in said
    assert "1 file read as sentences" in said
  with pytest.raises(UserError, match="all of it is held out.*tokenizer.path"):
    corpus_builder.prepare(str(text), TOKENIZER, tmp_path / "root", 100)
  for percent in (-1, 100.5):
    with pytest.raises(UserError, match=f"={percent}; allowed: 0 to 100"):
      corpus_builder.prepare(str(text), TOKENIZER, tmp_path / "root", percent)


def test_evaluation_text_is_never_trained_on(text, tmp_path, caplog):
  other = tmp_path / "other.txt"
  other.write_text("Words held out.\n\nMore of them.\n")
  splits = corpus_builder.prepare(f"{tmp_path}/*.txt", TOKENIZER,
                                  tmp_path / "root", 50, str(other))
  assert splits.train.counts["documents"] == 200
  assert _documents(splits.held_out, splits.tokenizer) == [
      ["Words held out."], ["More of them."]]
  assert "1 of 2 files are those of data.evaluation_text" in caplog.text
  assert "; for evaluation 2 documents, 2 sentences, 6" in splits.description
  # Another one is another corpus.
  assert corpus_builder.prepare(
      f"{tmp_path}/*.txt", TOKENIZER, tmp_path / "root", 50
  ).held_out.counts["documents"] == 101


def test_pipe_is_read_once_and_its_corpus_reused(text, tmp_path, monkeypatch):
  monkeypatch.setattr(corpus_text, "_KEPT_CHARACTERS", 100)  # Read twice.

  def piped(data):
    reader, writer = os.pipe()
    with open(writer, "wb") as file:
      file.write(data)
    splits = corpus_builder.prepare(
        f"/dev/fd/{reader}", TOKENIZER, tmp_path / "root", PERCENT)
    os.close(reader)
    return splits

  data = text.read_bytes()
  first = piped(data)
  assert sum(part.counts["sentences"] for part in (
      first.train, first.held_out)) == data.count(b".")
  same, other = piped(data), piped(data[:-1])
  assert same.train.directory == first.train.directory
  assert other.train.directory != first.train.directory
  assert not list((tmp_path / "root" ).glob(".pipes*"))


def test_sentences_without_a_token_and_unknown_ones_are_counted(tmp_path):
  vocabulary = tmp_path / "vocab.txt"
  vocabulary.write_text("\n".join((*SPECIAL, "a")))
  (tmp_path / "a.txt").write_text("a b\n\u200b\n\n\u200b\n\na\n")
  splits = corpus_builder.build(
      str(tmp_path / "a.txt"), WordPieceTokenizer(path=str(vocabulary)),
      tmp_path / "c", 0)
  assert splits.description == (
      "3 documents, 4 sentences, 5 words; 1 file read as sentences; 0 "
      "documents held out, 2 to train on; 2 sentences of no token left out; "
      "33.33% of 3 tokens are unknown and never predicted")
