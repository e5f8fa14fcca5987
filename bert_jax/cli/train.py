"""Training: pretrain, finetune, sweep, glue."""

import argparse
import contextlib
import pathlib

from bert_jax.analysis.topology.parts import part_of_name
from bert_jax.cli import flags
from bert_jax.config import UserError
from bert_jax.reporting import markdown
from bert_jax.runs import train
from bert_jax.runs.observers import Observers
from bert_jax.runs.profiling import Profiler
from bert_jax.studies import glue_suite
from bert_jax.studies.members import sweep


_STOPPING = ("Ctrl-C saves a checkpoint and stops; the same command resumes "
             "from there.")


def add(commands: argparse._SubParsersAction) -> None:
  for name, summary, examples in (
      ("pretrain", f"Pretrain on text. {_STOPPING}", """\
bert-jax pretrain quickstart --workdir runs/short
bert-jax pretrain mini data.text='books/*.txt' steps=20000 --workdir runs/mini
"""),
      ("finetune", "Train on a labeled task, from the parameters of "
       f"init_from=WORKDIR where that is given. {_STOPPING}", """\
bert-jax finetune task --workdir runs/task init_from=runs/mini \\
    data.train=train.tsv data.evaluation=dev.tsv \\
    data.columns.text=sentence data.columns.label=label
""")):
    training = flags.command(commands, name, _train, summary, examples)
    flags.page(training)
    training.add_argument("--workdir", required=True, help="for checkpoints, "
                          "metrics and pictures; a run that is there is "
                          "resumed")
    training.add_argument("--profile", type=flags.positive, metavar="STEPS",
                          help="write a trace of that many steps to WORKDIR/"
                          "profile, for XProf and Perfetto, and the time of "
                          "each part of the network")
    flags.several_hosts(training)
  sweeping = flags.command(
      commands, "sweep", _sweep,
      "Train on a labeled task with several seeds and rates at once.", """\
bert-jax sweep task --workdir runs/sweep --seeds 5 --rates 2e-5,5e-5 \\
    init_from=runs/bert data.train=train.tsv data.evaluation=dev.tsv""")
  flags.page(sweeping)
  flags.members(sweeping)
  suite = flags.command(
      commands, "glue", _glue, "Fine-tune on every task of GLUE with several "
      "seeds, from init_from=WORKDIR: one table.", """\
bert-jax glue --workdir runs/glue init_from=runs/bert data.folder=glue \\
    --tasks MRPC,RTE --seeds 3""")
  flags.overrides(suite, "of the page, as in data.folder=glue")
  suite.add_argument("--page", default="glue", help="a config page with "
                     "data=glue; default glue")
  suite.add_argument("--tasks", type=flags.words, default=(), metavar="A,B",
                     help="as MRPC,RTE; default: those whose files exist")
  flags.members(suite)


def _train(options: argparse.Namespace) -> None:
  experiment, page = flags.of_page(options)
  if (options.command == "finetune") != (
      experiment.objective.label_kind is not None):
    other = "pretrain" if options.command == "finetune" else "finetune"
    raise UserError(f"objective={experiment.objective.choice_name} is a "
                    f"{other}ing objective; use `bert-jax {other}`.")
  flags.say_differences(page.experiment, experiment, options.page)
  with contextlib.ExitStack() as stack:
    observers = Observers()
    if options.profile:
      profiler = stack.enter_context(Profiler(
          pathlib.Path(options.workdir) / "profile", options.profile,
          part_of_name, flags.say_markdown))
      observers = Observers(profiler.on_step)
    result = train.train(experiment, options.workdir, page, observers)
  if result.scores:
    flags.say(markdown.table(["held out", "value"],
                             list(result.scores.items())))


def _sweep(options: argparse.Namespace) -> None:
  experiment, page = flags.of_page(options)
  flags.say_differences(page.experiment, experiment, options.page)
  flags.say_markdown(sweep.run(
      experiment, pathlib.Path(options.workdir), options.seeds, options.rates,
      options.at_once, page))


def _glue(options: argparse.Namespace) -> None:
  experiment, page = flags.of_page(options)
  flags.say_markdown(glue_suite.run(glue_suite.Suite(
      experiment, pathlib.Path(options.workdir), options.tasks, options.seeds,
      options.rates, options.at_once, page)))
