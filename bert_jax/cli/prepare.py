"""Before training: tokenizer, corpus, show; and the quickstart."""

import argparse
import dataclasses
import functools
import json
import pathlib
import shutil
import sys

from bert_jax import files
from bert_jax.analysis import describe
from bert_jax.analysis.topology import page as topology_page
from bert_jax.analysis.topology.chips import Topology
from bert_jax.analysis.topology.prediction import predict
from bert_jax.cli import flags, study
from bert_jax.config import UserError
from bert_jax.data.sources import TextData
from bert_jax.experiment import Experiment
from bert_jax.reporting import markdown
from bert_jax.studies import quickstart


def add(commands: argparse._SubParsersAction) -> None:
  _add_tokenizer(commands)
  _add_corpus(commands)
  showing = flags.command(
      commands, "show", _show, "The composed experiment, how it "
      "differs from BERT-base as published, its size, how long it takes here, "
      "and how it lies on devices.",
      "bert-jax show base model.norm=rms --devices 8 --memory 16\n"
      "bert-jax show base model.dtype=bfloat16 --topology v5e:16x16")
  flags.page(showing)
  showing.add_argument("--devices", type=flags.positive, help="number of "
                       "devices to lay it out on; they need not exist")
  showing.add_argument("--memory", type=flags.positive, metavar="GB",
                       help="memory of each device")
  showing.add_argument("--measure", action="store_true", help="runs some steps "
                       "of it here for the time that they take, which is else "
                       "estimated from the FLOPs")
  predicted = showing.add_argument_group(
      "TPUs that are not here", "The step is compiled for them, which takes "
      "libtpu, and a minute or two.")
  predicted.add_argument("--topology", metavar="CHIP:SHAPE", help="in place "
                         "of all else: the time of a step there and what "
                         "bounds it, as for v5e:16x16 or v5p:4x4x4")
  predicted.add_argument("--slices", type=flags.positive, default=1,
                         metavar="N", help="number of slices of that shape")
  predicted.add_argument("--price", type=float, metavar="DOLLARS",
                         help="of a chip for an hour")
  predicted.add_argument("--json", action="store_true",
                         help="prints an object for programs")
  quick = flags.command(
      commands, "quickstart", _quickstart, "Pretrain a small BERT on the "
      "documentation that Python carries, then fine-tune it to find the words "
      "that are code: some 4 minutes on two CPU cores. What is finished is not "
      "done again by the same command.",
      "bert-jax quickstart --workdir runs/quickstart --seeds 3")
  quick.add_argument("--workdir", default="runs/quickstart",
                     help="for checkpoints, report.md and pictures; default "
                     "runs/quickstart")
  quick.add_argument("--seeds", type=flags.positive, default=3, metavar="N",
                     help="fine-tunings with pretraining, and as many without; "
                     "default 3")


def _add_tokenizer(commands: argparse._SubParsersAction) -> None:
  verbs = _verbs(commands, "tokenizer", "A tokenizer by itself; `pretrain` "
                 "needs none, as it trains one.")
  training = flags.command(
      verbs, "train", _tokenizer, "Trains the tokenizer of a page on its text "
      "and writes it to a file, which other pages take by "
      "data.tokenizer.path.",
      "bert-jax tokenizer train mini data.text='books/*.txt' "
      "--output books.model")
  flags.page(training)
  training.add_argument("--output", required=True,
                        help="a .model or vocab.txt file")


def _add_corpus(commands: argparse._SubParsersAction) -> None:
  verbs = _verbs(commands, "corpus", "A corpus by itself; `pretrain` needs "
                 "none, as it builds one.")
  building = flags.command(
      verbs, "build", _corpus, "Reads the text of a page, splits off what is "
      "held out, and tokenizes both into the cache; prints how much it is. "
      "`pretrain` does it where it was not done: this is to look at the counts "
      "first, or to do it on a machine without accelerators.",
      "bert-jax corpus build mini data.text='books/*.txt'")
  flags.page(building)


def _verbs(commands: argparse._SubParsersAction, noun: str,
           summary: str) -> argparse._SubParsersAction:
  """Of a command that only has commands of its own."""
  group = flags.command(commands, noun, None, summary)
  group.set_defaults(run=functools.partial(_print_help, group))
  return group.add_subparsers(dest="verb", metavar="COMMAND")


def _print_help(parser: argparse.ArgumentParser, _: argparse.Namespace) -> None:
  parser.print_help()


def _text(options: argparse.Namespace) -> TextData:
  experiment, _ = flags.of_page(options)
  if not isinstance(experiment.data, TextData):
    raise UserError(f"{options.page} has data={experiment.data.choice_name}, "
                    "which is not running text; set data=text and "
                    "data.text=...")
  return experiment.data


def _tokenizer(options: argparse.Namespace) -> None:
  files.check_folder(options.output)
  tokenizer = _text(options).train_tokenizer()
  files.write_bytes(options.output, tokenizer.file())
  print(f"{tokenizer.vocabulary.size} pieces in {options.output}")


def _corpus(options: argparse.Namespace) -> None:
  data = _text(options)
  splits = data.prepare(0, None, None, ()).corpus
  print(markdown.table(
      ["part", "documents", "sentences", "tokens"],
      [[name, *(f"{split.counts[k]:,}"
                for k in ("documents", "sentences", "tokens"))]
       for name, split in (("train", splits.train),
                           ("held out", splits.held_out))]))


def _show(options: argparse.Namespace) -> None:
  experiment, page = flags.of_page(options)
  columns = shutil.get_terminal_size().columns
  if options.topology:
    _predict(experiment, options, columns)
    return
  print(describe.describe(
      experiment, page.experiment, page.docstring, options.devices,
      options.memory and options.memory * 10**9, columns, options.measure))
  bound = study.of_page(page)
  if bound is not None:
    bound = dataclasses.replace(
        bound, base=bound.base or options.page,
        overrides=[*bound.overrides, *options.overrides])
    print(f"\n{bound.describe(columns)}")


def _predict(experiment: Experiment, options: argparse.Namespace,
             columns: int) -> None:
  """The step on TPUs that are not here."""
  topology = Topology.parse(options.topology, options.slices)
  say = lambda line: print(f"{line} ...", file=sys.stderr, flush=True)
  prediction = predict(experiment, topology, say)
  if options.json:
    print(json.dumps(topology_page.as_dict(prediction, options.price)))
  else:
    print(topology_page.text(prediction, options.price, columns))


def _quickstart(options: argparse.Namespace) -> None:
  quickstart.run(pathlib.Path(options.workdir), options.seeds)
