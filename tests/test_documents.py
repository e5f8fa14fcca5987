"""Reading text as documents, in any layout and with any faults."""

import gzip
import json
import logging
import lzma
import time

from array_record.python import array_record_module
import pytest
from hypothesis import given, strategies as st

from bert_jax.config import UserError
from bert_jax.data.batches import splits
from bert_jax.data.text import docstrings, documents, lines, sentences

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


def test_globs_and_lists_name_documents_without_folders(tmp_path):
  for name in "ab":
    (tmp_path / f"{name}.txt").write_text(GOOGLE)
  names = [d.name for d in documents.read(f"{tmp_path}/*.txt")]
  assert names == ["a.txt:0", "a.txt:1", "b.txt:0", "b.txt:1"]
  listed = f"{tmp_path}/b.txt, {tmp_path}/a.txt"
  assert [d.name for d in documents.read(listed)] == names[2:] + names[:2]


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
  monkeypatch.setattr(documents, "DOCUMENT_LIMIT", 1500)
  (tmp_path / "empty.txt").write_bytes(b"")
  (tmp_path / "long.txt").write_bytes(b"word " * 1000 + "ü".encode() * 3000)
  (tmp_path / "wrong.txt").write_bytes(b"caf\xe9 and \xff.\nNext.\n")
  docs = list(documents.read(f"{tmp_path}/*.txt?format=sentences"))
  text = " ".join(s for d in docs for s in d.sentences)
  assert text.count("word") == 1000 and text.count("ü") == 3000
  assert all(sum(map(len, d.sentences)) <= 2500 for d in docs)
  assert [r.levelno for r in caplog.records] == [logging.WARNING]
  for what in ("1 empty files", "2 invalid UTF-8 bytes replaced",
               "overlong lines cut", "overlong documents continued"):
    assert what in caplog.text


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
  small = {n for n in names if splits.held_out(n, 2)}
  large = {n for n in names if splits.held_out(n, 10)}
  assert small < large and abs(len(large) / len(names) - .1) < .01
  assert not any(splits.held_out(n, 0) for n in names)
  # Pinned: another result would move documents between splits.
  assert [i for i in range(8) if splits.held_out(f"a:{i}", 50)] == [1, 2, 5, 7]


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
