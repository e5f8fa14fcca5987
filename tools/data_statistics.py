"""Google's pairs and masks on a million rows, each beside its sampling error.

  python tools/data_statistics.py --text embedded --rows 1000000

Prints what was drawn, what is expected and the deviation in standard errors;
exits with 1 if one is above 4.5 (by chance: once in 100,000 times).
"""

import argparse
import dataclasses
import itertools
import math
import pathlib
import sys
import tempfile
from collections.abc import Iterator

import numpy as np

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

from bert_jax.data.batches import loader
from bert_jax.data.batches.examples import Examples
from bert_jax.data.pretraining import corpus_builder
from bert_jax.data.pretraining.formats import PairsFormat
from bert_jax.data.pretraining.rows import PretrainingRows
from bert_jax.data.tokenizers.choices import SentencePieceTokenizer
from bert_jax.objectives.masking import TokenMasking
from bert_jax.training.step import row_keys

ALLOWED_DEVIATION = 4.5


@dataclasses.dataclass(frozen=True)
class Check:
  """A mean of `count` independent draws beside its expectation."""

  name: str
  measured: float
  expected: float
  spread: float  # standard deviation of one draw; 0: has to be exact
  count: int

  @property
  def error(self) -> float:
    return self.spread / math.sqrt(self.count)

  @property
  def deviation(self) -> float:
    """In standard errors."""
    difference = abs(self.measured - self.expected)
    if not difference:
      return 0.0
    return difference / self.error if self.error else math.inf

  @property
  def passed(self) -> bool:
    return self.deviation <= ALLOWED_DEVIATION

  def __str__(self) -> str:
    return (f"{self.name:<58} {self.measured:9.5f} {self.expected:9.5f} "
            f"{self.error:8.5f} {self.deviation:5.1f} {self.count:9,} "
            f"{'PASS' if self.passed else 'FAIL'}")


def share(name: str, events: np.ndarray, expected: float) -> Check:
  return Check(name, float(events.mean()), expected,
               math.sqrt(expected * (1 - expected)), len(events))


def epochs_of(rows: PretrainingRows, count: int) -> tuple[Examples, np.ndarray]:
  """The first `count` examples, epoch after epoch, and their epochs."""
  blocks, examples = [], 0
  for epoch in itertools.count():
    blocks.append(rows.examples(epoch))
    examples += len(blocks[-1])
    if examples >= count:
      break
  epoch_X = np.repeat(np.arange(len(blocks)), [len(b) for b in blocks])
  return Examples.concatenate(blocks), epoch_X


def pair_checks(rows: PretrainingRows, count: int) -> Iterator[Check]:
  """What create_pretraining_data draws, as it came out in `count` examples."""
  examples, epoch_X = epochs_of(rows, count)
  maximum = rows.format.maximum(rows.length)
  token_starts_U = rows.corpus.sentence_starts_S1[
      rows.corpus.document_starts_U1[:-1]]
  a_document_X, b_document_X = (
      np.searchsorted(token_starts_U, start_X, side="right") - 1
      for start_X in (examples.a_start_X, examples.b_start_X))
  random_X = examples.is_random_X
  choice_X = examples.sentences_X > 1
  total_X = examples.a_length_X + examples.b_length_X

  yield share("random next, where there is a choice", random_X[choice_X], 0.5)
  yield Check("random next, where the chunk is one sentence",
              random_X[~choice_X].mean() if not choice_X.all() else 1.0, 1, 0,
              max(1, (~choice_X).sum()))
  if len(token_starts_U) > 1:
    yield Check("random B is of another document",
                (a_document_X != b_document_X)[random_X].mean(), 1, 0,
                random_X.sum())
  yield Check("true B is of the same document and comes after A",
              ((a_document_X == b_document_X) & (
                  examples.b_start_X >= examples.a_start_X
                  + examples.a_length_X))[~random_X].mean(), 1, 0,
              (~random_X).sum())
  yield Check("A and B fit and neither is empty",
              ((total_X <= maximum) & (examples.a_length_X > 0)
               & (examples.b_length_X > 0)).mean(), 1, 0, len(examples))

  target_X = examples.target_X
  if rows.format.short_seq_per == "document":
    draw = epoch_X * len(token_starts_U) + a_document_X
    target_X = target_X[np.unique(draw, return_index=True)[1]]
  # A short length is drawn from 2 to the maximum, which is not short.
  lengths = maximum - 1
  yield share(f"short lengths drawn (one for each {rows.format.short_seq_per})",
              target_X < maximum,
              rows.format.short_seq_prob * (lengths - 1) / lengths)
  short = target_X[target_X < maximum]
  yield Check("mean of the short lengths", short.mean(), (2 + maximum - 1) / 2,
              math.sqrt(((lengths - 1)**2 - 1) / 12), len(short))


def masking_checks(rows: PretrainingRows, count: int) -> Iterator[Check]:
  """What BERT's masking drew in `count` rows, batch after batch."""
  import jax

  masking, size = TokenMasking(), 4096
  ordinary_V = np.zeros(rows.vocabulary.size, bool)
  ordinary_V[rows.vocabulary.ordinary_ids] = True
  apply = jax.jit(lambda step, batch: masking.apply(
      batch, row_keys(jax.random.fold_in(jax.random.key(1), step),
                      batch["row"]), rows.vocabulary))
  labels, shown, right_number, tokens, chosen = [], [], [], 0, 0
  steps = -(-count // size)
  for step, batch in enumerate(loader.batches(rows, size, 0, steps)):
    out = jax.device_get(apply(step, batch))
    chosen_BP = out["masked_weights"] > 0
    tokens_B = (batch["example_ids"] > 0).sum(-1)
    labels.append(out["masked_labels"][chosen_BP])
    shown.append(np.take_along_axis(out["input_ids"], out["masked_positions"],
                                    axis=-1)[chosen_BP])
    right_number.append(chosen_BP.sum(-1) == np.clip(
        np.round(np.float32(0.15) * tokens_B.astype(np.float32)), 1,
        masking.predictions_per_row(rows.length)))
    tokens, chosen = tokens + tokens_B.sum(), chosen + chosen_BP.sum()
  label, show = np.concatenate(labels), np.concatenate(shown)
  kept = 0.1 + 0.1 / ordinary_V.sum()
  yield Check("rows with 15% of their tokens chosen, rounded, at least one",
              np.concatenate(right_number).mean(), 1, 0, steps * size)
  yield Check("chosen tokens that are not special", ordinary_V[label].mean(),
              1, 0, len(label))
  yield share("chosen tokens shown as [MASK]", show == rows.vocabulary.mask_id,
              0.8)
  yield share("chosen tokens shown as they are", show == label, kept)
  yield share("chosen tokens shown as another one",
              (show != label) & (show != rows.vocabulary.mask_id), 0.2 - kept)
  print(f"share of all tokens that were chosen: {chosen / tokens:.4f}")


def describe(rows: PretrainingRows, count: int) -> str:
  """Figures that follow from the text rather than from the draws alone."""
  examples, _ = epochs_of(rows, count)
  maximum = rows.format.maximum(rows.length)
  return (f"random next in all examples {examples.is_random_X.mean():.4f}; "
          f"chunks of one sentence {(examples.sentences_X == 1).mean():.4f}; "
          "examples with a short length "
          f"{(examples.target_X < maximum).mean():.4f}; "
          f"full {(examples.lengths_X == rows.length).mean():.4f}; "
          f"tokens of A {examples.a_length_X.mean():.1f}, "
          f"of B {examples.b_length_X.mean():.1f}")


def main():
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument("--text", default="embedded")
  parser.add_argument("--rows", type=int, default=1_000_000)
  parser.add_argument("--length", type=int, default=128)
  parser.add_argument("--seed", type=int, default=0)
  parser.add_argument("--short-seq-per", default="document",
                      choices=("document", "example"))
  options = parser.parse_args()
  with tempfile.TemporaryDirectory() as folder:
    splits = corpus_builder.prepare(options.text, SentencePieceTokenizer(),
                                    folder, 0.0)
    rows = PretrainingRows(
        splits.train, splits.tokenizer.vocabulary,
        PairsFormat(short_seq_per=options.short_seq_per), options.length,
        examples_per_row=1, seed=options.seed)
    print(f"{'':58} {'measured':>9} {'expected':>9} {'error':>8} "
          f"{'dev.':>5} {'draws':>9}")
    checks = [*pair_checks(rows, options.rows),
              *masking_checks(rows, options.rows)]
    print(*checks, describe(rows, options.rows), sep="\n")
  sys.exit(not all(check.passed for check in checks))


if __name__ == "__main__":
  main()
