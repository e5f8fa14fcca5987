"""Fine-tuning as whole commands, start to end: this project's, and one by
transformers' Trainer with the same records, passes, batches and rate."""

import json
import os
import pathlib
import subprocess
import sys
import time

HERE = pathlib.Path(__file__).resolve().parent
RATE, BATCH, LENGTH = 1e-4, 32, 64


def project(python, checkout, model, folder, given, cores, number):
  """Seconds on the clock and of the cores; `number` names its work directory.

  Args:
    given: a folder with train.tsv and dev.tsv (sentence, label).
  """
  source = folder / "imported"
  if not source.exists():
    _run([python, "-m", "bert_jax", "import", model, "--workdir", source],
         checkout, cores)
  # data.length is of a packed row, which holds several sentences.
  return _run(
      [python, "-m", "bert_jax", "finetune", "task", f"init_from={source}",
       f"data.train={given / 'train.tsv'}",
       f"data.evaluation={given / 'dev.tsv'}", "data.columns.text=sentence",
       "data.columns.label=label", "epochs=1", f"examples_per_batch={BATCH}",
       f"schedule.learning_rate={RATE}", "seed=0",
       "--workdir", folder / f"run{number}"], checkout, cores)


def trainer(python, model, folder, given, cores):
  return _run([python, HERE / "finetuning.py", model, given, folder],
              given, cores)


def _run(words, checkout, cores):
  variables = {**os.environ, "JAX_PLATFORMS": "cpu", "HF_HUB_OFFLINE": "1",
               "OMP_NUM_THREADS": str(len(cores)), "PYTHONPATH": str(checkout)}
  start = time.perf_counter()
  process = subprocess.Popen(
      list(map(str, words)), env=variables, stdout=subprocess.DEVNULL,
      preexec_fn=lambda: os.sched_setaffinity(0, cores))
  _, status, usage = os.wait4(process.pid, 0)
  if status:
    sys.exit(f"{' '.join(map(str, words))}: it failed, see above.")
  return (1000 * (time.perf_counter() - start),
          1000 * (usage.ru_utime + usage.ru_stime))


def train(model, given, folder):
  """By the Trainer: one pass, scored on dev, saved."""
  from transformers import (
      AutoModelForSequenceClassification, AutoTokenizer,
      DataCollatorWithPadding, Trainer, TrainingArguments)

  tokenizer = AutoTokenizer.from_pretrained(model)
  sets = []
  for name in ("train", "dev"):
    lines = (given / f"{name}.tsv").read_text("utf-8").splitlines()[1:]
    texts, labels = zip(*(line.split("\t") for line in lines))
    rows = tokenizer(list(texts), truncation=True, max_length=LENGTH)
    sets.append([dict(zip((*rows, "labels"), row)) for row in
                 zip(*rows.values(), map(int, labels))])
  network = AutoModelForSequenceClassification.from_pretrained(
      model, num_labels=2)
  trained = Trainer(
      model=network, data_collator=DataCollatorWithPadding(tokenizer),
      train_dataset=sets[0], eval_dataset=sets[1],
      args=TrainingArguments(
          output_dir=str(folder / "trainer"), report_to=[], use_cpu=True,
          num_train_epochs=1, per_device_train_batch_size=BATCH,
          learning_rate=RATE, save_strategy="no"))
  trained.train()
  print(json.dumps(trained.evaluate()))
  trained.save_model()


if __name__ == "__main__":
  train(sys.argv[1], *map(pathlib.Path, sys.argv[2:]))
