"""GLUE (Wang et al. 2019): its tasks as a table, files, submissions.

Files are read as GLUE ships them, below one folder (glue/CoLA/train.tsv ...),
or through TFDS where the folder is "tfds". What sets a task apart is a line of
TASKS.
"""

import dataclasses
import pathlib
from typing import Any, Literal

import numpy as np

from bert_jax.config import UserError, nearest
from bert_jax.data.labeled import record_files
from bert_jax.data.labeled.base import LabeledSet, Records
from bert_jax.data.labeled.texts import ClassificationSet, RegressionSet
from bert_jax.data.records.bad_records import OnBadRecord
from bert_jax.data.records.columns import Columns

TFDS = "tfds"
NLI = ("entailment", "neutral", "contradiction")
RTE = NLI[0], "not_entailment"
YES_NO = "0", "1"
Split = Literal["train", "dev", "test"]


@dataclasses.dataclass(frozen=True)
class Task:
  """What is known of a task.

  Attributes:
    columns: text, second text and label in the files for training.
    metrics: the official ones, the first of which decides.
    submission: the file that GLUE's server takes.
    labels, tfds_labels: as the files and the server spell them, and as TFDS
      does, in the same order; () there: the same.
    kind: of the labels.
    folder, train, dev, test: the files; without train or dev, "".
    test_text: the column of the text in test, where it is another.
    tfds, tfds_texts, tfds_eval: name, columns, and what follows the names of
      the splits for evaluation there.
    length: tokens that hold nearly all of its examples.
  """

  name: str
  columns: tuple[str, str, str]
  metrics: tuple[str, ...]
  submission: str
  tfds: str
  tfds_texts: tuple[str, str]
  labels: tuple[str, ...] = YES_NO
  tfds_labels: tuple[str, ...] = ()
  kind: type[LabeledSet] = ClassificationSet
  folder: str = ""
  train: str = "train.tsv"
  dev: str = "dev.tsv"
  test: str = "test.tsv"
  test_text: str = ""
  tfds_eval: str = ""
  length: int = 128


def _mnli(name: str, short: str, suffix: str) -> Task:
  return Task(name, ("sentence1", "sentence2", "gold_label"), ("accuracy",),
              f"MNLI-{short}.tsv", "mnli", ("premise", "hypothesis"), NLI,
              folder="MNLI", dev=f"dev{suffix}.tsv", test=f"test{suffix}.tsv",
              tfds_eval=suffix)


_PAIR = "sentence1", "sentence2"
TASKS = {task.name: task for task in (
    # Without a header in train and dev.
    Task("CoLA", ("3", "", "1"), ("matthews", "accuracy"), "CoLA.tsv", "cola",
         ("sentence", ""), tfds_labels=("unacceptable", "acceptable"),
         test_text="sentence", length=64),
    Task("SST-2", ("sentence", "", "label"), ("accuracy",), "SST-2.tsv",
         "sst2", ("sentence", ""), tfds_labels=("negative", "positive"),
         length=64),
    Task("MRPC", ("#1 String", "#2 String", "Quality"), ("f1", "accuracy"),
         "MRPC.tsv", "mrpc", _PAIR,
         tfds_labels=("not_equivalent", "equivalent")),
    Task("STS-B", (*_PAIR, "score"), ("pearson", "spearman"), "STS-B.tsv",
         "stsb", _PAIR, labels=(), kind=RegressionSet),
    Task("QQP", ("question1", "question2", "is_duplicate"), ("f1", "accuracy"),
         "QQP.tsv", "qqp", ("question1", "question2"),
         tfds_labels=("not_duplicate", "duplicate")),
    _mnli("MNLI", "m", "_matched"),
    # MNLI's other evaluation; trained on the same.
    _mnli("MNLI-mm", "mm", "_mismatched"),
    Task("QNLI", ("question", "sentence", "label"), ("accuracy",), "QNLI.tsv",
         "qnli", ("question", "sentence"), RTE),
    Task("RTE", (*_PAIR, "label"), ("accuracy",), "RTE.tsv", "rte", _PAIR, RTE,
         length=256),
    Task("WNLI", (*_PAIR, "label"), ("accuracy",), "WNLI.tsv", "wnli", _PAIR,
         tfds_labels=("not_entailment", "entailment")),
    # To be predicted by what was trained on MNLI.
    Task("AX", (*_PAIR, ""), ("matthews",), "AX.tsv", "ax",
         ("premise", "hypothesis"), NLI, folder="diagnostic", train="", dev="",
         test="diagnostic.tsv"))}


def task_named(name: str) -> Task:
  if name not in TASKS:
    raise UserError(f"data.task={name}: no such task of GLUE"
                    + nearest(name, TASKS))
  return TASKS[name]


def present(folder: str) -> list[str]:
  """The tasks whose files for training and development are there."""
  if folder == TFDS:
    return [name for name, task in TASKS.items() if task.train]
  return [name for name, task in TASKS.items() if task.train and all(
      _path(folder, task, split).is_file() for split in ("train", "dev"))]


def has_test(folder: str, name: str) -> bool:
  """Whether what the server asks is there."""
  return folder == TFDS or _path(folder, task_named(name), "test").is_file()


def read(folder: str, name: str, split: Split,
         bad_records: OnBadRecord = "error") -> LabeledSet:
  """A part of a task; that of test without labels, and whole.

  Raises:
    UserError: there is no such part, or no such file.
  """
  task = task_named(name)
  if not getattr(task, split):
    raise UserError(f"data.task={name} has no examples to train on: it is "
                    "there to be predicted by what was trained on MNLI.")
  if folder != TFDS:
    return read_file(str(_path(folder, task, split)), task, split, bad_records)
  ending = task.tfds_eval if split != "train" else ""
  part = {"train": "train", "dev": "validation", "test": "test"}[split]
  text, pair = task.tfds_texts
  label = "" if split == "test" else "label"
  labeled = task.kind.read(
      f"tfds:glue/{task.tfds}:{part}{ending}",
      Columns(text, pair, label, bad_records=bad_records),
      task.tfds_labels or task.labels)
  return dataclasses.replace(labeled, label_names=task.labels)


def read_file(path: str, task: Task, split: Split,
              bad_records: OnBadRecord = "error") -> LabeledSet:
  """A file with the columns that the task's own file of this part has."""
  text, pair, label = task.columns
  if split == "test":
    text, label, bad_records = task.test_text or text, "", "error"
  return task.kind.read(
      path, Columns(text, pair, label, bad_records=bad_records), task.labels)


def _path(folder: str, task: Task, split: Split) -> pathlib.Path:
  return (pathlib.Path(folder) / (task.folder or task.name)
          / getattr(task, split))


def submission(name: str, outputs: Any) -> tuple[str, *Records]:
  """The file of predictions for the test examples that GLUE's server takes.

  Args:
    name: the task.
    outputs: what `LabeledSet.collect` gave: probabilities (X, C), or numbers
      (X,).

  Returns:
    The name of the file, its columns and its records.
  """
  task = task_named(name)
  if task.labels:
    answers = [task.labels[best] for best in np.argmax(outputs, -1).tolist()]
  else:
    answers = [f"{value:.3f}" for value in np.clip(outputs, 0, 5).tolist()]
  return (task.submission, ["index", "prediction"],
          [[str(i), answer] for i, answer in enumerate(answers)])


def write_submission(folder: pathlib.Path, name: str, outputs: Any) -> None:
  """Writes a task's predictions as GLUE's server reads them."""
  file, columns, records = submission(name, outputs)
  folder.mkdir(exist_ok=True)
  record_files.write_table(str(folder / file), columns, records)
