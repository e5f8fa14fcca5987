"""Reading text as documents, in any layout and with any faults."""

import gzip
import json
import logging
import lzma
import os
import pathlib
import re
import tempfile
import textwrap
import time

from array_record.python import array_record_module
import hypothesis
import pytest
from hypothesis import given, strategies as st

from bert_jax.config import UserError
from bert_jax.data.batches import splits
from bert_jax.data.text import (
    docstrings, documents, layouts, lines, sentences)

PROSE = ("Mr. Bennet made no answer. “But it is,” returned she; “for Mrs. Long "
         "has just been here!” She paused.\nA second paragraph. It has two.\n"
         "\n\nAnother document. It is short.\n")
GOOGLE = "First one.\nSecond one.\n\nThird one.\nFourth one.\n"
WRAPPED = ("The quick brown fox jumps\nover the lazy dog and then\nit sleeps. "
           "It dreams.\n\nNext paragraph here runs\non and on.\n\n\nA new\n"
           "document begins.\n")


def _read(path, content, options=""):
  path.write_bytes(content if isinstance(content, bytes) else content.encode())
  return [d.sentences for d in documents.read(f"{path}{options}")]


@pytest.mark.parametrize("text, expected", [
    ("It was Dr. J. R. Smith. He left.", ["It was Dr. J. R. Smith.",
                                          "He left."]),
    ("See e.g. No. 5 and fig. 2. I said no. Then I left.",
     ["See e.g. No. 5 and fig. 2.", "I said no.", "Then I left."]),
    ("“Why?” he asked. “Why not?” “Yes!” Ok…", [
        "“Why?” he asked.", "“Why not?”", "“Yes!”", "Ok…"]),
    ("It was I. In 1990. The 3.5 version, v. good",
     ["It was I.", "In 1990.", "The 3.5 version, v. good"]),
    ("1. First item.", ["1. First item."]),
    ("他来了。你好！「真的？」好", ["他来了。", "你好！", "「真的？」", "好"]),
    ("  ", []), ("...", ["..."])])
def test_splitting_respects_abbreviations_and_quotes(text, expected):
  assert sentences.split(text) == expected


@given(st.text(st.sampled_from("aIQ1.!?…。！」”’( \n\t\"Mr")))
def test_splitting_sentences_loses_nothing(text):
  parts = sentences.split(text)
  assert "".join("".join(parts).split()) == "".join(text.split())
  assert all(part and part == part.strip() for part in parts)


def test_splitting_without_sentence_ends_takes_linear_time():
  start = time.perf_counter()
  assert len(sentences.split("ab. C" * 400_000)) > 1
  assert len(sentences.split("." * 2_000_000)) == 1
  assert time.perf_counter() - start < 20


def test_layout_is_recognized(tmp_path):
  prose = _read(tmp_path / "a.txt", PROSE)
  assert [len(d) for d in prose] == [5, 2]
  assert prose[0][0] == "Mr. Bennet made no answer."
  assert _read(tmp_path / "b.txt", GOOGLE) == [
      ["First one.", "Second one."], ["Third one.", "Fourth one."]]
  assert _read(tmp_path / "c.txt", WRAPPED) == [
      ["The quick brown fox jumps over the lazy dog and then it sleeps.",
       "It dreams.", "Next paragraph here runs on and on."],
      ["A new document begins."]]
  assert len(_read(tmp_path / "a.txt", PROSE, "?format=sentences")[0]) == 2


def test_compression_is_recognized_by_content(tmp_path, monkeypatch):
  expected = _read(tmp_path / "a.txt", GOOGLE)
  assert _read(tmp_path / "a.gz", gzip.compress(GOOGLE.encode())) == expected
  assert _read(tmp_path / "a.xz", lzma.compress(GOOGLE.encode())) == expected
  assert _read(tmp_path / "x", lzma.compress(GOOGLE.encode())) == expected
  # A block may end between any two bytes, even within a line break.
  monkeypatch.setattr(lines, "_CHUNK_BYTES", 12)
  crlf = GOOGLE.replace("\n", "\r\n").encode()
  assert _read(tmp_path / "dos.txt", b"\xef\xbb\xbf" + crlf) == expected


@pytest.mark.parametrize("text", [
    "a b c\nd e f\n\ng h i\nj k l\n",
    "\n\n".join(f"the{' red' * (5 + i % 9)}\nand{' blue' * (4 + i % 7)}"
                for i in range(50)),
    "\n\n".join("the same width\nin all the ones" for _ in range(50)),
    "the verse is short\nand its line ends\n\nwithout a stop",
    "他来了\n你好吗\n\n好\n",
    "first , he said .\nthen he left\n\nand came back"])
def test_ambiguous_text_is_read_as_documented(tmp_path, text):
  assert _read(tmp_path / "a.txt", text) == [
      block.strip().split("\n") for block in text.split("\n\n")]


def test_wrapped_text_is_recognized_at_any_width():
  text = sentences.split(" ".join(
      f"Sentence {i} is {'quite ' * (i % 9)}long and goes to number {i + 1}."
      for i in range(200)))
  for width in (30, 72, 110):
    lines_ = textwrap.wrap(" ".join(text), width)
    assert layouts.recognize(lines_) == "wrapped"
    # One line that could not be broken.
    assert layouts.recognize([*lines_, "https://" + "x" * 110]) == "wrapped"
  assert layouts.recognize(text) == "sentences"


LINES = st.sampled_from(["a", "a b", "? ?", "One. Two.", "d\x0ce.", "é\u2028f",
                         "好。好", "{", "a longer line that ends in the"])


@hypothesis.settings(max_examples=25)
@given(st.lists(st.lists(LINES, min_size=1, max_size=4), min_size=1,
                max_size=6), st.sampled_from(["\n", "\r\n", "\r"]))
def test_documents_in_are_documents_counted(texts, end):
  text = (end * 2).join(map(end.join, texts)) + end
  records = [json.dumps({"text": " ".join(text)}) for text in texts]
  with tempfile.TemporaryDirectory() as folder:
    path = pathlib.Path(folder) / "a"
    for content, options in ((text, ""), (text, "?format=prose"),
                             ("\n".join(records), "?format=jsonl")):
      path.write_bytes(content.encode())
      counts = documents.TextCounts()
      read = list(documents.read(f"{path}{options}", counts=counts))
      assert counts.documents == len(read) == len(texts)
      assert counts.sentences == sum(len(d.sentences) for d in read)
      words = [w for d in read for s in d.sentences for w in s.split()]
      assert counts.words == len(words)
      assert "".join(words) == "".join(w for t in texts for s in t
                                       for w in s.split())
      assert re.search("; 1 file read as (sentences|prose|jsonl)$", str(counts))


def _names(spec):
  return [d.name for d in documents.read(str(spec))]


def test_documents_are_named_after_the_fixed_part_of_a_glob(tmp_path):
  for name in ("a.txt", "b.txt", "books/one/text.txt", "books/two/text.txt"):
    (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / name).write_text(GOOGLE)
  assert _names(f"{tmp_path}/*.txt") == ["a.txt:0", "a.txt:1", "b.txt:0",
                                         "b.txt:1"]
  listed = f"{tmp_path}/b.txt, {tmp_path}/a.txt"
  assert _names(listed)[::2] == ["b.txt:0", "a.txt:0"]
  books = tmp_path / "books"
  for spec, prefix in ((f"{books}/*/text.txt", ""),
                       (f"{tmp_path}/bo*/*/text.txt", "books/"),
                       (f"{tmp_path}/**/text.txt", "books/"),
                       (f"{books}/one/text.txt,{books}/two/text.txt", "")):
    assert _names(spec)[::2] == [f"{prefix}one/text.txt:0",
                                 f"{prefix}two/text.txt:0"]


@pytest.mark.parametrize("folder", [
    "[v2]", "a,b", "a, b", "x*y", "what?", "[a-z],{1}"])
def test_names_of_folders_are_taken_as_they_are_spelled(tmp_path, folder):
  (tmp_path / folder / "in").mkdir(parents=True)
  for name in ("one.txt", "in/two.txt"):
    (tmp_path / folder / name).write_text(GOOGLE)
  spelled = tmp_path / folder
  for spec in (f"{spelled}/one.txt", f"{spelled}/*.txt",
               f"{spelled}/one.txt?format=sentences"):
    assert _names(spec) == ["one.txt:0", "one.txt:1"]
  assert _names(f"{spelled}/in/*.txt,{spelled}/one.txt")[::2] == [
      "two.txt:0", "one.txt:0"]
  assert _names(f"{spelled}/**/*.txt")[::2] == ["in/two.txt:0", "one.txt:0"]


def test_files_are_read_once_through_whatever_links(tmp_path, caplog):
  (tmp_path / "in" / "deep").mkdir(parents=True)
  (tmp_path / "in" / "a.txt").write_text(GOOGLE)
  (tmp_path / "in" / "deep" / "up").symlink_to(tmp_path / "in")
  (tmp_path / "in" / "deep" / "here").symlink_to(".")
  (tmp_path / "away").symlink_to(tmp_path / "in" / "deep")
  assert _names(f"{tmp_path}/in/**/*.txt") == ["a.txt:0", "a.txt:1"]
  assert _names(f"{tmp_path}/**")[::2] == ["in/a.txt:0"]
  assert not caplog.records
  (tmp_path / "in" / "0.txt").symlink_to("a.txt")
  assert _names(f"{tmp_path}/in/*.txt,{tmp_path}/in/a.txt")[::2] == ["a.txt:0"]
  assert "2 of its 3 files again" in caplog.text


def test_json_lines_are_read_by_field(tmp_path, caplog):
  path = tmp_path / "a.jsonl"
  text = json.dumps({"body": "One here. Two.\nThree."}) + "\n"
  assert _read(path, text, "?field=body") == [["One here.", "Two.", "Three."]]
  with pytest.raises(UserError, match=r"line 1.*'text'.*\?field=.*body"):
    _read(path, text)
  with pytest.raises(UserError, match="line 1: no JSON"):
    _read(path, "{oops\n")
  broken = text + "{oops\n" + json.dumps({"body": 3}) + "\n"
  assert len(_read(path, broken, "?field=body")) == 1
  assert "2 records without readable text" in caplog.text


def test_faults_are_repaired_and_counted(tmp_path, caplog, monkeypatch):
  monkeypatch.setattr(documents, "LINE_LIMIT", 1000)
  monkeypatch.setattr(layouts, "DOCUMENT_LIMIT", 1500)
  (tmp_path / "empty.txt").write_bytes(b"")
  (tmp_path / "long.txt").write_bytes(b"word " * 1000 + "ü".encode() * 3000)
  (tmp_path / "wrong.txt").write_bytes(b"good\n" * 99 + b"caf\xe9 and \xff.\n")
  docs = list(documents.read(f"{tmp_path}/*.txt?format=sentences"))
  text = " ".join(s for d in docs for s in d.sentences)
  assert text.count("word") == 1000 and text.count("ü") == 3000
  assert all(sum(map(len, d.sentences)) <= 2500 for d in docs)
  assert [r.levelno for r in caplog.records] == [logging.WARNING]
  for what in ("1 empty files", "2 invalid UTF-8 bytes replaced (first: "
               f"{tmp_path}/wrong.txt:100)", "long.txt:1)",
               "overlong lines cut", "overlong documents continued"):
    assert what in caplog.text


@pytest.mark.parametrize("content", [
    b"\x80" * (1 << 20) + b"\x80" * 9, "日本語の文。\n".encode("shift-jis") * 9,
    "Où est l’été\n".encode("cp1252") * 99, "привет мир\n".encode("koi8-r"),
    b"good\n" * 300_000 + "été ".encode("latin-1") * 30_000])
def test_text_of_another_encoding_is_refused(tmp_path, content):
  with pytest.raises(UserError, match=r"is not UTF-8: .* first in line \d+\."):
    _read(tmp_path / "a.txt", content)


def test_half_a_surrogate_pair_is_replaced_and_counted(tmp_path, caplog):
  record = '{"text": "%s"}\n'
  texts = ["Good \\ud83d\\ude00 text", "bad \\ud83d half", "\\ude00\\ud83d"]
  text = "".join(record % text for text in texts)
  assert _read(tmp_path / "a.jsonl", text) == [
      ["Good 😀 text"], ["bad \ufffd half"], ["\ufffd\ufffd"]]
  assert ("3 halves of surrogate pairs replaced (first: "
          f"{tmp_path}/a.jsonl:2)") in caplog.text


def test_names_of_files_need_not_be_utf8(tmp_path):
  path = os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.txt")
  pathlib.Path(path).write_text(GOOGLE)
  for spec in (path, f"{tmp_path}/*.txt"):
    assert _names(spec) == ["caf\ufffd.txt:0", "caf\ufffd.txt:1"]
  assert splits.held_out(path, 100)


def test_json_lines_are_known_by_the_end_of_the_name(tmp_path):
  assert _read(tmp_path / "notes.json.txt", GOOGLE)[0][0] == "First one."
  record = b'{"text": "One."}\n'
  for name in ("a.jsonl.gz", "a.ndjson.xz", "a.json", "a.b.jsonl.bz2"):
    assert _read(tmp_path / name, record) == [["One."]]


@pytest.mark.parametrize("name, content, message", [
    ("empty.txt", b"\n \n", "no text in it"),
    ("cut.gz", gzip.compress(GOOGLE.encode() * 99, mtime=0)[:-9], "damaged"),
    ("cut.xz", lzma.compress(GOOGLE.encode() * 99)[:-9], "damaged"),
    ("wide.txt", GOOGLE.encode("utf-16"), "UTF-16"),
    ("binary.txt", b"\x89PNG\x00\x00", "binary")])
def test_unreadable_files_are_reported(tmp_path, name, content, message):
  with pytest.raises(UserError, match=message):
    _read(tmp_path / name, content)


def test_wrong_specs_get_suggestions(tmp_path):
  (tmp_path / "books.txt").write_text(GOOGLE)
  for spec, message in [
      (f"{tmp_path}/bocks.txt", "did you mean 'books.txt'"),
      (f"{tmp_path}/books.txt?form=prose", "did you mean 'format'"),
      (f"{tmp_path}/books.txt?format=pros", "did you mean 'prose'"),
      (str(tmp_path), "is a folder"), ("", "No text is named")]:
    with pytest.raises(UserError, match=message):
      list(documents.read(spec))


def test_tfds_data_set_is_read_by_name(tmp_path, request):
  tfds = pytest.importorskip("tensorflow_datasets")
  features = tfds.features.FeaturesDict({"text": tfds.features.Text()})
  folder = tmp_path / "reviews" / "1.0.0"
  folder.mkdir(parents=True)
  writer = array_record_module.ArrayRecordWriter(
      str(folder / "reviews-train.array_record-00000-of-00001"), "group_size:1")
  for text in ("Good film. Very good.", "Bad film."):
    writer.write(features.serialize_example({"text": text}))
  writer.close()
  tfds.folder_dataset.write_metadata(
      data_dir=folder, features=features,
      split_infos=[tfds.core.SplitInfo("train", [2], 1)],
      filename_template="{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}",
      check_data=False)
  tfds.core.add_data_dir(tmp_path)
  request.addfinalizer(
      tfds.core.utils.file_utils.clear_registered_data_dirs)
  spec = "tfds:reviews"
  assert list(documents.read(spec)) == [
      documents.Document("tfds:reviews:0", ["Good film.", "Very good."]),
      documents.Document("tfds:reviews:1", ["Bad film."])]
  assert len(list(documents.read(f"{spec}:1.0.0:train[:1]"))) == 1
  for wrong, message in [(":test", "split.*train"), ("?field=body", "field"),
                         ("s", "no data set")]:
    with pytest.raises(UserError, match=message):
      list(documents.read(spec + wrong))


def test_held_out_is_a_fixed_share_and_nested():
  names = [f"file:{i}" for i in range(20_000)]
  small = splits.held_out_names(names, 2)
  large = splits.held_out_names(names, 10)
  assert small < large and abs(len(large) / len(names) - .1) < .01
  assert not any(splits.held_out(n, 0) for n in names)
  # Pinned: another result would move documents between splits.
  assert [i for i in range(8) if splits.held_out(f"a:{i}", 50)] == [1, 2, 5, 7]


@given(st.integers(0, 60), st.floats(0, 100), st.floats(0, 100))
def test_few_names_are_held_out_in_the_exact_share(count, percent, other):
  names = set(map(str, range(count)))
  held = splits.held_out_names([*names, *names], percent)
  assert held <= names and abs(len(held) - percent / 100 * len(names)) <= 1
  if len(names) > 1 and 0 < percent < 100:
    assert held and held < names
  more = splits.held_out_names(sorted(names), other)
  assert held <= more if percent <= other else more <= held


@pytest.mark.slow
def test_embedded_text_is_large_and_clean():
  docs = list(documents.read("embedded"))
  assert len(docs) > 10_000
  assert sum(len(s) for d in docs for s in d.sentences) > 5e6
  names = [d.name for d in docs]
  assert len(set(names)) == len(names) and names == sorted(names)
  assert "numpy.linalg._linalg.svd" in names
  text = [s for d in docs for s in d.sentences]
  assert sum(s.startswith(">>>") for s in text) > 1000  # not cut
  assert sum("``" in s for s in text) < .005 * len(text)


@pytest.mark.slow
def test_embedded_paragraphs_are_in_one_split_each():
  paragraphs = {}
  for name, words, tags in docstrings.code_paragraphs():
    assert len(words) == len(tags) and {"O"} < set(tags)
    assert paragraphs.setdefault(" ".join(words), name) == name
  assert len(paragraphs) > 10_000
  held = sum(splits.held_out(n, 18) for n in paragraphs.values())
  assert abs(held / len(paragraphs) - .18) < .02


def test_markup_becomes_tags():
  words, tags = docstrings._tagged(
      "Use ``f(x, y)``, :func:`~a.b` or `c`; see :ref:`this <t>` and 'q' `l`_")
  assert list(zip(words, tags)) == [
      ("Use", "O"), ("f(x,", "B-CODE"), ("y),", "I-CODE"), ("a.b", "B-CODE"),
      ("or", "O"), ("c;", "B-CODE"), ("see", "O"), ("this", "O"), ("and", "O"),
      ("'q'", "O"), ("l", "O")]


def test_prose_is_separated_from_examples_rules_and_fences():
  text = """Sum it.

  Parameters
  ----------
  a : int
      The `first`
      number.

  >>> sum(a)
  3

  Then more.
  ```
  code
  ```
  """
  assert list(docstrings._paragraphs(text)) == [
      ("Sum it.", True), ("Parameters", True), ("----------", False),
      ("a : int", True), ("The `first` number.", True), (">>> sum(a)", False),
      ("3", False), ("Then more.", True), ("```", False), ("code", False),
      ("```", False)]
