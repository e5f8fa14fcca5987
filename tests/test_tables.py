import gzip
import lzma
import pathlib
from types import SimpleNamespace

import pytest

from bert_jax.config import UserError
from bert_jax.data.labeled import record_files
from bert_jax.data.records import columns, tables


def write(folder: pathlib.Path, name: str, text: str) -> str:
  (folder / name).write_bytes(text.encode())
  return str(folder / name)


def test_tsv_is_unquoted(tmp_path):
  path = write(tmp_path, "a.tsv",
               '\ufefftext\tlabel\r\n"He said" it\t1\r\n\r\n5\u2028" \t0\n')
  table = record_files.read_table(path, header=True)
  assert table.columns == ("text", "label")
  assert table.records == [['"He said" it', "1"], ['5\u2028" ', "0"]]
  assert [table.place(i) for i in range(2)] == [f"{path}:2", f"{path}:4"]
  assert table.column("label") == table.column("1") == ["1", "0"]


def test_columns_without_a_header_are_numbered(tmp_path):
  path = write(tmp_path, "a.tsv", "gj04\t1\t\tOne.\ngj04\t0\t*\tTwo.\n")
  table = record_files.read_table(path, header=False)
  assert table.column("3") == ["One.", "Two."] and table.lines == [1, 2]


def test_csv_fields_may_be_quoted(tmp_path):
  path = write(tmp_path, "a.csv",
               'text,label\n"one, ""two""\nthree",x\n' + "long" * 50_000 + ",y")
  table = record_files.read_table(path, header=True)
  assert table.records[0] == ['one, "two"\nthree', "x"]
  assert table.lines == [2, 4] and len(table.records[1][0]) == 200_000


def test_compressed_json_lines_are_read(tmp_path):
  text = '{"text": "a\\n", "label": 1}\n\n{"label": 0, "text": "b", "m": 1}\n'
  for name, compress in (("a.jsonl", bytes), ("a.jsonl.gz", gzip.compress),
                         ("a.json.xz", lzma.compress)):
    (tmp_path / name).write_bytes(compress(text.encode()))
    table = record_files.read_table(str(tmp_path / name), header=True)
    assert table.records == [["a\n", 1], ["b", 0]] and table.lines == [1, 3]


@pytest.mark.parametrize("name, text, bad", [
    ("a.tsv", "text\tlabel\none\t1\ntwo\nthree\t1\t2\n",
     "2 of 3 records cannot be used \\(2 with other columns\\):\n.*a.tsv:3: 1 "
     "columns, not the 2.*\n.*a.tsv:4: 3"),
    ("a.csv", "text,label\none,1\ntwo\nthree,1,2\n", "a.csv:3: 1 col"),
    ("a.tsv", "text\tlabel\none\t1\n\ufefftext\tlabel\nthree\t\ufeff2\n",
     "2 with a byte-order mark"),
    ("a.jsonl", '{"text": "one", "label": 1}\n{"text": "two"}\n{"label": ',
     "1 with other columns, 1 that are no JSON.*\n.*:2: lacks label\n.*:3: no "
     "JSON"),
    ("a.jsonl", '{"text": "one"}\n[1]\n{"label": 1}', "not a list\n.*lacks t"),
    ("a.conll", "one O\n\n\ufefftwo O\n", "1 with a byte-order mark"),
    ("a.conll", "one O\n\ntwo\n\na B\nb\nc\n", "2 without a tag.*\n.*conll:3: 1"
     " columns;.*\n.*conll:6: 1 columns")])
def test_bad_records_are_named_or_left_out(tmp_path, caplog, name, text, bad):
  path = write(tmp_path, name, text)
  read = lambda: (record_files.read_conll(path) if name.endswith("conll") else
                  record_files.read_table(path, header=True))
  with pytest.raises(UserError, match=bad):
    columns.clean(read(), "error", {})
  table, _ = columns.clean(read(), "skip", {})
  assert "They are skipped" in caplog.text and len(table.records) == 1


@pytest.mark.parametrize("name, content, message", [
    ("a.tsv", b"", "is empty"),
    ("a.jsonl", b"\n", "is empty"),
    ("a.csv", b'a,b\n"x"y,1\n', "a.csv:2: "),
    ("a.tsv", b"text\nc\xe9\n", "not UTF-8: byte 6 is 0xe9"),
    ("a.tsv.gz", b"\x1f\x8bnot gzip", "damaged or incomplete"),
    ("a.tsv.gz", gzip.compress(b"text\n" * 99, mtime=0)[:-9],
     "damaged or incomplete"),
    ("a.tsv.xz", b"\xfd7zXZ\x00not xz", "damaged or incomplete"),
    ("a.doc", b"x", "not '.doc'")])
def test_unreadable_files_are_reported(tmp_path, name, content, message):
  (tmp_path / name).write_bytes(content)
  with pytest.raises(UserError, match=message):
    record_files.read_table(str(tmp_path / name), header=True)


def test_missing_file_or_column_is_reported(tmp_path):
  with pytest.raises(UserError, match="nowhere.tsv cannot be read: No such"):
    record_files.read_table("nowhere.tsv", header=True)
  path = write(tmp_path, "a.tsv", "sentence\tlabel\na\tb\n")
  table = record_files.read_table(path, header=True)
  with pytest.raises(UserError, match="'sentense'; did you mean 'sentence'.*"
                     "sentence, label"):
    table.column("sentense")
  with pytest.raises(UserError, match="no column '2'"):
    table.column("2")


def test_conll_columns_are_read(tmp_path):
  path = write(tmp_path, "a.conll", "\n-DOCSTART- O\n\nNew\tB-LOC\nYork \tI-LOC"
               "\n\t\nin NN O B-PER\n\n\nend\tO")
  table = record_files.read_conll(path)
  assert table.columns == ("words", "tags") and table.lines == [4, 7, 10]
  assert table.records == [
      [["New", "York "], ["B-LOC", "I-LOC"]], [["in"], ["B-PER"]],
      [["end"], ["O"]]]
  table = record_files.read_conll(path, 0, None)
  assert table.columns == ("words",) and table.records[1] == [["in"]]
  assert len(record_files.read_conll(path, 0, 2).faults.unusable) == 2


def test_tfds_values_are_as_in_files(monkeypatch):
  class Records(list):
    dataset_info = SimpleNamespace(features={
        "sentence": None, "score": None,
        "label": SimpleNamespace(int2str=["no", "yes"].__getitem__),
        "words": SimpleNamespace(feature=None)})

  asked = []
  def tfds_records(name, split):
    asked.append((name, split))
    return Records([dict(sentence="é".encode(), score=2.5, label=1,
                         words=[b"a", b"b"]),
                    dict(sentence=b"", score=0.0, label=-1, words=[])])

  monkeypatch.setattr(tables, "tfds_records", tfds_records)
  table = record_files.read_table("tfds:glue/sst2:1.0.0:train", header=True)
  assert asked == [("glue/sst2:1.0.0", "train")]
  assert table.records == [["é", 2.5, "yes", ["a", "b"]], ["", 0.0, "", []]]
  record_files.read_table("tfds:reviews:train[:100]", header=True)
  assert asked[1] == ("reviews", "train[:100]")
  with pytest.raises(UserError, match="name the split too"):
    record_files.read_table("tfds:glue", header=True)


@pytest.mark.parametrize("name, text", [
    ("a.tsv", "words\tn\nB O\t\n1 2.5\t3\n"),
    ("a.csv", "words,n\nB O,\n1 2.5,3\n"),
    ("a.jsonl", '{"words": ["B", "O"], "n": null}\n'
     '{"words": [1, 2.5], "n": 3}\n')])
def test_lists_and_nulls_are_written(tmp_path, name, text):
  record_files.write_table(str(tmp_path / name), ["words", "n"],
                     [[["B", "O"], None], [[1, 2.5], 3]])
  assert (tmp_path / name).read_text() == text


def test_unwritable_table_is_reported(tmp_path):
  with pytest.raises(UserError, match="a.csv cannot be written: there is no f"):
    record_files.write_table(str(tmp_path / "absent" / "a.csv"), ["a"], [["1"]])
  with pytest.raises(UserError, match="ends in .tsv, .csv, .jsonl, not '.txt'"):
    record_files.check_output(str(tmp_path / "a.txt"))
  record_files.check_output("a.tsv")
  (tmp_path / "a.csv").mkdir()
  with pytest.raises(UserError, match="a.csv cannot be written: Is a dir"):
    record_files.write_table(str(tmp_path / "a.csv"), ["a"], [["1"]])
  assert len(list(tmp_path.iterdir())) == 1
