#!/usr/bin/env python3
"""How fast the project is, each kind of work beside something to compare with.

  python tools/bench.py --steps           one training step, this project's
  python tools/bench.py --steps --torch   and PyTorch's, in turns
  python tools/bench.py --corpus          tokens a second of the corpus build
  python tools/bench.py --rows            that, and rows a second of the loader

Times are medians. Steps run in processes that take turns on one core; beside
the time on the clock stands the time the core worked for them, which other
programs on the machine disturb less. The last column divides the latter.
The network is BERT-mini (4 layers of 256), 16 rows of 128 tokens, float32,
dropout .1, masked words and next sentence, clipping and AdamW.
"""

import argparse
import functools
import importlib.metadata
import json
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time

from beside import environment, print_table

BATCH, LENGTH, MASKED, VOCABULARY = 16, 128, 20, 30_522
WIDTH, LAYERS, HEADS, INNER = 256, 4, 4, 1024
ROOT = pathlib.Path(__file__).resolve().parents[1]
CONTENDERS = {
    "bert_jax": "this project",
    "torch_shipped": "PyTorch, transformers as shipped (logits everywhere)",
    "torch_gathered": "PyTorch, logits only where masked",
}


# What a worker process runs: each maker gives a function of no arguments that
# does one step and waits until it is done, and a note of versions.


def make_bert_jax(overrides):
  """The project's own step, from corruption to the update."""
  import jax
  import numpy as np

  from bert_jax import config, experiment
  from bert_jax.model.bert import BertConfig
  from bert_jax.training.step import train_step

  page = experiment.Experiment(
      model=BertConfig(
          vocab_size=VOCABULARY, hidden_size=WIDTH, num_hidden_layers=LAYERS,
          num_attention_heads=HEADS, intermediate_size=INNER),
      batch_size=BATCH, steps=10_000)
  recipe = experiment.recipe(
      config.override(page, overrides), synthetic_vocabulary())
  batch = synthetic_batch()
  batch = {
      "input_ids": batch["input_ids"],
      "token_type_ids": batch["token_type_ids"],
      "position_ids": np.tile(np.arange(LENGTH, dtype=np.int32), (BATCH, 1)),
      "example_ids": np.ones((BATCH, LENGTH), np.int32),
      "cls_positions": np.zeros((BATCH, 1), np.int32),
      "example_mask": np.ones((BATCH, 1), np.float32),
      "next_sentence_labels": batch["next_sentence"][:, None],
      "row": np.arange(BATCH, dtype=np.int32)}
  state = jax.jit(recipe.init)(np.int32(0), batch)
  step = jax.jit(functools.partial(train_step, recipe), donate_argnums=0)

  def run():
    nonlocal state
    state, _ = jax.block_until_ready(step(state, batch))

  return run, f"jax {jax.__version__}"


def make_torch(gathered):
  """Hugging Face's model, with its own loss or with one of gathered logits."""
  import torch
  import transformers

  torch.set_num_threads(1)
  torch.manual_seed(0)
  model = transformers.BertForPreTraining(transformers.BertConfig(
      vocab_size=VOCABULARY, hidden_size=WIDTH, num_hidden_layers=LAYERS,
      num_attention_heads=HEADS, intermediate_size=INNER)).train()
  optimizer = torch.optim.AdamW(model.parameters(), 1e-4, weight_decay=0.01)
  batch = {k: torch.from_numpy(v).long() for k, v in synthetic_batch().items()}
  inputs = {k: batch[k] for k in ("input_ids", "token_type_ids")}
  inputs["attention_mask"] = torch.ones_like(inputs["input_ids"])
  positions, labels = batch["masked_positions"], batch["masked_labels"]
  everywhere = torch.full((BATCH, LENGTH), -100).scatter(1, positions, labels)

  def shipped_loss():
    return model(**inputs, labels=everywhere,
                 next_sentence_label=batch["next_sentence"]).loss

  def gathered_loss():
    output = model.bert(**inputs)
    chosen = output.last_hidden_state.gather(
        1, positions[..., None].expand(-1, -1, WIDTH))
    logits, next_sentence = model.cls(chosen, output.pooler_output)
    entropy = torch.nn.functional.cross_entropy
    return (entropy(logits.flatten(0, 1), labels.flatten())
            + entropy(next_sentence, batch["next_sentence"]))

  def run():
    optimizer.zero_grad()
    (gathered_loss if gathered else shipped_loss)().backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()

  return run, (f"torch {torch.__version__}, "
               f"transformers {transformers.__version__}")


def synthetic_batch():
  """Random tokens, one pair of sentences a row; everything int32."""
  import numpy as np

  rng = np.random.default_rng(0)
  positions = np.stack([np.sort(rng.permutation(LENGTH)[:MASKED])
                        for _ in range(BATCH)])
  ids = rng.integers(1000, VOCABULARY, (BATCH, LENGTH))
  batch = {
      "input_ids": ids,
      "token_type_ids": np.tile(np.arange(LENGTH) >= LENGTH // 2, (BATCH, 1)),
      "masked_positions": positions,
      "masked_labels": np.take_along_axis(ids, positions, 1),
      "next_sentence": rng.integers(2, size=BATCH)}
  return {name: x.astype(np.int32) for name, x in batch.items()}


def synthetic_vocabulary():
  import numpy as np

  from bert_jax.data.tokenizers.vocabulary import Vocabulary

  return Vocabulary(
      size=VOCABULARY, pad_id=0, unk_id=1, cls_id=2, sep_id=3, mask_id=4,
      word_start_V=np.ones(VOCABULARY, bool),
      byte_count_V=np.ones(VOCABULARY, np.int32),
      ordinary_ids=np.arange(5, VOCABULARY, dtype=np.int32))


def work(name, overrides):
  """Answers each line `n` with the time of a step, the mean of n, in ms."""
  answers = os.fdopen(os.dup(1), "w")
  os.dup2(2, 1)  # What libraries print is no answer.
  run, versions = (make_bert_jax(overrides) if name == "bert_jax"
                   else make_torch(name == "torch_gathered"))
  print(versions, file=answers, flush=True)
  for line in sys.stdin:
    clocks = time.perf_counter, time.process_time
    start = [clock() for clock in clocks]
    for _ in range(int(line)):
      run()
    print(*((clock() - t) * 1000 / int(line)
            for clock, t in zip(clocks, start)), file=answers, flush=True)


class Worker:
  """A process pinned to one core."""

  def __init__(self, python, name, core, overrides):
    variables = {**os.environ, "JAX_PLATFORMS": "cpu", "OMP_NUM_THREADS": "1",
                 "PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1"}
    self.process = subprocess.Popen(
        [python, __file__, "--worker", name, *overrides], text=True,
        env=variables, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        preexec_fn=lambda: os.sched_setaffinity(0, {core}))
    self.versions = self._answer()
    self.run(2)  # compiles

  def run(self, steps):
    """Milliseconds a step: on the clock, and of the core."""
    print(steps, file=self.process.stdin, flush=True)
    return tuple(map(float, self._answer().split()))

  def _answer(self):
    line = self.process.stdout.readline()
    if not line:
      sys.exit(f"{self.process.args[3]}: the worker ended, see above.")
    return line.strip()

  def stop(self):
    self.process.stdin.close()
    self.process.wait()


def bench_steps(args):
  """A table of the training step: ours, and PyTorch's on request."""
  contenders = [("bert_jax", CONTENDERS["bert_jax"], sys.executable, [])]
  contenders += [("bert_jax", f"with {o}", sys.executable, o.split())
                 for o in args.variant]
  if args.torch:
    index = ["--index-url", args.torch_index] if args.torch_index else []
    python = environment("torch", [args.torch_requirement, *index],
                         ["transformers"])
    contenders += [(name, CONTENDERS[name], python, [])
                   for name in ("torch_shipped", "torch_gathered")]
  core = max(os.sched_getaffinity(0))
  workers = [Worker(python, name, core, overrides)
             for name, _, python, overrides in contenders]
  times = [[] for _ in workers]
  for _ in range(args.rounds):
    for worker, its_times in zip(workers, times):
      its_times.append(worker.run(args.steps_per_round))
  median = lambda values: statistics.median(list(values))
  print_table(
      ["training step", "ms on the clock", "ms of the core",
       "times this project"],
      [[label, f"{median(t for t, _ in its):.0f}",
        f"{median(t for _, t in its):.0f}",
        f"{median(a / b for (_, a), (_, b) in zip(its, times[0])):.2f}"]
       for (_, label, _, _), its in zip(contenders, times)])
  versions = dict.fromkeys(worker.versions for worker in workers)
  print(f"One core; medians of {args.rounds} rounds of "
        f"{args.steps_per_round} steps; {', '.join(versions)}.\n")
  for worker in workers:
    worker.stop()
  return median(t for _, t in times[0])


def bench_corpus(args, directory):
  """Tokens a second of a corpus build, with the tokenizer's training and
  without; the corpus stays in `directory`."""
  from bert_jax.data.pretraining import corpus_builder
  from bert_jax.data.tokenizers import choices

  corpus_builder.build(args.text, choices.SentencePieceTokenizer(), directory,
                       1.0)
  facts = json.loads((directory / "corpus.json").read_text())
  tokens = sum(split["tokens"] for split in facts["splits"].values())
  rows = []
  for label, seconds in [
      ("whole build", facts["seconds"]),
      ("tokenizer given", facts["seconds"] - facts["seconds_of_tokenizer"])]:
    rows.append([label, tokens, f"{seconds:.1f}", f"{tokens / seconds:.0f}"])
  print_table(["corpus", "tokens", "s", "tokens a second"], rows)
  print(f"{args.text}; {len(os.sched_getaffinity(0))} cores; sentencepiece "
        f"{importlib.metadata.version('sentencepiece')}.\n")


def bench_rows(args, directory, step_ms):
  """Rows a second of the loader beside those that the step eats."""
  from bert_jax.data.batches import loader
  from bert_jax.data.pretraining import corpus, formats
  from bert_jax.data.pretraining.rows import PretrainingRows

  splits = corpus.Splits.open(directory)
  table = []
  for format in (formats.PairsFormat(), formats.FullSentencesFormat()):
    made = PretrainingRows(splits.train, splits.tokenizer.vocabulary,
                           format, LENGTH, examples_per_row=1, seed=0)
    start = time.perf_counter()
    made.plan(0)
    planned = time.perf_counter() - start
    batches, rates = loader.batches(made, BATCH, 0, 10**9), []
    for _ in range(args.rounds):
      start = time.perf_counter()
      for _ in range(200):
        next(batches)
      rates.append(200 * BATCH / (time.perf_counter() - start))
    batches.close()
    rate = statistics.median(rates)
    table.append([format.choice_name, len(made), f"{planned:.2f}",
                  f"{rate:.0f}"])
    if step_ms:
      table[-1].append(f"{rate * step_ms / 1000 / BATCH:.0f}")
  print_table(["rows", "in an epoch", "s to plan it", "rows a second",
               "times what the step eats"][:len(table[0])], table)
  print(f"{args.text}, {LENGTH} tokens a row; medians of {args.rounds} rounds; "
        f"grain {importlib.metadata.version('grain')}.\n")


def main():
  if sys.argv[1:2] == ["--worker"]:
    return work(sys.argv[2], sys.argv[3:])
  parser = argparse.ArgumentParser(
      description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
  parser.add_argument("--steps", action="store_true", help="the training step")
  parser.add_argument("--torch", action="store_true", help=(
      "compare with PyTorch, in an environment of its own that the first\n"
      "call makes in the cache folder"))
  parser.add_argument("--torch-requirement", default="torch==2.13.0")
  parser.add_argument("--torch-index", default="", metavar="URL", help=(
      "where pip finds a CPU build, if not in its usual index"))
  parser.add_argument("--variant", action="append", default=[], metavar="'K=V'",
                      help="also a step with these overrides; repeatable")
  parser.add_argument("--rounds", type=int, default=9)
  parser.add_argument("--steps-per-round", type=int, default=2)
  parser.add_argument("--rows", action="store_true",
                      help="the corpus build and the loader")
  parser.add_argument("--corpus", action="store_true", help="the corpus build")
  parser.add_argument("--text", default="embedded",
                      help=(
      "of --rows and --corpus, as for `corpus build`; default: embedded"))
  args = parser.parse_args()
  if not (args.steps or args.rows or args.corpus):
    parser.error("say what to measure: --steps, --rows, --corpus")
  step_ms = bench_steps(args) if args.steps else None
  if args.corpus or args.rows:
    with tempfile.TemporaryDirectory() as directory:
      bench_corpus(args, pathlib.Path(directory) / "corpus")
      if args.rows:
        bench_rows(args, pathlib.Path(directory) / "corpus", step_ms)


if __name__ == "__main__":
  sys.path.insert(0, str(ROOT))
  main()
