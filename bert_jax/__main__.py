"""The commands: `python -m bert_jax COMMAND --help`."""

import argparse
import dataclasses
import json
import math
import pathlib
import signal
import sys
import traceback
from collections.abc import Sequence
from typing import get_args

import numpy as np
import rich.console

from bert_jax import (
    checkpoint, compiled, config, embed, evaluate, glue, hosts, loop,
    quickstart, replay, show, sweep, writers)
from bert_jax.config import UserError
from bert_jax.data import documents
from bert_jax.data.datasets import TextData, cache_directory
from bert_jax.experiment import Experiment
from bert_jax.interop import exporting, imported, sources


def main(arguments: Sequence[str] | None = None) -> int:
  """Runs a command; 1 after a mistake of the user, which is explained."""
  parser = _parser()
  options, rest = parser.parse_known_args(arguments)
  # Overrides may also stand behind flags.
  if rest:
    if not hasattr(options, "overrides") or not all(
        "=" in word and word[0] != "-" for word in rest):
      parser.error(f"unrecognized arguments: {' '.join(rest)}")
    options.overrides += rest
  compiled.keep(cache_directory() / "compiled")
  try:
    if hasattr(options, "coordinator"):
      hosts.start(options.coordinator, options.processes, options.process)
    options.run(options)
  except (UserError, OSError) as error:
    told = hosts.part(str(error))
    print(f"bert-jax {options.command}: {told}", file=sys.stderr)
    return 1
  except loop.Stopped as stopped:
    print(f"bert-jax {options.command}: {stopped}", file=sys.stderr)
    return 128 + signal.SIGTERM
  except KeyboardInterrupt:
    print(hosts.part("Stopped; the same command goes on from the last "
                     "checkpoint."), file=sys.stderr)
    return 130
  except Exception:
    hosts.part(traceback.format_exc())
    raise
  return 0


def _parser() -> argparse.ArgumentParser:
  parser = argparse.ArgumentParser(
      prog="bert-jax", description="BERT in JAX, from raw text to a solved "
      "task. Experiments are config pages; key=value overrides any option.")
  commands = parser.add_subparsers(dest="command", required=True)

  def command(name: str, run, summary: str) -> argparse.ArgumentParser:
    found = commands.add_parser(name, help=summary, description=summary)
    found.set_defaults(run=run)
    return found

  for name, run, summary in (
      ("pretrain", _train, "Pretrain on text."),
      ("finetune", _train, "Train on a labelled task, from the parameters of "
       "init_from=WORKDIR where that is given.")):
    training = command(name, run, summary)
    _add_page(training)
    training.add_argument("--workdir", required=True, help="for checkpoints, "
                          "metrics and pictures; a run there goes on")
    _add_hosts(training)
  sweeping = command("sweep", _sweep, "Train on a labelled task with several "
                     "seeds and rates at once.")
  _add_page(sweeping)
  _add_members(sweeping)
  suite = command("glue", _glue, "Fine-tune on every task of GLUE with several "
                  "seeds, from init_from=WORKDIR: one table.")
  suite.add_argument("overrides", nargs="*", metavar="key=value",
                     help="of the page, as in data.folder=glue")
  suite.add_argument("--page", default="glue", help="a config page with "
                     "data=glue; default glue")
  suite.add_argument("--tasks", type=_words, default=(), metavar="A,B",
                     help="as MRPC,RTE; default: those whose files are there")
  _add_members(suite)
  evaluation = command("evaluate", _evaluate, "Scores on held-out data.")
  _add_workdir(evaluation)
  evaluation.add_argument("overrides", nargs="*", metavar="key=value",
                          help="as in data.evaluation=test.tsv")
  _add_hosts(evaluation)
  replaying = command("replay", _replay, "The batch of a step as text: what "
                      "was masked, and the loss of each row.")
  _add_workdir(replaying)
  replaying.add_argument("--step", type=int, required=True,
                         help="as the logs number it, from 1")
  replaying.add_argument("--rows", type=int, default=8, help="shown at most, "
                         "those of the largest loss first; default 8")
  replaying.add_argument("--nearest", action="store_true", help="take the "
                         "parameters of the latest checkpoint before the step "
                         "rather than run the steps between them again")
  replaying.add_argument("overrides", nargs="*", metavar="key=value",
                         help="of the layout, as in layout.data=1")
  prediction = command("predict", _predict, "Labels and probabilities beside "
                       "the rows of a file.")
  _add_workdir(prediction)
  prediction.add_argument("input", help="TSV, CSV, JSON lines, CoNLL or "
                          "tfds:NAME:SPLIT, with the columns of the training "
                          "data; labels are not needed")
  prediction.add_argument("--output", required=True,
                          help="a .tsv, .csv or .jsonl file, or for SQuAD a "
                          ".json file as its scripts read")
  prediction.add_argument("overrides", nargs="*", metavar="key=value",
                          help="as in data.columns.text=review")
  _add_hosts(prediction)
  embedding = command("embed", _embed, "Hidden states or pooled output of "
                      "texts.")
  _add_workdir(embedding)
  embedding.add_argument("texts", nargs="*", help="texts; - reads one a line "
                         "from standard input")
  embedding.add_argument("--output", help="an .npz file; without it the "
                         "vectors are printed as JSON lines")
  embedding.add_argument("--layer", type=int, default=-1,
                         help="0: the embeddings, -1: the last (default)")
  embedding.add_argument("--pooling", default="mean", help="mean (default), "
                         "cls, pooled or tokens")
  embedding.add_argument("--normalize", action="store_true",
                         help="each vector to the length 1")
  importing = command("import", _import, "A work directory of weights from "
                      "Hugging Face or Google, which init_from, embed, "
                      "evaluate and predict use like that of a run.")
  importing.add_argument("source", help="a directory of Hugging Face's "
                         "(config.json) or Google's (bert_config.json), or "
                         "ORGANISATION/NAME on Hugging Face's hub")
  importing.add_argument("--workdir", required=True)
  importing.add_argument("--tokenizer", default="", help="another directory, "
                         "or a vocab.txt, to take the tokenizer from")
  outwards = command("export", _export, "A directory that Hugging Face's "
                     "transformers loads, with a model card.")
  _add_workdir(outwards)
  outwards.add_argument("directory", help="is made, or is empty")
  outwards.add_argument("--family", default="auto",
                        choices=get_args(exporting.Family),
                        help="whose names the network gets; auto (default): "
                        "RoBERTa's if the tokenizer is, else BERT's")
  for field in dataclasses.fields(exporting.Told):
    outwards.add_argument(
        f"--{field.name.replace('_', '-')}", default=field.default,
        metavar="TEXT", help=f"for the card: {field.metadata['help']}")
  for noun, verb, run, summary in (
      ("tokenizer", "train", _tokenizer, "Train a page's tokenizer."),
      ("corpus", "build", _corpus, "Build a page's corpus.")):
    group = command(noun, None, summary)
    making = group.add_subparsers(dest="verb", required=True).add_parser(
        verb, help=summary, description=summary)
    making.set_defaults(run=run)
    _add_page(making)
    if noun == "tokenizer":
      making.add_argument("--output", required=True,
                          help="a .model or vocab.txt file")
  showing = command("show", _show, "The composed experiment, its size, how it "
                    "differs from BERT-base as published, and how it lies on "
                    "devices.")
  _add_page(showing)
  showing.add_argument("--devices", type=_positive, help="lay it on so many "
                       "devices, which need not be there")
  showing.add_argument("--memory", type=_positive, metavar="GB",
                       help="of each device")
  quick = command("quickstart", _quickstart, "Pretrain on the documentation "
                  "that Python carries, then solve a task with it.")
  quick.add_argument("--workdir", default="runs/quickstart")
  quick.add_argument("--seeds", type=int, default=3)
  return parser


def _add_page(parser: argparse.ArgumentParser) -> None:
  parser.add_argument("page", help="a config page: a file, or a name in "
                      "configs/")
  parser.add_argument("overrides", nargs="*", metavar="key=value",
                      help="as in model.num_hidden_layers=6")


def _add_members(parser: argparse.ArgumentParser) -> None:
  parser.add_argument("--workdir", required=True,
                      help="for results, tables and pictures")
  parser.add_argument("--seeds", type=_positive, default=5, metavar="N",
                      help="so many of each rate; default 5")
  parser.add_argument("--rates", type=_numbers, default=(), metavar="X,Y",
                      help="peak learning rates, as 1e-4,3e-4; default: the "
                      "page's")
  parser.add_argument("--at-once", type=_positive, metavar="N", help="so many "
                      "run together; default: as devices have memory for")


def _add_workdir(parser: argparse.ArgumentParser) -> None:
  parser.add_argument("workdir", help="of a run that has saved a checkpoint")


def _add_hosts(parser: argparse.ArgumentParser) -> None:
  group = parser.add_argument_group(
      "several hosts", "Each runs the same command. On a TPU slice, on TPUs of "
      "GKE and under srun they find each other; elsewhere, give all three.")
  group.add_argument("--coordinator", default="", metavar="HOST:PORT",
                     help="of process 0: a free port there")
  group.add_argument("--processes", type=int, metavar="N",
                     help="how many there are; 1: this one is alone")
  group.add_argument("--process", type=int, metavar="I",
                     help="which one this is, from 0")


def _say(text: str) -> None:
  if hosts.first():
    print(text)


def _page(options: argparse.Namespace) -> tuple[Experiment, config.Page]:
  page = config.load_page(options.page)
  return checkpoint.resolve(page.experiment, options.overrides), page


def _train(options: argparse.Namespace) -> None:
  experiment, page = _page(options)
  if (options.command == "finetune") != (
      experiment.objective.label_kind is not None):
    other = "pretrain" if options.command == "finetune" else "finetune"
    raise UserError(f"objective={experiment.objective.choice_name} is a matter "
                    f"for `bert-jax {other}`.")
  for change in config.changes(page.experiment, experiment):
    _say(f"differs from {options.page}: {change}")
  result = loop.train(experiment, options.workdir, page.source)
  _say(writers.table(["held out", "value"], list(result.scores.items())))


def _sweep(options: argparse.Namespace) -> None:
  experiment, page = _page(options)
  for change in config.changes(page.experiment, experiment):
    print(f"differs from {options.page}: {change}")
  print(sweep.run(experiment, pathlib.Path(options.workdir), options.seeds,
                  options.rates, options.at_once))


def _glue(options: argparse.Namespace) -> None:
  experiment, _ = _page(options)
  print(glue.run(glue.Suite(
      experiment, pathlib.Path(options.workdir), options.tasks, options.seeds,
      options.rates, options.at_once)))


def _evaluate(options: argparse.Namespace) -> None:
  scores = evaluate.of_workdir(options.workdir, options.overrides)
  _say(writers.table(["held out", "value"], list(scores.items())))


def _replay(options: argparse.Namespace) -> None:
  if options.rows < 1:
    raise UserError(f"--rows {options.rows}: at least 1.")
  found = replay.replay(options.workdir, options.step, options.nearest,
                        options.overrides)
  rich.console.Console().print(replay.text(found, options.rows),
                               soft_wrap=True, highlight=False)


def _predict(options: argparse.Namespace) -> None:
  count = evaluate.predict_file(options.workdir, options.input, options.output,
                                options.overrides)
  _say(f"{count} predictions in {options.output}")


def _embed(options: argparse.Namespace) -> None:
  texts = [line for text in options.texts for line in (
      sys.stdin.read().splitlines() if text == "-" else [text])]
  if not texts:
    raise UserError("Give texts, or - to read one a line.")
  vectors = embed.embed(checkpoint.read(options.workdir), texts,
                        layer=options.layer, pooling=options.pooling,
                        normalize=options.normalize)
  if not options.output:
    for text, vector in zip(texts, vectors):
      print(json.dumps({"text": text, "vector": vector.tolist()}))
    return
  arrays = ({f"text_{i}": v for i, v in enumerate(vectors)}
            if options.pooling == "tokens" else {"vectors": np.stack(vectors)})
  np.savez(options.output, texts=np.array(texts), **arrays)
  print(f"{len(texts)} texts in {options.output}")


def _import(options: argparse.Namespace) -> None:
  found = sources.read(options.source, options.tokenizer)
  experiment = imported.save(found, options.workdir)
  print(f"{options.workdir}: {found.parameters:,} parameters, objective="
        f"{experiment.objective.choice_name}")


def _export(options: argparse.Namespace) -> None:
  told = exporting.Told(**{
      field.name: getattr(options, field.name)
      for field in dataclasses.fields(exporting.Told)})
  architecture = exporting.export(options.workdir, options.directory, told,
                                  options.family)
  print(f"{options.directory}: {architecture}")


def _text(options: argparse.Namespace) -> TextData:
  experiment, _ = _page(options)
  if not isinstance(experiment.data, TextData):
    raise UserError(f"{options.page} has data={experiment.data.choice_name}, "
                    "which is no running text; set data=text and "
                    "data.text=...")
  return experiment.data


def _tokenizer(options: argparse.Namespace) -> None:
  data = _text(options)
  tokenizer = data.tokenizer.build(
      sentence for document in documents.read(data.text)
      for sentence in document.sentences)
  pathlib.Path(options.output).write_bytes(tokenizer.file())
  print(f"{tokenizer.vocabulary.size} pieces in {options.output}")


def _corpus(options: argparse.Namespace) -> None:
  data = _text(options)
  splits = data.prepare(0, None, None, ()).corpus
  print(writers.table(
      ["part", "documents", "sentences", "tokens"],
      [[name, *(f"{split.counts[k]:,}"
                for k in ("documents", "sentences", "tokens"))]
       for name, split in (("train", splits.train),
                           ("held out", splits.heldout))]))


def _positive(word: str) -> int:
  """The type of a flag that counts."""
  if not word.isdecimal() or int(word) < 1:
    raise argparse.ArgumentTypeError(f"{word}: a whole number, at least 1.")
  return int(word)


def _words(word: str) -> tuple[str, ...]:
  """The type of a flag that lists names."""
  return tuple(word.split(","))


def _numbers(word: str) -> tuple[float, ...]:
  """The type of a flag that lists positive numbers."""
  try:
    found = tuple(map(float, word.split(",")))
  except ValueError:
    found = (math.nan,)
  if not all(0 < number < math.inf for number in found):
    raise argparse.ArgumentTypeError(f"{word}: numbers above 0, as 1e-4,3e-4.")
  return found


def _show(options: argparse.Namespace) -> None:
  experiment, page = _page(options)
  print(show.describe(
      experiment, page.experiment, page.docstring, options.devices,
      options.memory and options.memory * 10**9))


def _quickstart(options: argparse.Namespace) -> None:
  quickstart.run(pathlib.Path(options.workdir), options.seeds)


if __name__ == "__main__":
  sys.exit(main())
