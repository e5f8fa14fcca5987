"""Where an experiment learns from: running text, or a labeled task."""

import dataclasses

from bert_jax.config import Count, Percent, UserError
from bert_jax.data.base import Data, Datasets
from bert_jax.data.labeled import base as labeled, glue
from bert_jax.data.labeled.augmentation import Augmentation, NoAugmentation
from bert_jax.data.labeled.base import LabeledSet, subsample
from bert_jax.data.labeled.record_files import read_questions
from bert_jax.data.labeled.spans import SpanSet
from bert_jax.data.labeled.tagging import TaggingSet, tagged
from bert_jax.data.labeled.windows import SpanOptions
from bert_jax.data.pretraining import corpus_builder
from bert_jax.data.pretraining.formats import Format, PairsFormat
from bert_jax.data.pretraining.rows import PretrainingRows
from bert_jax.data.records.bad_records import OnBadRecord
from bert_jax.data.records.columns import Columns
from bert_jax.data.text import docstrings
from bert_jax.data.tokenizers.base import LoadedTokenizer
from bert_jax.data.tokenizers.choices import SentencePieceTokenizer, Tokenizer


@dataclasses.dataclass(frozen=True)
class TextData(Data):
  """Running text, tokenized once into a corpus that later runs reuse.

  Attributes:
    text: the text: files and globs, separated by commas, tfds:NAME, or
      "embedded", the documentation of the installed Python packages.
    evaluation_text: text to evaluate on, named as `text` is; files that both
      name are not trained on; "": a part of `text`.
    held_out_percent: without `evaluation_text`, percentage of the documents
      of `text` that is held out for evaluation, chosen by hash; 0: none, 100:
      all, to evaluate on only.
  """

  text: str = "embedded"
  evaluation_text: str = ""
  tokenizer: Tokenizer = SentencePieceTokenizer()
  format: Format = PairsFormat()
  held_out_percent: Percent = 2.0

  def prepare(self, seed: int, tokenizer: LoadedTokenizer | None,
              kind: type[LabeledSet] | None,
              labels: tuple[str, ...]) -> Datasets:
    splits = corpus_builder.prepare(
        self.text, tokenizer or self.tokenizer, corpus_builder.cache_folder(),
        self.held_out_percent, self.evaluation_text)

    train, held_out = (PretrainingRows(
        split, splits.tokenizer.vocabulary, self.format, self.length,
        self.examples_per_row, seed if shuffle else 0, shuffle)
                       for split, shuffle in ((splits.train, True),
                                              (splits.held_out, False)))
    if pairs := train.describe_pairs():
      corpus_builder.say(self.text, pairs)
    return Datasets(train, held_out, splits.tokenizer, corpus=splits)

  def check_pairs(self, labels: str) -> None:
    if labels and self.format.pair_labels not in ("", labels):
      names = [name for name, member in Format.members().items()
               if member.pair_labels == labels]
      raise UserError(
          f"data.format={self.format.choice_name}: its pairs are labeled with "
          f"something else than the objective asks; set data.format="
          f"{' or '.join(names)}.")

  def check_train(self, prepared: Datasets) -> None:
    if not len(prepared.corpus.train.tokens_T):
      raise UserError(
          "No text is left to train on: all of data.text is held out "
          f"(data.held_out_percent={self.held_out_percent:g}) or named by "
          "data.evaluation_text too.")

  def vocabulary_size(self) -> int:
    return self.tokenizer.vocab_size

  def train_tokenizer(self) -> LoadedTokenizer:
    """The tokenizer of all sentences, held-out ones included."""
    return corpus_builder.train_tokenizer(self.text, self.tokenizer)


@dataclasses.dataclass(frozen=True)
class LabeledData(Data, abstract=True):
  """Labeled examples; members say where they come from.

  Attributes:
    tokenizer: how to get a tokenizer, without `init_from`; with it, the
      tokenizer is that of init_from's run.
    held_out_percent: percentage of the training examples that is held out for
      evaluation, chosen by hash, where the data has no evaluation set.
    shots: few-shot training: number of training examples of each class (in
      all, where there are no classes); None: all examples.
    shots_seed: seed of the sample that `shots` draws.
    augmentation: how training texts are changed, differently in every epoch.
  """

  length: Count = 128
  examples_per_row: Count = 16
  tokenizer: Tokenizer = SentencePieceTokenizer()
  held_out_percent: Percent = 10.0
  shots: int | None = None
  shots_seed: int = 0
  augmentation: Augmentation = NoAugmentation()

  def vocabulary_size(self) -> int:
    return self.tokenizer.vocab_size

  def sets(self, kind: str,
           labels: tuple[str, ...]) -> tuple[LabeledSet, LabeledSet]:
    """The examples to train and to evaluate on."""
    raise NotImplementedError

  def prepare(self, seed: int, tokenizer: LoadedTokenizer | None,
              kind: type[LabeledSet] | None,
              labels: tuple[str, ...]) -> Datasets:
    if kind is None:
      raise UserError(f"data={self.choice_name} has labels, but the objective "
                      "takes none; set one that does, as objective="
                      "classification, regression or tagging.")
    train, evaluation = self.sets(kind, labels)
    train = subsample(train, self.shots, self.shots_seed)
    tokenizer = tokenizer or self.tokenizer.build(train.texts())
    shape = tokenizer, self.length, self.examples_per_row
    return Datasets(
        train.rows(*shape, seed, augmentation=self.augmentation),
        evaluation.rows(*shape, seed=0, shuffle=False), tokenizer, evaluation,
        train)


@dataclasses.dataclass(frozen=True)
class TableData(LabeledData):
  """Labeled examples: TSV, CSV, JSON lines, CoNLL, or tfds:NAME:SPLIT.

  Attributes:
    train: file of the training examples.
    evaluation: file of the evaluation examples; "": `held_out_percent` of the
      training examples are held out.
    columns: where texts and labels stand in them.
  """

  train: str = ""
  evaluation: str = ""
  columns: Columns = Columns()

  def sets(self, kind: str,
           labels: tuple[str, ...]) -> tuple[LabeledSet, LabeledSet]:
    if not self.train:
      raise UserError("data.train: name the file of the training examples, as "
                      "in data.train=train.tsv.")
    train = kind.read(self.train, self.columns, labels)
    if not self.evaluation:
      return labeled.split(train, self.held_out_percent)
    return train, kind.read(self.evaluation, self.columns, train.label_names)

  def unlabeled(self, source: str, kind: type[LabeledSet] | None,
                labels: tuple[str, ...]) -> LabeledSet:
    return kind.read(source, dataclasses.replace(self.columns, label=""),
                     labels)


@dataclasses.dataclass(frozen=True)
class GlueData(LabeledData):
  """A task of GLUE, from its own files or through TFDS.

  Attributes:
    folder: the folder that has a folder for each task, or "tfds" to load them
      by TFDS.
    task: the task: CoLA, SST-2, MRPC, STS-B, QQP, MNLI, MNLI-mm, QNLI, RTE or
      WNLI.
    bad_records: what is done about records that cannot be used, as QQP has
      some: they are an error, or skipped and counted.
  """

  folder: str = "glue"
  task: str = "MRPC"
  bad_records: OnBadRecord = "skip"

  def checked_task(self, kind: type[LabeledSet],
                   labels: tuple[str, ...]) -> glue.Task:
    task = glue.task_named(self.task)
    if kind is not task.kind:
      raise UserError(f"data.task={self.task} needs objective="
                      f"{task.kind.kind}.")
    if labels not in ((), task.labels):
      raise UserError(f"objective.labels={','.join(labels)}: data.task="
                      f"{self.task} has {','.join(task.labels)}.")
    return task

  def sets(self, kind: str,
           labels: tuple[str, ...]) -> tuple[LabeledSet, LabeledSet]:
    self.checked_task(kind, labels)
    return tuple(glue.read(self.folder, self.task, split, self.bad_records)
                 for split in ("train", "dev"))

  def unlabeled(self, source: str, kind: type[LabeledSet] | None,
                labels: tuple[str, ...]) -> LabeledSet:
    """Of a file with the columns of the task's test file, or of "test"."""
    task = self.checked_task(kind, labels)
    if source == "test":
      return glue.read(self.folder, self.task, "test")
    return glue.read_file(source, task, "test")


@dataclasses.dataclass(frozen=True)
class SquadData(SpanOptions, LabeledData):
  """Questions on texts: SQuAD's .json, JSON lines, or tfds:NAME:SPLIT.

  Attributes:
    train: file of the training questions.
    evaluation: file of the evaluation questions; "": those of
      `held_out_percent` of the training articles are held out.
    bad_records: what is done about questions that cannot be used, or whose
      answer is not where it is said to be: they are an error, or skipped and
      counted.
  """

  length: Count = 384
  examples_per_row: Count = 4
  train: str = ""
  evaluation: str = ""
  bad_records: OnBadRecord = "error"

  def sets(self, kind: str,
           labels: tuple[str, ...]) -> tuple[LabeledSet, LabeledSet]:
    if kind is not SpanSet:
      raise UserError("data=squad has answers that are spans of contexts; set "
                      "objective=span.")
    if not self.train:
      raise UserError("data.train: name the file of the questions to train "
                      "on, as in data.train=train-v1.1.json.")
    train = SpanSet.of(read_questions(self.train, self.bad_records), self)
    none = sum(not right for right in train.labels)
    if none and self.null_threshold is None:
      raise UserError(
          f"{self.train}: {none} of {len(train)} questions have no answer; set "
          "data.null_threshold=0 and the network may give none (SQuAD 2.0).")
    if not self.evaluation:
      return labeled.split(train, self.held_out_percent)
    return train, SpanSet.of(read_questions(self.evaluation, self.bad_records),
                             self)

  def unlabeled(self, source: str, kind: type[LabeledSet] | None,
                labels: tuple[str, ...]) -> LabeledSet:
    return SpanSet.of(read_questions(source, self.bad_records, labeled=False),
                      self, labeled=False)


@dataclasses.dataclass(frozen=True)
class CodeWordsData(LabeledData):
  """Which words the authors of the embedded text marked as code.

  The marks are taken away; names that a TextData with the same
  `held_out_percent` keeps for evaluation are in neither training set.
  """

  held_out_percent: Percent = 15.0

  def sets(self, kind: str,
           labels: tuple[str, ...]) -> tuple[LabeledSet, LabeledSet]:
    if kind is not TaggingSet:
      raise UserError("data=code_words has a tag for every word; set "
                      "objective=tagging.")
    everything = tagged(list(docstrings.code_paragraphs()), labels)
    return labeled.split(everything, self.held_out_percent)


def reader_of(kind: type[LabeledSet] | None) -> type[Data]:
  """The member that reads files for such labels."""
  if kind is None:
    return TextData
  return TableData if kind.in_tables else SquadData
