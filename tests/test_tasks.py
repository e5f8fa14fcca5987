import dataclasses
import json
import pickle
import re

import numpy as np
import pytest
from hypothesis import given, strategies as st

from bert_jax.config import UserError
from bert_jax.data.batches import loader
from bert_jax.data.labeled import base as sets
from bert_jax.data.labeled.texts import ClassificationSet, RegressionSet
from bert_jax.data.labeled.multi_label import MultiLabelSet
from bert_jax.data.labeled.rows import TaskRows
from bert_jax.data.labeled.segments import EmbeddingSet, MultipleChoiceSet
from bert_jax.data.labeled.spans import SpanSet
from bert_jax.data.labeled.tagging import TaggingSet, tagged
from bert_jax.data.records import formatting, tables
from bert_jax.data.records.columns import Columns
from tests.memory_corpus import SPECIAL, vocabulary


class Letters:
  """A tokenizer whose ids are pairs of letters; words of dots have none."""

  vocabulary = vocabulary(3000)
  fingerprint = "letters"

  def encode(self, texts):
    return [sum(words, []) for words in self.encode_words(
        [text.split() for text in texts])]

  def encode_words(self, words_batch):
    return [[[SPECIAL + 50 * (ord(w[i]) % 50) + ord(w[i:i + 2][-1]) % 50
              for i in range(0, len(w), 2)] if w.strip(".") else []
             for w in words] for words in words_batch]


def random_words(rng: np.random.Generator, longest: int) -> list[str]:
  return ["".join(rng.choice(list("abcdef"), rng.integers(1, 8)))
          for _ in range(rng.integers(1, longest + 1))]


def classes(count: int, longest: int = 12,
            pairs: bool = False) -> ClassificationSet:
  rng = np.random.default_rng(count)
  texts = [[" ".join(random_words(rng, longest)) for _ in range(count)]
           for _ in range(2)]
  return ClassificationSet(
      names=[str(i) for i in range(count)], texts_a=texts[0],
      texts_b=texts[1] if pairs else None,
      labels=rng.integers(0, 3, count).astype(np.int32),
      label_names=("a", "b", "c"))


def test_texts_and_classes_are_read(tmp_path):
  path = tmp_path / "train.tsv"
  path.write_text("text\tsecond\tlabel\nhi\tyou\t10\nho\tme\t9\nha\tus\t10\n")
  labeled = ClassificationSet.read(str(path), Columns("text", "second"))
  assert labeled.texts_a == ["hi", "ho", "ha"]
  assert labeled.texts_b == ["you", "me", "us"]
  assert labeled.label_names == ("9", "10")  # by value
  assert labeled.labels.tolist() == [1, 0, 1]
  assert labeled.names[0] == "train.tsv:2"  # whatever its folder
  # Columns by number mean no header, unless header=True.
  numbered = ClassificationSet.read(str(path),
                                    Columns("0", "", "2", header=True))
  assert numbered.texts_a == labeled.texts_a and numbered.texts_b is None
  assert ClassificationSet.read(str(path), Columns("0", label="2"),
              ).label_names == ("10", "9", "label")
  numbers = RegressionSet.read(str(path), Columns("text"))
  assert numbers.labels.tolist() == [10, 9, 10]
  unlabeled = ClassificationSet.read(str(path), Columns("text", label=""),
                                     ("x",))
  assert unlabeled.labels is None and unlabeled.label_names == ("x",)


def test_null_is_no_label(tmp_path):
  path = tmp_path / "x.json.d" / "a.jsonl"
  path.parent.mkdir()
  path.write_text('{"sentence": "a", "label": 1}\n'
                  '{"sentence": "b", "label": null}\n')
  skip = Columns(bad_records="skip")
  for kind, count in ((ClassificationSet, 1), (MultiLabelSet, 2)):
    labeled = kind.read(str(path), skip)
    assert labeled.label_names == ("1",) and len(labeled) == count
  path.write_text('{"sentence": "a", "label": null}\n')
  with pytest.raises(UserError, match="'label' has no label at all"):
    MultiLabelSet.read(str(path), skip)
  with pytest.raises(UserError, match="read by data=squad"):
    SpanSet.read(str(path), skip)
  # CoNLL files are recognized by how the file's name ends.
  (path.parent / "a.conll").write_text("New\tB\n")
  assert len(TaggingSet.read(str(path.parent / "a.conll"), Columns())) == 1


TEXTS = st.lists(st.text("a b\r\n\t\x00\x0c\x1c\x85\u2028", max_size=3),
                 min_size=1, max_size=5)


@given(TEXTS, st.booleans(), st.sampled_from([".jsonl", ".csv", ".tsv"]))
def test_every_record_gets_one_prediction(texts, alone, ending):
  """Odd and empty texts, in a column of their own or beside another."""
  if ending == ".tsv":
    texts = [re.sub("[\r\n\t]", "", text) for text in texts]
  columns = ["sentence"] if alone else ["sentence", "note"]
  table = tables.parse_table(f"a{ending}", ending, formatting.format_table(
      f"a{ending}", columns, [[text, text][:len(columns)] for text in texts]),
                             header=True)
  labeled = ClassificationSet.parse(table, Columns(label=""), ("x", "y"))
  assert labeled.texts_a == texts
  rows = TaskRows(labeled, Letters(), 6, 2, 0, shuffle=False)
  batches = [loader.batch(rows, 1, step) for step in range(len(rows))]
  predictions = labeled.predictions(labeled.collect([
      (batch, np.eye(2)[batch["example_index"] % 2]) for batch in batches]))
  assert [label for label, *_ in predictions] == [
      "xy"[i % 2] for i in range(len(texts))]


def test_labels_are_compared_by_what_they_say(tmp_path, caplog):
  path = tmp_path / "a.jsonl"

  def labels(*values, **options):
    path.write_text("".join(json.dumps({"sentence": "a", "label": value}) + "\n"
                            for value in values))
    return ClassificationSet.read(str(path), Columns(**options))

  labeled = labels(1, 1.0, "1", " 1.0", "01", 2.5)
  assert labeled.label_names == ("01", "1", "2.5")  # as many as there are
  assert labeled.labels.tolist() == [1, 1, 1, 1, 0, 2]
  assert "another spelling: 1, ' 1.0' as '1'" in caplog.text
  labeled = labels("pos", "pos ", "\u00a0pos", "neg", True)
  assert labeled.label_names == ("True", "neg", "pos")
  # What has one spelling keeps it, and what is no number is sorted as text.
  assert labels("2.0", "2.1").label_names == ("2.0", "2.1")
  assert labels("nan", "2", "10").label_names == ("10", "2", "nan")
  with pytest.raises(UserError, match="4 of 5 .*3 without a label, 1 with a "
                     "label that is neither"):
    labels(float("nan"), None, " ", ["x"], "y")
  again = ClassificationSet.read(str(path), Columns(bad_records="skip"),
                                 (" y", "x"))
  assert again.labels.tolist() == [0]
  with pytest.raises(UserError, match="Of the labels 1, 1.0, two are the same"):
    ClassificationSet.read(str(path), Columns(), ("1", "1.0"))


def test_labels_that_look_like_no_classes_are_reported(tmp_path, caplog):
  path = tmp_path / "a.tsv"
  path.write_text("text\tlabel\n" + "".join(
      f"a\t{i / 60:.3f}\n" for i in range(60)))
  ClassificationSet.read(str(path), Columns("text", label="1"))
  assert "column number 1, counted from 0, is 'label'" in caplog.text
  assert "60 classes are numbers" in caplog.text
  assert "objective=regression" in caplog.text
  caplog.clear()
  path.write_text("text\tlabel\na\tx\nb\ty\nc\tx\n")
  ClassificationSet.read(str(path), Columns("0", label="1"))
  assert "line 1, of the label 'label', is an example" in caplog.text
  caplog.clear()
  for numbered in (Columns("0", label="1", header=False), Columns("text")):
    ClassificationSet.read(str(path), numbered)
  assert not caplog.records


def test_predictions_that_cannot_be_written_are_refused_before(tmp_path):
  path = tmp_path / "a.jsonl"

  def check(output, kind=ClassificationSet, names=("x", "y"), **record):
    path.write_text(json.dumps({"sentence": "a"} | record) + "\n")
    kind.read(str(path), Columns(label=""), names).check_output(
        str(tmp_path / output))

  check("b.jsonl", note="a\tb", names=("x\ty", "z"))
  check("b.csv", note="a\tb\rc\n")
  for output, note, words in (
      ("b.tsv", {"note": "a\tb"}, "a tab"), ("b.tsv", {"note": "a\n"}, "break"),
      ("b.csv", {"note": "\ufeff"}, "byte-order"),
      ("b.csv", {"note": ["a", "b c"]}, "'b c' of a list"),
      ("b.jsonl", {"predicted_label": "x"}, "two columns 'predicted_label'"),
      ("b.csv", {"probability_y": 1}, "two columns 'probability_y'")):
    with pytest.raises(UserError, match=words):
      check(output, **note)
  with pytest.raises(UserError, match="a tab"):
    check("b.tsv", names=("x\ty", "z"))
  with pytest.raises(UserError, match="'a,b' of a list .* ',' between"):
    check("b.csv", MultiLabelSet, ("a,b", "c"))


def test_unknown_labels_are_reported(tmp_path):
  path = tmp_path / "dev.tsv"
  path.write_text("sentence\tlabel\nfine\tgood\noops\tgodo\n")
  with pytest.raises(UserError, match=r"dev.tsv:3: the label 'godo' is not "
                     "known; did you mean 'good'.*bad, good"):
    ClassificationSet.read(str(path), Columns(), ("bad", "good"))
  with pytest.raises(UserError, match="dev.tsv:2: the label 'good' is no num"):
    RegressionSet.read(str(path), Columns())


def test_bad_records_are_counted_by_fault_or_skipped(tmp_path, caplog):
  path = tmp_path / "dev.tsv"
  path.write_text("\ufeffsentence\tpair\tlabel\na\tb\tgood\n\tb\tgood\n"
                  "a\tb\n a \t \tbad\na\tb\tbda\nc\td\tbad\na\n"
                  "e\tf\tgood\textra\na\tb\t\n")
  columns = Columns(pair="pair")
  with pytest.raises(UserError) as raised:
    ClassificationSet.read(str(path), columns, ("bad", "good"))
  assert str(raised.value).splitlines() == [
      f"{path}: 7 of 9 records cannot be used (3 with other columns, 2 with an "
      "empty text, 1 with an unknown label, 1 without a label):",
      f"  {path}:4: 2 columns, not the 3 of the first line",
      f"  {path}:8: 1 columns, not the 3 of the first line",
      f"  {path}:9: 4 columns, not the 3 of the first line",
      f"  {path}:3: the text is empty",
      f"  {path}:5: the text is empty",
      "  ...",
      "Fix them, or skip them with data.columns.bad_records=skip."]
  assert f"{path}:1: ignoring a byte-order mark" in caplog.text
  skip = dataclasses.replace(columns, bad_records="skip")
  labeled = ClassificationSet.read(str(path), skip, ("bad", "good"))
  assert labeled.names == ["dev.tsv:2", "dev.tsv:7"]
  assert labeled.texts_a == ["a", "c"] and labeled.labels.tolist() == [1, 0]
  assert len(labeled.table.records) == 2
  assert "7 of 9 records cannot be used" in caplog.text
  # Prediction accepts empty texts.
  new = ClassificationSet.read(str(path), dataclasses.replace(skip, label=""))
  assert len(new) == 6 and new.texts_a[1] == ""


def test_tags_are_read_from_columns_and_from_lists(tmp_path):
  conll, lines = tmp_path / "a.conll", tmp_path / "a.jsonl"
  conll.write_text("New\tB\nYork\tI\n\nis\tO\n")
  lines.write_text('{"w": ["New", "York"], "t": ["B", "I"]}\n'
                   '{"w": ["is"], "t": ["O"]}\n')
  for labeled in (TaggingSet.read(str(conll), Columns()),
                   TaggingSet.read(str(lines), Columns("w", label="t"))):
    assert labeled.words == [["New", "York"], ["is"]]
    assert labeled.label_names == ("B", "I", "O")
    assert [l.tolist() for l in labeled.labels] == [[0, 1], [2]]
  with lines.open("a") as file:
    file.write('{"w": ["a", "b"], "t": ["O"]}\n{"w": "a b", "t": "B O"}\n')
  with pytest.raises(UserError, match="1 that are no list.*\n.*:3: 2 words have"
                     " 1 tags\n.*:4: 'a b' is no list"):
    TaggingSet.read(str(lines), Columns("w", label="t"), ("B", "I", "O"))
  with pytest.raises(UserError, match="mine: 2 words have 1 tags"):
    tagged([("mine", ["a", "b"], ["O"])])
  with pytest.raises(UserError, match="mine: the label 'P' is not known"):
    tagged([("mine", ["a"], ["P"])], ("B", "O"))


def test_splits_go_by_name_and_samples_grow():
  labeled = classes(400)
  train, held_out = sets.split(labeled, 25)
  assert len(held_out) == 100
  assert sorted(train.names + held_out.names) == sorted(labeled.names)
  for part in (train, held_out):
    where = [int(name) for name in part.names]
    assert part.texts_a == [labeled.texts_a[i] for i in where]
    np.testing.assert_array_equal(part.labels, labeled.labels[where])


def test_split_without_one_part_is_refused():
  with pytest.raises(UserError, match="percent=10 of 1 .*none to evaluate on"):
    sets.split(classes(1), 10)
  with pytest.raises(UserError, match="percent=100 of 3 .*none to train on"):
    sets.split(classes(3), 100)


def test_subsample_has_few_examples_of_each_class():
  labeled = classes(400)
  few, more, other = (sets.subsample(labeled, *shots_and_seed)
                      for shots_and_seed in ((10, 0), (50, 0), (10, 1)))
  for part, shots in ((few, 10), (more, 50), (other, 10)):
    assert part.counts_C().tolist() == [shots] * 3
    where = [int(name) for name in part.names]
    assert where == sorted(where)
    np.testing.assert_array_equal(part.labels, labeled.labels[where])
  assert set(few.names) < set(more.names)
  assert len(set(few.names) & set(other.names)) < 10
  assert sets.subsample(labeled, None, 0) is labeled
  tags = words_and_tags(40)
  assert len(sets.subsample(tags, 7, 0)) == 7
  with pytest.raises(UserError, match="data.shots=200: there are 1.. of '"):
    sets.subsample(labeled, 200, 0)
  with pytest.raises(UserError, match="data.shots=41: there are 40 examples"):
    sets.subsample(tags, 41, 0)


@pytest.mark.parametrize("pairs", [False, True])
@pytest.mark.parametrize("examples_per_row", [1, 6])
def test_every_example_is_evaluated_once(pairs, examples_per_row):
  labeled = classes(101, longest=20, pairs=pairs)
  rows = TaskRows(labeled, Letters(), 40, examples_per_row, 0, shuffle=False)
  index, labels, tokens = [], [], {}
  for batch in loader.evaluation_batches(rows, 8):
    real = batch["example_mask"] > 0
    np.testing.assert_array_equal(real, batch["example_index"] >= 0)
    assert (batch["labels"][~real] == -1).all()
    index += batch["example_index"][real].tolist()
    labels += batch["labels"][real].tolist()
    for b, slot in zip(*np.nonzero(real)):
      here = batch["example_ids"][b] == slot + 1
      tokens[batch["example_index"][b, slot]] = (
          batch["input_ids"][b][here].tolist(),
          batch["token_type_ids"][b][here].tolist())
  assert sorted(index) == list(range(101))
  assert labels == labeled.labels[index].tolist()
  truncated = 0
  for i, (ids, types) in tokens.items():
    a = Letters().encode([labeled.texts_a[i]])[0]
    b = Letters().encode([labeled.texts_b[i]])[0] if pairs else None
    truncated += len(a) + len(b or []) > 40 - 3
    while pairs and len(a) + len(b) > 40 - 3:
      (a if len(a) > len(b) else b).pop()
    if b is None:
      a = a[:38]
    assert ids == [2, *a, 3] + ([] if b is None else [*b, 3])
    assert types == [0] * (len(a) + 2) + (
        [] if b is None else [1] * (len(b) + 1))
  assert truncated


def test_training_shows_every_example_once_in_another_order():
  labeled = classes(57)
  rows = TaskRows(labeled, Letters(), 64, 4, seed=1)
  orders = [np.concatenate([rows.row(epoch, i)["example_index"]
                            for i in range(len(rows))]) for epoch in range(2)]
  for order in orders:
    assert sorted(order[order >= 0]) == list(range(57))
  assert orders[0].tolist() != orders[1].tolist()
  other = TaskRows(labeled, Letters(), 64, 4, seed=2)
  assert orders[0][:4].tolist() != other.row(0, 0)["example_index"].tolist()


def test_numbers_and_unknown_labels_fill_rows():
  labeled = classes(5)
  numbers = RegressionSet(names=labeled.names, texts_a=labeled.texts_a,
                    labels=np.arange(5, dtype=np.float32))
  row = TaskRows(numbers, Letters(), 999, 7, 0, shuffle=False).row(0, 0)
  assert row["labels"].dtype == np.float32
  assert sorted(row["labels"]) == [0, 0, 0, 1, 2, 3, 4]
  for kind, label in ((ClassificationSet, -1), (RegressionSet, 0)):
    unknown = kind(names=labeled.names, texts_a=labeled.texts_a)
    assert (TaskRows(unknown, Letters(), 999, 7, 0).row(0, 0)["labels"]
            == label).all()


def words_and_tags(count: int) -> TaggingSet:
  rng = np.random.default_rng(0)
  words = [random_words(rng, 20) for _ in range(count)]
  words[3] = ["...", "ab", "."]
  words[4] = []
  words[-1] += ["."]
  return tagged([(str(i), w, rng.choice(list("BIO"), len(w)))
                       for i, w in enumerate(words)], ("B", "I", "O"))


def test_word_is_labeled_at_its_first_piece():
  labeled = tagged([("x", ["abc", "...", "d"], ["B", "I", "O"]),
                           ("y", ["abcde"], ["I"])])
  row = TaskRows(labeled, Letters(), 12, 2, 0, shuffle=False).row(0, 0)
  # [CLS] ab c [UNK] d [SEP] [CLS] ab cd e [SEP]; the dots have no piece.
  np.testing.assert_array_equal(row["example_ids"], [1] * 6 + [2] * 5 + [0])
  assert row["input_ids"][3] == Letters.vocabulary.unk_id
  np.testing.assert_array_equal(row["labels"],
                                [-1, 0, -1, 1, 2, -1, -1, 1, -1, -1, -1, -1])
  np.testing.assert_array_equal(row["word_index"],
                                [-1, 0, -1, 1, 2, -1, -1, 3, -1, -1, -1, -1])


@pytest.mark.parametrize("examples_per_row", [1, 5])
def test_every_word_gets_its_own_tag(examples_per_row, caplog):
  """Also those without a piece, and those behind a row's end, which a window
  shows with half of its tokens around them, or all that there are."""
  labeled = words_and_tags(40)
  rows = TaskRows(labeled, Letters(), 24, examples_per_row, 0, shuffle=False)
  assert "40 examples are read in " in caplog.text
  assert "rows of 24 tokens" in caplog.text
  batches = list(loader.evaluation_batches(rows, 4))
  predictions = labeled.collect([
      (b, np.eye(3, dtype=np.float32)[b["labels"]]) for b in batches])
  for words, gold, tags in zip(labeled.words, labeled.labels, predictions,
                               strict=True):
    assert tags.shape == (len(words), 3)
    np.testing.assert_array_equal(tags.argmax(-1), gold)
  context = {}  # of each word: tokens before and behind it in its window
  for batch in batches:
    for b, l in zip(*np.nonzero(batch["word_index"] >= 0)):
      here = batch["example_ids"][b] == batch["example_ids"][b, l]
      word = batch["word_index"][b, l]
      assert word not in context
      context[word] = here[:l].sum() - 1, here[l + 1:].sum() - 1
  pieces = Letters().encode_words(labeled.words)
  counts = [[max(1, len(ids)) for ids in words] for words in pieces]
  before = [np.cumsum([0, *words])[:-1] for words in counts]
  longer = 0
  for word, (begin, end) in enumerate(zip(
      np.concatenate(before), np.concatenate(
          [sum(words) - 1 - at for words, at in zip(counts, before)]))):
    assert context[word][0] >= min(begin, 22 // 4)
    assert context[word][1] >= min(end, 22 // 4 - 1)
    longer += begin + end + 1 > 22
  assert longer > 50


@pytest.mark.parametrize("labeled, length, said", [
    (lambda: classes(3), 4, "3 of 3 examples are longer than rows of 4 tokens"),
    (lambda: classes(3, pairs=True), 9, " of 3 examples are longer"),
    (lambda: MultipleChoiceSet(
        names=list("ab"), texts_a=["ab", "ab"], label_names=("0", "1"),
        choices=[["ab", "ababababab"], ["ab", "ab"]]), 14, "1 of 2 examples"),
    (lambda: EmbeddingSet(names=["x"], texts_a=["ab"], texts_b=["abababab"]),
     8, "1 of 1 examples are longer than rows of 8 tokens (data.length); 40%"),
    (lambda: classes(3), 400, ""), (lambda: words_and_tags(9), 300, "")])
def test_examples_that_are_cut_are_counted(labeled, length, said, caplog):
  TaskRows(labeled(), Letters(), length, 2, 0)
  assert said in caplog.text and bool(said) == bool(caplog.text)


def test_examples_without_words_have_rows(tmp_path):
  path = tmp_path / "a.jsonl"
  path.write_text('{"words": []}\n')
  labeled = TaggingSet.read(str(path), Columns("words", label=""), ("O",))
  batches = loader.evaluation_batches(TaskRows(labeled, Letters(), 9, 1, 0), 1)
  outputs = labeled.collect([(b, np.zeros((1, 9, 1))) for b in batches])
  assert labeled.predictions(outputs) == [[[], []]]


def test_fingerprint_covers_content_and_tokenizer():
  labeled, tokenizer = classes(9), Letters()
  rows = TaskRows(labeled, tokenizer, 30, 2, 0)
  relabeled = dataclasses.replace(labeled, labels=(labeled.labels + 1) % 3)
  other = Letters()
  other.fingerprint = "other"
  fingerprints = {rows.fingerprint,
                  TaskRows(relabeled, tokenizer, 30, 2, 0).fingerprint,
                  TaskRows(labeled, other, 30, 2, 0).fingerprint,
                  TaskRows(labeled, tokenizer, 30, 2, 1).fingerprint}
  assert len(fingerprints) == 4
  assert TaskRows(labeled, tokenizer, 30, 2, 0).fingerprint in fingerprints
  copy = pickle.loads(pickle.dumps(rows))
  np.testing.assert_array_equal(copy.row(2, 0)["input_ids"],
                                rows.row(2, 0)["input_ids"])


def test_empty_sets_and_short_rows_are_refused():
  with pytest.raises(UserError, match="no examples"):
    TaskRows(tagged([]), Letters(), 30, 2, 0)
  with pytest.raises(UserError, match="Rows of 3 tokens.*allowed: 4 or more"):
    TaskRows(classes(3, pairs=True), Letters(), 3, 1, 0)


@pytest.mark.parametrize("name, columns, kind, count", [
    ("SST-2/dev.tsv", Columns(), ClassificationSet, 872),
    ("CoLA/dev.tsv", Columns("3", label="1"), ClassificationSet, 1043),
    ("MRPC/train.tsv", Columns("#1 String", "#2 String", "Quality"),
     ClassificationSet, 3668),
    ("RTE/dev.tsv", Columns("sentence1", "sentence2"), ClassificationSet, 277),
    ("STS-B/dev.tsv", Columns("sentence1", "sentence2", "score"),
     RegressionSet, 1500)])
def test_glue_is_read_as_it_ships(shared, name, columns, kind, count):
  labeled = kind.read(str(shared / "data" / "glue" / name), columns)
  assert len(labeled) == count and not labeled.table.faults.unusable
  assert len(labeled.label_names) == (2 if kind is ClassificationSet else 0)


def test_wnut17_is_read_as_it_ships(shared):
  folder = shared / "data" / "ner" / "wnut17"
  train = TaggingSet.read(str(folder / "train.conll"), Columns())
  test = TaggingSet.read(str(folder / "test.annotated"), Columns(),
                         train.label_names)
  assert (len(train), len(test), len(train.label_names)) == (3394, 1287, 13)
