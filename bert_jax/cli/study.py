"""Several runs that are compared: ablate."""

import argparse
import dataclasses
import re
import shlex
import sys
from collections.abc import Sequence
from typing import get_args

from bert_jax import config
from bert_jax.cli import flags
from bert_jax.config import UserError
from bert_jax.studies import budgets
from bert_jax.studies.arms import sort_words
from bert_jax.studies.study import Study


def add(commands: argparse._SubParsersAction) -> None:
  ablating = flags.command(
      commands, "ablate", _ablate,
      "Does it help? Trains a base and its variants with the same seeds, and "
      "reports their differences with intervals. What is finished is not done "
      "again by the same command.", """\
bert-jax ablate quickstart --workdir runs/abl --seeds 3 --equal tokens \\
    pre=model.norm_placement=pre mask30=objective.masking.rate=.3 \\
    nsp="objective=mlm_nsp data.format=pairs" steps=300
bert-jax ablate studies/masking_rates --workdir runs/masking_rates""")
  ablating.add_argument("page", help="the base: a config page; or a page that "
                        "binds a study, as those that `bert-jax pages` lists "
                        "in studies/")
  ablating.add_argument(
      "overrides", nargs="*", default=[],
      metavar="NAME=\"key=value ...\" | key=value",
      help="an arm, as pre=model.norm_placement=pre or mine=my_page.py; or an "
      "option of all arms, as steps=2000")
  ablating.add_argument("--workdir", required=True, help="for runs and report; "
                        "what is finished there is not done again")
  ablating.add_argument("--seeds", type=flags.positive, metavar="N",
                        help="runs of each arm; default 5, or the page's")
  ablating.add_argument("--equal", choices=get_args(budgets.Unit),
                        help="what all arms get the same of; default steps, or "
                        "the page's")
  ablating.add_argument("--cumulative", action="store_true",
                        help="an arm has the options of all arms before it, "
                        "too, and is also compared with the arm before")
  ablating.add_argument("--protocols", type=flags.words, metavar="A,B",
                        help="protocols that score the arms, as \"mlm@1 "
                        "percent=20,nsp@1\" (`bert-jax score` lists all); the "
                        "first one decides; default: by what the base learns")
  ablating.add_argument("--then", type=flags.words, metavar="A,B",
                        help="protocols that fine-tune each run and score "
                        "that, too, as code_words@1,sst2@1 or my_task.py")
  ablating.add_argument("--tune", action="append", metavar="KEY=X,Y",
                        help="values that every arm tries first, judged on "
                        "documents that no score uses; may be repeated")
  ablating.add_argument("--share", type=_share, default=(1, 1), metavar="I/N",
                        help="this is process I of N that share the work in "
                        "one folder")
  ablating.add_argument("--members", type=_members, metavar="auto|N",
                        help="runs that are one program at most; default auto")


def _share(word: str) -> tuple[int, int]:
  number, _, count = word.partition("/")
  if not (number.isdecimal() and count.isdecimal()
          and 1 <= int(number) <= int(count)):
    raise argparse.ArgumentTypeError(f"{word}: expected I/N, as in 2/8.")
  return int(number), int(count)


def _members(word: str) -> int | None:
  return None if word == "auto" else flags.positive(word)


def _ablate(options: argparse.Namespace) -> None:
  study = _study(options)
  study.run(options.share, options.members)
  flags.say_markdown(study.table())
  flags.say(f"\n{options.workdir}/study.html shows it.")


def _study(options: argparse.Namespace) -> Study:
  overrides, arms = sort_words(options.overrides)
  study = of_page(config.load_page(options.page)) or Study()
  given = {"seeds": options.seeds, "budget": options.equal,
           "protocols": options.protocols, "then": options.then,
           "tune": options.tune, "cumulative": options.cumulative or None}
  twice = [name for name in arms if name in study.arms]
  if twice:
    raise UserError(f"{options.page} has an arm {twice[0]} already.")
  return dataclasses.replace(
      study, base=study.base or options.page, arms={**study.arms, **arms},
      overrides=[*study.overrides, *overrides], workdir=options.workdir,
      command=_command(sys.argv[1:]),
      **{name: value for name, value in given.items() if value is not None})


def of_page(page: config.Page) -> Study | None:
  """The study that it binds, if any."""
  return getattr(sys.modules[page.module], "study", None)


def _command(words: Sequence[str]) -> str:
  """As it was typed, but for how the work is divided."""
  words = re.sub(r"(^|\0)--(share|members)(\0|=)[^\0]*", "", "\0".join(words))
  return shlex.join(["bert-jax", *words.strip("\0").split("\0")])
