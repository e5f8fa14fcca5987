"""Tokens a second of a corpus build, rows a second of the loader."""

import importlib.metadata
import json
import os
import statistics
import time

from beside import print_table
from speed.shape import BATCH, LENGTH


def corpus(text, directory):
  """Tokens a second of a corpus build, with the tokenizer's training and
  without; the corpus stays in `directory`."""
  from bert_jax.data.pretraining import corpus_builder
  from bert_jax.data.tokenizers import choices

  corpus_builder.build(text, choices.SentencePieceTokenizer(), directory,
                       1.0)
  facts = json.loads((directory / "corpus.json").read_text())
  tokens = sum(split["tokens"] for split in facts["splits"].values())
  rows = []
  for label, seconds in [
      ("whole build", facts["seconds"]),
      ("tokenizer given", facts["seconds"] - facts["seconds_of_tokenizer"])]:
    rows.append([label, tokens, f"{seconds:.1f}", f"{tokens / seconds:.0f}"])
  print_table(["corpus", "tokens", "s", "tokens a second"], rows)
  print(f"{text}; {len(os.sched_getaffinity(0))} cores; sentencepiece "
        f"{importlib.metadata.version('sentencepiece')}.\n")


def loading(text, directory, rounds):
  """Rows a second of the loader."""
  from bert_jax.data.batches import loader
  from bert_jax.data.pretraining import corpus as built, formats
  from bert_jax.data.pretraining.rows import PretrainingRows

  splits = built.Splits.open(directory)
  table = []
  for format in (formats.PairsFormat(), formats.FullSentencesFormat()):
    made = PretrainingRows(splits.train, splits.tokenizer.vocabulary,
                           format, LENGTH, examples_per_row=1, seed=0)
    start = time.perf_counter()
    made.plan(0)
    planned = time.perf_counter() - start
    batches, rates = loader.batches(made, BATCH, 0, 10**9), []
    for _ in range(rounds):
      start = time.perf_counter()
      for _ in range(200):
        next(batches)
      rates.append(200 * BATCH / (time.perf_counter() - start))
    batches.close()
    rate = statistics.median(rates)
    table.append([format.choice_name, len(made), f"{planned:.2f}",
                  f"{rate:.0f}"])
  print_table(["rows", "in an epoch", "s to plan it", "rows a second"], table)
  print(f"{text}, {LENGTH} tokens a row; medians of {rounds} rounds; "
        f"grain {importlib.metadata.version('grain')}.\n")
