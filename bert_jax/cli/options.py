"""What can be set, and where to begin: options, pages, page."""

import argparse
import ast
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
  defaults = list(catalog.catalog(Experiment()))
  keys = [word for word in options.words if _asked(word, defaults)]
  pages = [word for word in options.words if word not in keys]
  experiment = _experiment(pages, [option.key for option in defaults])
  shown = [option for option in catalog.catalog(experiment)
           if (not keys or any(_within(option.key, key) for key in keys))
           and _speaks(option, options.search)]
  if not shown:
    raise UserError(f"No key, meaning or member of an option has "
                    f"{options.search!r}.")
  for option in shown:
    # The members of a choice are shown with their options.
    if any(o.members and o.key in keys and option.key.startswith(f"{o.key}.")
           for o in shown):
      continue
    members = (catalog.members_of(experiment, option.key)
               if option.key in keys and option.members else None)
    print(_text(option, members))


def _asked(key: str, options: Sequence[Option]) -> bool:
  return any(_within(option.key, key) for option in options)


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


def _text(option: Option,
          members: Mapping[str, Sequence[Option]] | None) -> str:
  """A paragraph; of a choice with its members.

  Args:
    members: their options; None: they are not asked for.
  """
  value = option.value or '""'
  lines = [f"{option.key}={value}" + (
      "" if option.members else f"  ({option.type})"),
           *_wrapped(option.meaning, 4)]
  width = max(map(len, option.members), default=0)
  for name, meaning in option.members.items():
    lines += _wrapped(f"{name:<{width}}  {meaning}", 6, width + 2)
    for own in (members or {}).get(name, ()):
      lines += _wrapped(f"{own.key}={own.value or chr(34) * 2}  ({own.type})  "
                        f"{own.meaning}", 10, 4)
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
