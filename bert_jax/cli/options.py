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
      "meaning. Of a choice it says what each member is: a class, which a page "
      "of your own may name: schedule=constant is ConstantSchedule.", """\
bert-jax options model.norm            # what each norm is, and its options
bert-jax options quickstart schedule   # with the values of a config page
bert-jax options --search rate         # all that speak of a rate
# The class behind a choice:
python -c 'import bert_jax as bj; print(bj.page("tiny").experiment.schedule)'
""")
  listing.add_argument(
      "words", nargs="*", metavar="PAGE | KEY", help="keys that options begin "
      "with, as schedule or model.norm; a config page, whose values are shown "
      "in place of the defaults")
  listing.add_argument("--search", metavar="WORD", help="options whose key, "
                       "meaning or members have it")
  flags.command(commands, "pages", _pages,
                "The config pages that come with the program.")
  printing = flags.command(
      commands, "page", _page, "Prints a config page, to begin one of your "
      "own, which every command takes in place of a name. It may also be "
      "written from overrides, as in the second example.", """\
bert-jax page quickstart > mine.py   # a copy to change

cat > mine.py << END                 # a page that says what differs
from bert_jax import config

experiment = config.override(config.load_page("quickstart").experiment, [
    "schedule=constant", "model.norm=rms", "steps=400"])
END
bert-jax show mine.py                # what it is""")
  printing.add_argument("page", help="a name that `pages` lists, or a file")


def _options(options: argparse.Namespace) -> None:
  default = Experiment()
  known = {option.key for option in (
      *catalog.catalog(default), *itertools.chain.from_iterable(
          catalog.of_other_members(default).values()))}
  keys, pages, chosen = [], [], []
  for word in options.words:
    key, equals, _ = word.partition("=")
    if not any(_within(other, key) for other in known):
      pages.append(word)
      continue
    keys.append(key)
    chosen += [word] * bool(equals)
  experiment = config.override(_experiment(pages, known), chosen)
  speaks = lambda option: (
      (not keys or any(_within(option.key, key) for key in keys))
      and _speaks(option, options.search))
  assigned = {word.partition("=")[0] for word in chosen}
  shown = [option for option in catalog.catalog(experiment) if speaks(option)]
  # What the experiment has not, but would with another choice: of a page only
  # where it has nothing of that name.
  further = {} if shown and (pages or chosen or not keys and not options.search
                             ) else {
      choices: speaking for choices, others in catalog.of_other_members(
          experiment).items() if (speaking := list(filter(speaks, others)))}
  if not shown and not further:
    raise UserError(f"No key, meaning or member of an option has "
                    f"{options.search!r}.")
  for option in shown:
    print(_text(option, _members(option, assigned, options.search)))
  for choices, others in further.items():
    print(f"with {_alternatives(choices)}:")
    for option in others:
      print(textwrap.indent(
          _text(option, _members(option, (), options.search), 2), "  "))


def _within(key: str, prefix: str) -> bool:
  return f"{key}.".startswith(f"{prefix}.")


def _experiment(pages: Sequence[str], keys: Collection[str]) -> Experiment:
  if not pages:
    return Experiment()
  try:
    page, = pages
    return config.load_page(page).experiment
  except ValueError:  # More than one, or there is none; UserError is one.
    near = nearest_keys(pages[-1].partition("=")[0], keys)
    raise UserError(
        f"{pages[-1]} is neither an option, nor the beginning of one, nor a "
        "config page" + (f"; did you mean {' or '.join(near)}?" if near else
                         "; `bert-jax options` lists all, and so does "
                         "`bert-jax pages`.")) from None


def _speaks(option: Option, word: str | None) -> bool:
  return word is None or _has(word, option.key, option.meaning) or any(
      _has(word, *member) for member in option.members.items())


def _has(word: str, *texts: str) -> bool:
  return word.lower() in " ".join(texts).lower()


def _members(option: Option, assigned: Collection[str],
             word: str | None) -> Mapping[str, str]:
  """Those to list: the one that was asked for, those that have the searched
  word, or all."""
  if option.key in assigned:
    return {option.value: option.members[option.value]} if (
        option.members) else {}
  speaking = {name: meaning for name, meaning in option.members.items()
              if word is not None and _has(word, name, meaning)}
  return speaking or option.members


def _alternatives(choices: Sequence[str]) -> str:
  """As "data=table, glue or squad"."""
  stems = {choice.rpartition("=")[0] for choice in choices}
  first, *others = choices
  if len(stems) == 1:
    others = [choice.rpartition("=")[2] for choice in others]
  return " or ".join(filter(None, [", ".join([first, *others[:-1]]),
                                   *others[-1:]]))


def _text(option: Option, members: Mapping[str, str], indent: int = 0) -> str:
  """A paragraph; of a choice with members.

  Args:
    indent: that the caller adds.
  """
  value = option.value or '""'
  lines = [f"{option.key}={value}" + (
      "" if option.members else f"  ({option.type})"),
           *_wrapped(option.meaning, 4, 0, indent)]
  width = max(map(len, members), default=0)
  for name, meaning in members.items():
    lines += _wrapped(f"{name:<{width}}  {meaning}", 6, width + 2, indent)
  return "\n".join(lines)


def _wrapped(text: str, indent: int, hanging: int = 0,
             columns_less: int = 0) -> list[str]:
  columns = shutil.get_terminal_size().columns - columns_less
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
