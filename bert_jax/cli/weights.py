"""Weights from elsewhere, and for elsewhere: import, export, push."""

import argparse
import contextlib
import dataclasses
import inspect
import pathlib
import shutil
import sys
import tempfile

from bert_jax.cli import flags
from bert_jax.config import UserError
from bert_jax.interop import exporter, families, hub, importer
from bert_jax.interop.card_details import CardDetails, CardScore
from bert_jax.reporting import markdown
from bert_jax.studies.protocols import scores as protocol_scores
from bert_jax.studies.protocols.base import Protocol
from bert_jax.studies.protocols.scores import Score


def add(commands: argparse._SubParsersAction) -> None:
  importing = flags.command(
      commands, "import", _import, "A work directory of weights from Hugging "
      "Face or Google, which init_from, embed, evaluate and predict use like "
      "that of a run.",
      "bert-jax import google-bert/bert-base-uncased --workdir runs/bert")
  importing.add_argument("source", help="a directory of Hugging Face's "
                         "(config.json) or Google's (bert_config.json), or "
                         "ORGANIZATION/NAME on Hugging Face's hub")
  importing.add_argument("--workdir", required=True,
                         help="where the weights are saved, as of a run")
  importing.add_argument("--tokenizer", default="", help="another directory, "
                         "or a vocab.txt, to take the tokenizer from")
  outwards = flags.command(
      commands, "export", _export, "A directory that Hugging Face's "
      "transformers loads, with a model card.",
      "bert-jax export runs/task exported --license apache-2.0 --language en")
  flags.workdir(outwards)
  outwards.add_argument("directory", help="to write; it is made, or is empty")
  _add_options(outwards)
  pushing = flags.command(
      commands, "push", _push, "The export of a run, with its card, to Hugging "
      "Face's hub, in one commit.",
      "bert-jax push runs/task me/my-bert --license apache-2.0 --dry-run")
  flags.workdir(pushing)
  pushing.add_argument("name", metavar="OWNER/NAME", help="name of the model "
                       "on the hub; it is made if it is not there")
  pushing.add_argument("--private", action="store_true", help="a private "
                       "model; an error if it is public already")
  pushing.add_argument("--revision", default="", metavar="BRANCH",
                       help="branch to commit to, made if it is not there; "
                       "default: main")
  pushing.add_argument("--dry-run", action="store_true", help="list the files "
                       "and what the card lacks; send nothing")
  _add_options(pushing)


def _add_options(parser: argparse.ArgumentParser) -> None:
  """What decides what is exported."""
  parser.add_argument("--family", default="auto",
                      choices=["auto", *families.FAMILIES],
                      help="whose names the network gets; auto (default): "
                      "RoBERTa's if the tokenizer is, BERT's, or of the others "
                      "the first that has such a network")
  parser.add_argument("--network", default="encoder", metavar="NAME",
                      help="of an objective that trains several: generator is "
                      "that of replaced_tokens; default: encoder")
  for field in dataclasses.fields(CardDetails):
    parser.add_argument(
        f"--{field.name.replace('_', '-')}", default=field.default,
        type=flags.text, metavar="TEXT",
        help=f"for the card: {field.metadata['help']}")


def _import(options: argparse.Namespace) -> None:
  imported = importer.read(options.source, options.tokenizer)
  experiment = importer.save(imported, options.workdir)
  print(f"{options.workdir}: {imported.parameters:,} parameters, objective="
        f"{experiment.objective.choice_name}")


def _export(options: argparse.Namespace) -> None:
  _write(options, _details(options), options.directory)


def _push(options: argparse.Namespace) -> None:
  hub.check_name(options.name, "name", owned=True)
  details = _details(options)
  if not options.dry_run:
    hub.check_login()
  folder = pathlib.Path(tempfile.mkdtemp(prefix="bert-jax-"))
  with contextlib.ExitStack() as stack:
    stack.callback(shutil.rmtree, folder)
    _write(options, details, folder, options.name)
    print(markdown.table(["file", "bytes"], [
        [str(path.relative_to(folder)), f"{path.stat().st_size:,}"]
        for path in sorted(folder.rglob("*")) if path.is_file()]))
    address = hub.address(options.name, options.revision)
    if options.dry_run:
      print(f"Nothing was sent. Without --dry-run they go to {address}"
            f"{', private' if options.private else ''}.")
      return
    stack.pop_all()  # Kept until it is there.
  try:
    hub.upload(folder, options.name, options.private, options.revision)
  except BaseException:
    print(f"The export is kept in {folder}.", file=sys.stderr)
    raise
  shutil.rmtree(folder)
  print(address)


def _details(options: argparse.Namespace) -> CardDetails:
  return CardDetails(**{field.name: getattr(options, field.name)
                        for field in dataclasses.fields(CardDetails)})


def _write(options: argparse.Namespace, details: CardDetails,
           directory: str | pathlib.Path, name: str = "") -> None:
  kept = protocol_scores.read(pathlib.Path(options.workdir)).values()
  exported = exporter.export(
      options.workdir, directory, details, options.family,
      [_card_score(score) for score in kept if not score.unscorable], name,
      options.network)
  print(f"{name or directory}: {exported.architecture}")
  for problem in exported.card_problems:
    print(f"README.md: {problem}")


def _card_score(score: Score) -> CardScore:
  """A score of `bert-jax score`, as a model card shows it."""
  try:
    protocol = Protocol.parse(score.protocol)
    described = {"split": protocol.split, "kind": protocol.label_kind(),
                 "meaning": inspect.getdoc(protocol).partition("\n")[0]}
  except UserError:  # Of a page, or of another version of this program.
    described = {}
  seeds = len(score.values_R)
  return CardScore(
      score.protocol, score.measure, score.value, score.checkpoint, seeds,
      float(score.values_R.std(ddof=1)) if seeds > 1 else None,
      score.totals_RI.size // max(1, seeds), score.data, **described)
