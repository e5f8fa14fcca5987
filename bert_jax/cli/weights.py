"""Weights from elsewhere, and for elsewhere: import, export."""

import argparse
import dataclasses
from typing import get_args

from bert_jax.cli import flags
from bert_jax.interop import exporter, importer, model_card


def add(commands: argparse._SubParsersAction) -> None:
  importing = flags.command(
      commands, "import", _import, "A work directory of weights from Hugging "
      "Face or Google, which init_from, embed, evaluate and predict use like "
      "that of a run.")
  importing.add_argument("source", help="a directory of Hugging Face's "
                         "(config.json) or Google's (bert_config.json), or "
                         "ORGANIZATION/NAME on Hugging Face's hub")
  importing.add_argument("--workdir", required=True)
  importing.add_argument("--tokenizer", default="", help="another directory, "
                         "or a vocab.txt, to take the tokenizer from")
  outwards = flags.command(
      commands, "export", _export, "A directory that Hugging Face's "
      "transformers loads, with a model card.")
  flags.workdir(outwards)
  outwards.add_argument("directory", help="is made, or is empty")
  outwards.add_argument("--family", default="auto",
                        choices=get_args(exporter.Family),
                        help="whose names the network gets; auto (default): "
                        "RoBERTa's if the tokenizer is, else BERT's")
  for field in dataclasses.fields(model_card.CardDetails):
    outwards.add_argument(
        f"--{field.name.replace('_', '-')}", default=field.default,
        type=flags.text, metavar="TEXT",
        help=f"for the card: {field.metadata['help']}")


def _import(options: argparse.Namespace) -> None:
  imported = importer.read(options.source, options.tokenizer)
  experiment = importer.save(imported, options.workdir)
  print(f"{options.workdir}: {imported.parameters:,} parameters, objective="
        f"{experiment.objective.choice_name}")


def _export(options: argparse.Namespace) -> None:
  details = model_card.CardDetails(**{
      field.name: getattr(options, field.name)
      for field in dataclasses.fields(model_card.CardDetails)})
  architecture = exporter.export(options.workdir, options.directory, details,
                                 options.family)
  print(f"{options.directory}: {architecture}")
