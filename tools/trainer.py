#!/usr/bin/env python3
"""GLUE's tasks by transformers' own Trainer, beside what `glue` reached.

  python -m bert_jax import MODEL --workdir runs/bert
  python -m bert_jax glue --workdir runs/glue --tasks MRPC,RTE \
      init_from=runs/bert data.folder=glue
  python tools/trainer.py MODEL runs/glue      makes an environment for it

MODEL is a Hugging Face directory. The tasks with results in runs/glue are
trained from it once more, with their options and the same records: examples a
step, passes, rate, warm-up, decay, epsilon, clipping, length. One example a
row, padded to the longest of its batch, as the Trainer does by itself. Every
seed is kept in runs/glue/trainer.jsonl as it ends and is not trained again.
"""

import argparse
import json
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time

import numpy as np

from beside import environment, print_table

ROOT = pathlib.Path(__file__).resolve().parents[1]
SPLITS = "train", "dev"


def main():
  parser = argparse.ArgumentParser(
      description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
  parser.add_argument("model", type=pathlib.Path)
  parser.add_argument("results", type=pathlib.Path,
                      help="the workdir of `bert_jax glue`")
  parser.add_argument("--tasks", help="separated by commas (all with results)")
  parser.add_argument("--seeds", type=int,
                      help="of each task, from the first on (all of them)")
  parser.add_argument("--python", help="an interpreter with torch, "
                      "transformers and accelerate, in place of an environment")
  parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
  args = parser.parse_args()
  if args.serve:
    return serve(args.model, args.results)
  sys.path.insert(0, str(ROOT))
  python = args.python or environment(
      "trainer", ["torch", "transformers[torch]>=5"])
  results = {path.parent.name: json.loads(path.read_text())
           for path in sorted(args.results.glob("*/result.json"))}
  names = args.tasks.split(",") if args.tasks else list(results)
  missing = [name for name in names if name not in results]
  if missing or not results:
    parser.error(f"no {args.results}/{(missing or ['TASK'])[0]}/result.json: "
                 "`bert_jax glue` writes it")
  rows = []
  for name in names:
    rows += compare(args, python, name, results[name])
  print_table(["task", "metric", "bert_jax: median", "each seed",
               "Trainer: median", "each seed"], rows)


def compare(args, python, name, result):
  """Trains what is not kept yet; returns the table's lines of a task."""
  from bert_jax import config
  from bert_jax.data.labeled import glue
  from bert_jax.experiment import Experiment
  from bert_jax.studies.glue_table import chosen_rate

  experiment = config.override(Experiment(), result["options"])
  data = experiment.data
  sets = {split: glue.read(data.folder, name, split, data.bad_records)
          for split in SPLITS}
  rate = chosen_rate(result)
  ours = sorted((o for o in result["results"] if o["learning_rate"] == rate),
                key=lambda outcome: outcome["seed"])
  protocol = protocol_of(experiment, rate)
  kept = args.results / "trainer.jsonl"
  known = [json.loads(line) for line in kept.read_text().splitlines()
           ] if kept.exists() else []
  theirs = []
  for outcome in ours[:args.seeds]:
    key = {"task": name, "seed": outcome["seed"], "protocol": protocol}
    at = [line for line in known if {k: line[k] for k in key} == key]
    if not at:
      at = [key | train(args, python, sets, key)]
      with kept.open("a") as file:
        file.write(json.dumps(at[0]) + "\n")
    theirs.append(at[0])
    print(f"{name}, seed {key['seed']}: {at[0]['scores']}, "
          f"{at[0]['seconds']:.0f} s", file=sys.stderr)
  percents = lambda values: " ".join(f"{100 * value:.1f}" for value in values)
  lines = []
  for metric in result["metrics"]:
    a, b = ([o["scores"][metric] for o in side] for side in (ours, theirs))
    lines.append([name, metric, percents([statistics.median(a)]), percents(a),
                  percents([statistics.median(b)]), percents(b)])
  return lines


def protocol_of(experiment, rate):
  """The arguments of transformers.TrainingArguments, and the length."""
  optimizer, schedule = experiment.optimizer, experiment.schedule
  required = {"optimizer": "adamw", "schedule": "linear", "adapter": "none"}
  for option, choice in required.items():
    given = getattr(experiment, option).choice_name
    if given != choice:
      sys.exit(f"{option}={given}: the Trainer is set up for {choice}.")
  duration = ({"max_steps": experiment.steps} if experiment.epochs is None
              else {"num_train_epochs": experiment.epochs})
  return {"length": experiment.data.length, **duration,
          "per_device_train_batch_size": experiment.examples_per_batch,
          "learning_rate": rate, "lr_scheduler_type": "linear",
          "warmup_steps": schedule.warmup_fraction,
          "weight_decay": optimizer.weight_decay, "adam_beta1": optimizer.b1,
          "adam_beta2": optimizer.b2, "adam_epsilon": optimizer.eps,
          "max_grad_norm": optimizer.clip_norm}


def train(args, python, sets, key):
  """One seed by the Trainer, scored by the same metrics as ours."""
  with tempfile.TemporaryDirectory() as folder:
    folder = pathlib.Path(folder)
    number = not sets["train"].label_names
    task = key | {"classes": 1 if number else len(sets["train"].label_names)}
    for split, labeled in sets.items():
      task[split] = [labeled.texts_a, labeled.texts_b,
                     labeled.labels.tolist()]
    (folder / "task.json").write_text(json.dumps(task))
    start = time.monotonic()
    subprocess.run([python, __file__, "--serve", args.model, folder],
                   check=True)
    seconds = time.monotonic() - start
    predictions = np.load(folder / "predictions.npy")
  scores = sets["dev"].scores(predictions[:, 0] if number else predictions)
  return {"scores": scores, "seconds": seconds}


def serve(model, folder):
  """In the other environment: trains, and writes what it predicts of dev."""
  import torch
  from transformers import (
      AutoModelForSequenceClassification, AutoTokenizer,
      DataCollatorWithPadding, Trainer, TrainingArguments, set_seed)

  task = json.loads((folder / "task.json").read_text())
  protocol, tokenizer = task["protocol"], AutoTokenizer.from_pretrained(model)
  length, sets = protocol.pop("length"), {}
  for split in SPLITS:
    first, second, labels = task[split]
    texts = tokenizer(first, second, truncation=True, max_length=length)
    sets[split] = [dict(zip((*texts, "labels"), row))
                   for row in zip(*texts.values(), labels)]
  set_seed(task["seed"])
  network = AutoModelForSequenceClassification.from_pretrained(
      model, num_labels=task["classes"])
  trainer = Trainer(
      model=network, data_collator=DataCollatorWithPadding(tokenizer),
      train_dataset=sets["train"],
      args=TrainingArguments(
          output_dir=str(folder / "trainer"), seed=task["seed"],
          save_strategy="no", report_to=[], logging_steps=25,
          use_cpu=not torch.cuda.is_available(), **protocol))
  trainer.train()
  np.save(folder / "predictions.npy", trainer.predict(sets["dev"]).predictions)


if __name__ == "__main__":
  sys.exit(main())
