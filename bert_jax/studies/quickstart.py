"""The main job in small: read text, then solve a task the better for it.

A network reads the documentation that every installation carries, and then
has to find the words that its authors marked as code, the marks taken away,
against the same network that never read anything and against a lexicon.
"""

import collections
import pathlib
import statistics
import time

import numpy as np

from bert_jax import config, files
from bert_jax.checkpoints.reading import resolve_experiment
from bert_jax.data.labeled.tagging import TaggingSet
from bert_jax.data.pretraining.corpus import Splits
from bert_jax.data.sources import CodeWordsData
from bert_jax.metrics import entities
from bert_jax.reporting import markdown, plots
from bert_jax.runs import train as train_lib
from bert_jax.training import programs

SCORE = "entity_f1"


def run(workdir: pathlib.Path, seeds: int) -> str:
  """Pretrains, fine-tunes with several seeds, and reports what came out.

  Writes report.md, task.png and, of every training, metrics and curves below
  `workdir`; what was finished by an earlier call is not done again.

  Returns:
    The report, in Markdown.
  """
  if (workdir / "report.md").exists():
    report = (workdir / "report.md").read_text()
    print(f"{report}\nThis was done before; remove {workdir} to do it again.")
    return report
  begun = time.monotonic()
  print("1. Pretraining on the documentation of the installed packages, in "
        "short rows, then in longer ones.")
  short, long = (config.load_page(name)
                 for name in ("quickstart", "quickstart_long"))
  train_lib.train(short.experiment, workdir / "short", short)
  pretrained = train_lib.train(
      resolve_experiment(long.experiment, [f"init_from={workdir}/short"]),
      workdir / "long", long)
  unigram = unigram_loss(pretrained.run.prepared.corpus)
  loss = pretrained.scores["mlm_loss"]
  print(f"Held-out masked-LM loss {loss:.3f} nats; of a unigram model "
        f"{unigram:.3f}.")
  print(f"2. Fine-tuning: which words are code? {seeds} seeds each.")
  task = config.load_page("quickstart_task").experiment
  results = {"lexicon": [lexicon(task.data)]}
  with programs.shared():
    for name, from_scratch in (("from scratch", True), ("pretrained", False)):
      results[name] = [train_lib.train(resolve_experiment(task, [
          f"init_from={workdir}/long", f"seed={seed}",
          f"from_scratch={from_scratch}"]),
          workdir / f"{name.replace(' ', '_')}_{seed}").scores[SCORE]
                       for seed in range(seeds)]
  report = "\n\n".join([
      f"Held-out masked-LM loss of the pretrained network: {loss:.3f} nats "
      f"({pretrained.scores['bits_per_byte']:.3f} bits per byte); of a unigram "
      f"model: {unigram:.3f} nats.",
      _table(results),
      f"{(time.monotonic() - begun) / 60:.1f} minutes."])
  files.write_text(workdir / "report.md", report + "\n")
  plots.plot_table(results, workdir / "task.png",
                   "Which words are code? Held-out names", "entity F1")
  print(f"{report}\nPictures: {workdir}/short/curves.png, "
        f"{workdir}/long/curves.png, {workdir}/task.png")
  return report


def _table(results: dict[str, list[float]]) -> str:
  """Mean and standard deviation over the seeds of each variant."""
  return markdown.table(
      ["variant", "entity F1", "standard deviation", "seeds"],
      [[name, f"{statistics.mean(values):.3f}",
        f"{statistics.stdev(values):.3f}" if len(values) > 1 else "-",
        str(len(values))] for name, values in results.items()])


def unigram_loss(splits: Splits) -> float:
  """Nats a held-out token costs by the frequencies of training (plus one)."""
  counts = lambda tokens_T: np.bincount(
      tokens_T, minlength=splits.train.vocabulary_size)
  frequency_V = counts(splits.train.tokens_T) + 1
  held_out_V = counts(splits.held_out.tokens_T)
  nats_V = -np.log(frequency_V / frequency_V.sum())
  return float((held_out_V * nats_V).sum() / held_out_V.sum())


def lexicon(data: CodeWordsData) -> float:
  """The score of giving each word the tag it mostly has in training."""
  train, evaluation = data.sets(TaggingSet, ())
  most = most_frequent_tags(train)
  outside = train.label_names.index("O")
  names = lambda tags: [train.label_names[t] for t in tags]
  return entities.entity_scores(
      [names(tags) for tags in evaluation.labels],
      [names(most.get(word, outside) for word in words)
       for words in evaluation.words],
      entities.scheme_of(train.label_names))[SCORE]


def most_frequent_tags(labeled: TaggingSet) -> dict[str, int]:
  """The most frequent tag of each word."""
  counts = collections.defaultdict(collections.Counter)
  for words, tags in zip(labeled.words, labeled.labels):
    for word, tag in zip(words, tags.tolist()):
      counts[word][tag] += 1
  return {word: tags.most_common(1)[0][0] for word, tags in counts.items()}
