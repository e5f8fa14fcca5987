"""GLUE's files as they ship, and submissions to its server."""

import numpy as np
import pytest

from bert_jax.config import UserError, override
from bert_jax.data.labeled import glue, record_files
from bert_jax.data.labeled.texts import ClassificationSet, RegressionSet
from bert_jax.data.records import tables
from bert_jax.data.records.bad_records import Faults
from bert_jax.data.records.tables import Table
from bert_jax.data.sources import GlueData
from bert_jax.experiment import Experiment

# The first lines of each file with a layout of its own, and what they are read
# as: texts, second texts, labels.
FILES = {
    "CoLA/train.tsv": ("gj04\t1\t\tOne.\nl-93\t0\t*\tTwo \"is.\n",
                       ["One.", 'Two "is.'], None, [1, 0]),
    "CoLA/test.tsv": ("index\tsentence\n0\tBill left.\n", ["Bill left."], None,
                      None),
    "SST-2/dev.tsv": ("sentence\tlabel\nfine . \t1\n", ["fine . "], None, [1]),
    "SST-2/test.tsv": ("index\tsentence\n0\tuneven .\n", ["uneven ."], None,
                       None),
    "MRPC/train.tsv": (
        "\ufeffQuality\t#1 ID\t#2 ID\t#1 String\t#2 String\n"
        '1\t7\t8\tHe said "no .\tNo , he said .\n',
        ['He said "no .'], ["No , he said ."], [1]),
    "MRPC/test.tsv": (
        "\ufeffindex\t#1 ID\t#2 ID\t#1 String\t#2 String\n0\t7\t8\tA\tB\n",
        ["A"], ["B"], None),
    "STS-B/dev.tsv": (
        "index\tgenre\tfilename\tyear\told_index\tsource1\tsource2\tsentence1\t"
        "sentence2\tscore\n0\tg\tf\ty\t0\tn\tn\tA man.\tA dog.\t1.750\n",
        ["A man."], ["A dog."], [1.75]),
    # Records of QQP lack fields, or have empty ones.
    "QQP/train.tsv": (
        "id\tqid1\tqid2\tquestion1\tquestion2\tis_duplicate\n"
        "1\t2\t3\tWhy?\tHow?\t0\n4\t5\t6\tWhat\n7\t8\t9\tWho?\t\t0\n"
        "10\t11\t12\tWhen?\tAt what time?\t1\n",
        ["Why?", "When?"], ["How?", "At what time?"], [0, 1]),
    "QQP/test.tsv": ("id\tquestion1\tquestion2\n0\tWhy?\t\n1\tA\tB\n",
                     ["Why?", "A"], ["", "B"], None),
    "MNLI/dev_mismatched.tsv": (
        "index\tsentence1\tsentence2\tlabel1\tgold_label\n"
        "0\tA\tB\tneutral\tcontradiction\n", ["A"], ["B"], [2]),
    "QNLI/train.tsv": ("index\tquestion\tsentence\tlabel\n"
                       "0\tWho?\tHe.\tnot_entailment\n",
                       ["Who?"], ["He."], [1]),
    "RTE/train.tsv": ("index\tsentence1\tsentence2\tlabel\n"
                      "0\tA\tB\tentailment\n", ["A"], ["B"], [0]),
    "WNLI/dev.tsv": ("index\tsentence1\tsentence2\tlabel\n0\tA\tB\t1\n",
                     ["A"], ["B"], [1]),
    "diagnostic/diagnostic.tsv": ("index\tsentence1\tsentence2\n0\tA\tB\n",
                                  ["A"], ["B"], None)}


@pytest.mark.parametrize("file", FILES)
def test_files_are_read_as_they_ship(tmp_path, file):
  text, texts_a, texts_b, labels = FILES[file]
  path = tmp_path / file
  path.parent.mkdir()
  path.write_bytes(text.encode())
  name, split = {
      "MNLI/dev_mismatched.tsv": ("MNLI-mm", "dev"),
      "diagnostic/diagnostic.tsv": ("AX", "test")}[file] if (
          "MNLI" in file or "diag" in file) else (
              path.parent.name, path.stem)
  labeled = glue.read(str(tmp_path), name, split, "skip")
  assert (labeled.texts_a, labeled.texts_b) == (texts_a, texts_b)
  assert (labeled.labels is None) == (labels is None)
  assert labels is None or labeled.labels.tolist() == labels
  assert labeled.label_names == glue.TASKS[name].labels


@pytest.mark.parametrize("name, predictions, lines", [
    ("CoLA", [[.2, .8], [.7, .3]], ["0\t1", "1\t0"]),
    ("STS-B", [-.25, 2.5, 5.5], ["0\t0.000", "1\t2.500", "2\t5.000"]),
    ("RTE", [[.2, .8]], ["0\tnot_entailment"]),
    ("QNLI", [[.8, .2]], ["0\tentailment"]),
    ("AX", [[.2, .1, .7]], ["0\tcontradiction"]),
    ("MNLI", [[.2, .7, .1]], ["0\tneutral"])])
def test_submissions_are_spelled_for_the_server(tmp_path, name, predictions,
                                                lines):
  file, columns, records = glue.submission(name, np.array(predictions))
  record_files.write_table(str(tmp_path / file), columns, records)
  assert (tmp_path / file).read_text().splitlines() == [
      "index\tprediction", *lines]


def test_tasks_have_submission_files_of_their_own():
  assert sorted(task.submission for task in glue.TASKS.values()) == sorted(
      f"{name}.tsv" for name in (
          "CoLA", "SST-2", "MRPC", "STS-B", "QQP", "MNLI-m", "MNLI-mm", "QNLI",
          "RTE", "WNLI", "AX"))


def test_tfds_labels_are_translated(monkeypatch):
  asked = []

  def tfds_table(spec):
    asked.append(spec)
    return Table(spec, ("hypothesis", "idx", "label", "premise"),
                 [["B", 0, "neutral", "A"], ["D", 1, "entailment", "C"],
                  ["F", 2, "contradiction", "E"]], [0, 1, 2], Faults(spec))

  monkeypatch.setattr(tables, "tfds_table", tfds_table)
  labeled = glue.read(glue.TFDS, "MNLI-mm", "dev")
  assert asked == ["tfds:glue/mnli:validation_mismatched"]
  assert labeled.texts_a == ["A", "C", "E"] and (
      labeled.texts_b == ["B", "D", "F"])
  assert [labeled.label_names[i] for i in labeled.labels] == [
      "neutral", "entailment", "contradiction"]


def test_tfds_label_order_matches():
  configs = pytest.importorskip("tensorflow_datasets.text.glue").Glue
  configs = {config.name: config for config in configs.BUILDER_CONFIGS}
  for task in glue.TASKS.values():
    config = configs[task.tfds]
    assert set(filter(None, task.tfds_texts)) == set(config.text_features)
    assert tuple(config.label_classes or ()) == (
        task.tfds_labels or task.labels), task.name


def test_present_tasks_are_detected(tmp_path):
  for file in ("RTE/train.tsv", "RTE/dev.tsv", "CoLA/train.tsv",
               "MNLI/test_matched.tsv"):
    (tmp_path / file).parent.mkdir(exist_ok=True)
    (tmp_path / file).write_text("")
  assert glue.present(str(tmp_path)) == ["RTE"]
  assert glue.has_test(str(tmp_path), "MNLI")
  assert not glue.has_test(str(tmp_path), "RTE")
  with pytest.raises(UserError, match="did you mean 'MRPC'"):
    glue.task_named("MRCP")
  with pytest.raises(UserError, match="data.task=AX has no examples"):
    glue.read(str(tmp_path), "AX", "train")


def test_shared_glue_files_are_read(shared):
  folder = str(shared / "data" / "glue")
  assert glue.present(folder) == ["CoLA", "SST-2", "MRPC", "STS-B", "RTE"]
  counts = {"CoLA": (1043, 1063), "SST-2": (872, 1821), "MRPC": (408, 1725),
            "STS-B": (1500, 1379), "RTE": (277, None)}
  for name, (dev, test) in counts.items():
    labeled = glue.read(folder, name, "dev", "error")
    assert len(labeled) == dev and labeled.labels is not None
    if test is not None:
      assert len(glue.read(folder, name, "test")) == test


def test_task_name_selects_its_files(tmp_path):
  data = override(Experiment(data=GlueData(folder=str(tmp_path))),
                  ["data.task=RTE"]).data
  (tmp_path / "RTE").mkdir()
  text, texts_a, _, labels = FILES["RTE/train.tsv"]
  for split in ("train", "dev"):
    (tmp_path / "RTE" / f"{split}.tsv").write_text(text)
  (tmp_path / "RTE" / "test.tsv").write_text(
      text.replace("\tlabel", "").replace("\tentailment", ""))
  train, dev = data.sets(ClassificationSet, glue.RTE)
  assert train.texts_a == dev.texts_a == texts_a
  assert dev.labels.tolist() == labels
  for source in ("test", str(tmp_path / "RTE" / "test.tsv")):
    unlabeled = data.unlabeled(source, ClassificationSet, glue.RTE)
    assert unlabeled.texts_a == texts_a and unlabeled.labels is None
  with pytest.raises(UserError, match="data.task=RTE needs objective=classif"):
    data.sets(RegressionSet, ())
  with pytest.raises(UserError, match="RTE has entailment,not_entailment"):
    data.sets(ClassificationSet, ("0", "1"))
