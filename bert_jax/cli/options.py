"""What can be set, and where to begin: options, pages, page."""

import argparse
import ast
import itertools
import shutil
import textwrap
from collections.abc import Collection, Mapping, Sequence

from bert_jax import config
from bert_jax.cli import flags
from bert_jax.config import UserError, catalog, nearest_keys
from bert_jax.config.catalog import Option
from bert_jax.experiment import Experiment


def add(commands: argparse._SubParsersAction) -> None:
  listing = flags.command(
      commands, "options", _options, "Every option with its value, type and "
      "meaning. `options model.norm` shows what each member of a choice is and "
      "has, `options --search rate` all that speak of a rate.")
  listing.add_argument(
      "words", nargs="*", metavar="PAGE | KEY", help="keys that options begin "
      "with, as schedule or model.norm; a config page, whose values are shown "
      "in place of the defaults")
  listing.add_argument("--search", metavar="WORD", help="options whose key, "
                       "meaning or members have it")
  flags.command(commands, "pages", _pages,
                "The config pages that come with the program.")
  printing = flags.command(commands, "page", _page, "Prints a config page, to "
                           "begin one's own: page quickstart > mine.py")
  printing.add_argument("page", help="a name that `pages` lists, or a file")


def _options(options: argparse.Namespace) -> None:
  known = {option.key for option in catalog.catalog(Experiment())} | {
      option.key for option, _ in catalog.of_other_members(Experiment())}
  keys = [word for word in options.words
          if any(_within(key, word) for key in known)]
  pages = [word for word in options.words if word not in keys]
  experiment = _experiment(pages, known)
  shown = [option for option in catalog.catalog(experiment)
           if (not keys or any(_within(option.key, key) for key in keys))
           and _speaks(option, options.search)]
  # What the experiment has not, but would with another choice.
  further = [] if shown else [
      (option, choice) for option, choice in catalog.of_other_members(
          experiment) if (not keys or any(_within(option.key, key)
                                          for key in keys))
      and _speaks(option, options.search)]
  if not shown and not further:
    raise UserError(f"No key, meaning or member of an option has "
                    f"{options.search!r}.")
  for option, choice in further:
    print(f"with {choice}:\n{_text(option, {})}")
  own: dict[str, list[Option]] = {}
  for option in shown:
    if option in itertools.chain.from_iterable(own.values()):
      continue  # It stands below its member.
    own = (_own(catalog.members_of(experiment, option.key))
           if option.key in keys and option.members else own)
    print(_text(option, own if option.key in keys else {}))


def _within(key: str, prefix: str) -> bool:
  return f"{key}.".startswith(f"{prefix}.")


def _experiment(pages: Sequence[str], keys: Collection[str]) -> Experiment:
  if not pages:
    return Experiment()
  try:
    page, = pages
    return config.load_page(page).experiment
  except ValueError:  # More than one, or there is none; UserError is one.
    near = nearest_keys(pages[-1], keys)
    raise UserError(
        f"{pages[-1]} is neither an option, nor the beginning of one, nor a "
        "config page" + (f"; did you mean {' or '.join(near)}?" if near else
                         "; `bert-jax options` lists all, and so does "
                         "`bert-jax pages`.")) from None


def _speaks(option: Option, word: str | None) -> bool:
  text = " ".join([option.key, option.meaning, *option.members,
                   *option.members.values()])
  return word is None or word.lower() in text.lower()


def _own(members: Mapping[str, Sequence[Option]]) -> dict[str, list[Option]]:
  """Of each member the options that not all have."""
  shared = set.intersection(*({(o.key, o.meaning) for o in options}
                              for options in members.values()))
  return {name: [o for o in options if (o.key, o.meaning) not in shared]
          for name, options in members.items()}


def _text(option: Option, own: Mapping[str, Sequence[Option]]) -> str:
  """A paragraph; of a choice with its members, and `own` options of each."""
  value = option.value or '""'
  lines = [f"{option.key}={value}" + (
      "" if option.members else f"  ({option.type})"),
           *_wrapped(option.meaning, 4)]
  width = max(map(len, option.members), default=0)
  for name, meaning in option.members.items():
    lines += _wrapped(f"{name:<{width}}  {meaning}", 6, width + 2)
    for o in own.get(name, ()):
      lines += _wrapped(f"{o.key}={o.value or chr(34) * 2}  ({o.type})  "
                        f"{o.meaning}", 10, 4)
  return "\n".join(lines)


def _wrapped(text: str, indent: int, hanging: int = 0) -> list[str]:
  columns = shutil.get_terminal_size().columns
  return textwrap.wrap(
      text, columns, initial_indent=" " * indent, break_on_hyphens=False,
      subsequent_indent=" " * (indent + hanging), break_long_words=False)


def _pages(options: argparse.Namespace) -> None:
  names = config.page_names()
  width = max(map(len, names))
  for name in names:
    text = ast.get_docstring(ast.parse(config.page_source(name))) or ""
    first = text.partition("\n\n")[0].replace("\n", " ")
    print("\n".join(_wrapped(f"{name:<{width}}  {first}", 0, width + 2)))


def _page(options: argparse.Namespace) -> None:
  print(config.page_source(options.page), end="")
