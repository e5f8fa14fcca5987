"""mlm and nsp: what a pretrained network knows of held-out documents."""

import dataclasses
import functools
import math
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

from bert_jax.config import Percent, check_ranges
from bert_jax.data.pretraining.scored_documents import (
    Part, masked_examples, paired_examples, scored_documents)
from bert_jax.experiment import Experiment, Run
from bert_jax.studies.protocols.base import Protocol, Scorer
from bert_jax.studies.protocols.item_rows import (
    EXAMPLES_PER_ROW, ItemRows, MaskedRows, PairRows)
from bert_jax.studies.protocols.item_scores import (
    ItemScorer, Question, Totals, obstacle)
from bert_jax.studies.protocols.scores import Score

# Percent of the documents that score a run on its way, at most.
_OF_CURVES = 10.0


@dataclasses.dataclass(frozen=True)
class _TextProtocol(Protocol):
  """Asks the network itself, on documents that were held out from training.

  All is fixed by the tokens of each document: which part it belongs to, the
  rows it is cut into, and what is predicted of them. The network sees these
  rows as they are, whatever its objective would do to them.

  Attributes:
    length: tokens of a row; 0: those of the run with the shortest rows.
    part: which held-out documents are scored: "score", or "tune", the fifth
      that only tuning uses.
    percent: percentage of the held-out documents that is scored, chosen by
      hash; it is not the masking rate.
  """

  length: int = 0
  part: Part = "score"
  percent: Percent = 100.0

  split: ClassVar = "held-out documents"
  question: ClassVar[Question]
  # What the rows are, and what cuts documents into them.
  kind: ClassVar[type[ItemRows]]
  cut: ClassVar[Callable[..., Any]]

  def __post_init__(self):
    check_ranges(self)

  def fit(self, experiments: Sequence[Experiment]) -> "_TextProtocol":
    return self if self.length else dataclasses.replace(
        self, length=min(e.data.length for e in experiments))

  def for_curves(self) -> "_TextProtocol":
    return dataclasses.replace(self, percent=min(self.percent, _OF_CURVES))

  def rows(self, run: Run,
           examples_per_row: int = EXAMPLES_PER_ROW) -> ItemRows:
    """Of a protocol with a length and a run with a corpus."""
    corpus, vocabulary = run.prepared.corpus.held_out, run.recipe.vocabulary
    documents = scored_documents(corpus, self.part, self.percent)
    return self.kind(corpus, vocabulary,
                     self.cut(documents, vocabulary, self.length), self.length,
                     examples_per_row)

  def measured(self, totals: Totals, rows: ItemRows) -> Score:
    """The score, without protocol and data."""
    raise NotImplementedError

  def data(self, run: Run) -> str:
    if _without_corpus(run):
      return ""
    rows = self.fit([run.experiment]).rows(run)
    return rows.data(self.version, run.prepared.tokenizer)

  # A run is scored while it trains and again at its end.
  @functools.lru_cache(maxsize=2)
  def scorer(self, run: Run) -> Scorer:
    fitted = self.fit([run.experiment])
    if reason := _without_corpus(run):
      return _always(Score(fitted.title, unscorable=reason))
    rows = fitted.rows(run)
    data = rows.data(self.version, run.prepared.tokenizer)
    if reason := obstacle(run, rows, self.question):
      return _always(Score(fitted.title, data, unscorable=reason))
    scorer = ItemScorer(run, rows, self.question)
    return lambda params: dataclasses.replace(
        fitted.measured(scorer(params), rows), protocol=fitted.title, data=data)


def _always(score: Score) -> Scorer:
  return lambda params: score


def _without_corpus(run: Run) -> str:
  vocabulary = run.recipe.vocabulary
  if run.prepared.corpus is None:
    return (f"data={run.experiment.data.choice_name} has no held-out "
            "documents of running text")
  if vocabulary.mask_id in vocabulary.ordinary_ids or vocabulary.mask_id in (
      vocabulary.pad_id, vocabulary.unk_id):
    return "the tokenizer has no token [MASK]"
  return ""


@dataclasses.dataclass(frozen=True)
class MlmProtocol(_TextProtocol):
  """Masked-LM loss of held-out documents with 15% masked: nats per token.

  Of each document 15% of the ordinary tokens, at least one, are masked, and
  all are shown as [MASK], whatever the masking of the training. An item is a
  document.
  """

  question: ClassVar = Question("mlm", "masked_labels")
  kind: ClassVar = MaskedRows
  cut: ClassVar = staticmethod(masked_examples)

  def measured(self, totals: Totals, rows: MaskedRows) -> Score:
    count = totals.weights_I.sum()
    value = totals.nats_I.sum() / count
    return Score(
        "", measure="nats a token", lower_is_better=True,
        values_R=value[None], totals_RI=totals.nats_I[None],
        weights_RI=totals.weights_I[None], further={
            "bits_per_byte": value / math.log(2) * count / rows.masked_bytes,
            "accuracy": totals.hits_I.sum() / count})


@dataclasses.dataclass(frozen=True)
class NspProtocol(_TextProtocol):
  """Accuracy of next-sentence prediction on held-out documents.

  Whether a second text follows the first in its document, or is another's.

  An item is a document with both pairs of its first text, so that answering
  always the same is right for half of every item; see `paired_examples`. No
  token is masked.
  """

  question: ClassVar = Question("nsp", "next_sentence_labels")
  kind: ClassVar = PairRows
  cut: ClassVar = staticmethod(paired_examples)

  def measured(self, totals: Totals, rows: PairRows) -> Score:
    count = totals.weights_I.sum()
    return Score(
        "", measure="accuracy", lower_is_better=False,
        values_R=(totals.hits_I.sum() / count)[None],
        totals_RI=totals.hits_I[None], weights_RI=totals.weights_I[None],
        further={"nats_a_pair": totals.nats_I.sum() / count})
