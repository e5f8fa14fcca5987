import gzip
import json
import lzma
import pathlib
from types import SimpleNamespace

import pytest
from hypothesis import given, strategies as st

from bert_jax.config import UserError
from bert_jax.data.labeled import record_files
from bert_jax.data.records import columns, conll, formatting, tables


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
    assert table.column("text") == ["a\n", "b"] and table.lines == [1, 3]


@pytest.mark.parametrize("name, text, bad", [
    ("a.tsv", "text\tlabel\none\t1\ntwo\nthree\t1\t2\n",
     "2 of 3 records cannot be used \\(2 with other columns\\):\n.*a.tsv:3: 1 "
     "columns, not the 2.*\n.*a.tsv:4: 3"),
    ("a.csv", "text,label\none,1\ntwo\nthree,1,2\n", "a.csv:3: 1 col"),
    ("a.tsv", "text\tlabel\none\t1\n\ufefftext\tlabel\nthree\t\ufeff2\n",
     "2 with a byte-order mark"),
    ("a.jsonl", '{"text": "one", "label": 1}\n{"text": "two"}\n{"label": ',
     "1 that are no JSON, 1 with other columns.*\n.*:3: no JSON.*\n.*:2: "
     "lacks label"),
    ("a.jsonl", '{"text": "one", "label": 1}\n[1]\n{"label": 1}\n'
     '{"text": "a", "text": "b"}', "not a list\n.*there twice.*\n.*lacks t"),
    ("a.conll", "one O\n\n\ufefftwo O\n", "1 with a byte-order mark"),
    ("a.conll", "one O\n\ntwo\n\na B\nb\nc\n", "2 with other columns.*"
     "\n.*:3: 1 columns, not the 2 of the first word\n.*:6: 1 columns"),
    ("a.conll", "one O\n\ntwo NN O\n\na B O B\n", "2 with other columns")])
def test_bad_records_are_named_or_left_out(tmp_path, caplog, name, text, bad):
  path = write(tmp_path, name, text)
  used = {name: ([name], str) for name in ("text", "label")} if (
      name.endswith("jsonl")) else {}
  read = lambda: (record_files.read_conll(path) if name.endswith("conll") else
                  record_files.read_table(path, header=True))
  with pytest.raises(UserError, match=bad):
    columns.clean(read(), "error", used)
  table, _ = columns.clean(read(), "skip", used)
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


@pytest.mark.parametrize("text, word, records, lines", [
    ("\n-DOCSTART- O\n\nNew\tB-x\nYork \t I-x \n\t\nin  O\t\n\n\n\nend\tO", 0,
     ["New B-x|York I-x", "in O", "end O"], [4, 7, 11]),
    ("10\u00a0000 B-x \n\u3000\tO\na\u2028b \x0cc O\n", 0, None, [1]),
    ("10\u00a0000 B-x \n\u3000\tO\na\u2028b\x0cc O\n", 0,
     ["10\u00a0000 B-x|\u3000 O|a\u2028b\x0cc O"], [1]),
    ("a O\rb B-x\r\rc O\r", 0, ["a O|b B-x", "c O"], [1, 4]),
    ("# id 7d09 domain=train\na _ _ O\nb _ _ B-x\n\n# id 7d10 domain=train\n"
     "# _ _ O\n\n#c _ _ B-y\n# _ _ N\n", 0,
     ["a O|b B-x", "# O", "#c B-y|# N"], [2, 6, 8]),
    ("# newdoc\na O\n\n# O\n\n#\tB-x\n\n#end x\n", 0,
     ["a O", "# O", "# B-x"], [2, 4, 6]),
    ("# text = du\n1-2\tdu" + 8 * "\t_" + "\n1\tde" + 7 * "\t_" + "\tX\n2.1\tx"
     + 8 * "\t_" + "\n", 1, ["de X"], [3])])
def test_conll_columns_are_read(tmp_path, caplog, text, word, records, lines):
  path = write(tmp_path, "a.conll", text)
  table = record_files.read_conll(path, word)
  assert table.columns == ("words", "tags")
  if records is None:
    assert not table.records and len(table.faults.unusable) == 1
    return
  assert table.lines == lines and not table.faults.unusable
  assert ["|".join(map(" ".join, zip(*record)))
          for record in table.records] == records
  skipped = text.count("# newdoc") + text.count("# id") + text.count("#end") + (
      3 * text.count("# text"))
  assert (f"{skipped} lines are comments" in caplog.text) == bool(skipped)
  unlabeled = record_files.read_conll(path, word, None)
  assert [r[0] for r in unlabeled.records] == [r[0] for r in table.records]


_WORDS = st.text("a#-.\u00a0\u3000\u2028\x85\x0c1", min_size=1, max_size=4)


@given(st.lists(st.lists(st.tuples(_WORDS, st.sampled_from(
    ["O", "B-x", "NN"])), min_size=1, max_size=4), min_size=1, max_size=4),
       st.sampled_from(["\t", " ", "   ", " \t"]),
       st.sampled_from(["\n", "\r\n", "\r"]))
def test_conll_words_are_those_that_were_written(sentences, between, end):
  sentences = [[("a", "NN"), ("b", "O"), *words] for words in sentences]
  text = (2 * end).join(end.join(f"{word}{between}{tag}" for word, tag in words)
                        for words in sentences)
  table = conll.parse_conll("a.conll", text)
  assert [list(zip(*record)) for record in table.records] == sentences


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


CHARACTERS = "a\r\n\t\",' \x00\x0b\x0c\x1c\x1f\x85\u2028\ufeff😀"
FIELDS = st.text(CHARACTERS, max_size=4)


@given(st.integers(1, 3).flatmap(lambda width: st.tuples(
    st.lists(FIELDS.map("c{}".format), min_size=width, max_size=width,
             unique=True),
    st.lists(st.lists(FIELDS, min_size=width, max_size=width), min_size=1))))
def test_written_tables_are_read_back(table):
  names, records = table
  for ending, forbidden in ((".jsonl", ""), (".csv", "\ufeff"),
                            (".tsv", "\ufeff\t\n")):
    try:
      text = formatting.format_table(f"a{ending}", names, records)
    except UserError as error:
      assert "cannot hold; write a ." in str(error)
      assert any(set(forbidden) & set("".join(fields)) or ending == ".tsv"
                 and fields[-1].endswith("\r") for fields in [names, *records])
      continue
    again = tables.parse_table(f"a{ending}", ending, text, header=True)
    assert again.records == records and not again.faults.unusable
    assert again.columns == tuple(names)


def test_json_objects_have_all_columns_of_the_file(tmp_path, caplog):
  text = ('{"sentence": "a", "note": {"x": 1}}\n\n'
          '{"sentence": "b \\ud83d half \\ud83d\\ude00", "id": 7}\n')
  lines = write(tmp_path, "a.jsonl", text)
  in_list = write(tmp_path, "a.json", "[%s]" % ",\n".join(text.split("\n\n")))
  for path, numbers in ((lines, [1, 3]), (in_list, [1, 2])):
    table = record_files.read_table(path, header=True)
    assert table.columns == ("sentence", "note", "id")
    assert table.lines == numbers
    assert table.fields(0) == {"sentence": "a", "note": {"x": 1}}
    assert table.fields(1) == {"sentence": "b \ufffd half 😀", "id": 7}
    assert f"{path}: half of a surrogate pair" in caplog.text
  assert "passed over: 1, the first is line 2" in caplog.text
  write_to = lambda name: formatting.format_table(name, table.columns,
                                                  table.records)
  assert [json.loads(line) for line in write_to("b.jsonl").splitlines()] == [
      table.fields(0), table.fields(1)]
  assert write_to("b.csv") == ('sentence,note,id\na,"{""x"": 1}",\n'
                               'b \ufffd half 😀,,7\n')
  with pytest.raises(UserError, match="a.json: no JSON"):
    record_files.read_table(write(tmp_path, "a.json", "[{]"), header=True)


@pytest.mark.parametrize("name, text, records", [
    ("a.tsv", "c\nx\n\n\ny\n", ["x", "", "", "y"]),
    ("a.csv", "c\nx\n\ny\n", ["x", "", "y"]),
    ("a.tsv", "c\td\nx\t\n\t\n\ny\tz\n", ["x", "", "y"]),
    ("a.csv", "c,d\nx,\n,\n\ny,z\n", ["x", "", "y"]),
    ("a.tsv", "c\td\rx\t1\ry\t2\r", ["x", "y"])])
def test_empty_fields_are_records(tmp_path, caplog, name, text, records):
  table = record_files.read_table(write(tmp_path, name, text), header=True)
  assert table.column("c") == records
  assert ("passed over: 1" in caplog.text) == ("d" in text and "\n" in text)


def test_columns_of_one_name_are_ambiguous(tmp_path):
  path = write(tmp_path, "a.csv", "text,label,label\na,b,c\n")
  table = record_files.read_table(path, header=True)
  assert table.column("2") == ["c"]
  with pytest.raises(UserError, match="2 columns are called 'label'; give the"):
    table.column("label")


@pytest.mark.parametrize("name, text", [
    ("a.tsv", "words\tn\nB O\t\n1 2.5\t3\n"),
    ("a.csv", "words,n\nB O,\n1 2.5,3\n"),
    ("a.jsonl", '{"words": ["B", "O"], "n": null}\n'
     '{"words": [1, 2.5], "n": 3}\n')])
def test_lists_and_nulls_are_written(tmp_path, name, text):
  for words in [["a b"], ["", "c"]] * (not name.endswith("jsonl")):
    with pytest.raises(UserError, match=f"{words[0]!r} of a list cannot be"):
      formatting.format_table(name, ["words"], [[words]])
  assert "\u00a0" in formatting.format_table(name, ["words"], [[["\u00a0"]]])
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
