"""What a shell offers at TAB: commands, flags, pages, options and values.

argcomplete speaks with the shell. The answers lie in a file of the cache
folder, as parsers and options import jax, which takes seconds: the first TAB
writes it, and when the program has changed, another process does so while the
old one answers.
"""

import argparse
import contextlib
import dataclasses
import glob
import hashlib
import json
import os
import pathlib
import re
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any

import argcomplete

from bert_jax import config, files
from bert_jax.config import catalog

_PACKAGE = pathlib.Path(__file__).resolve().parents[1]
_PATIENCE = 30  # seconds that another process may need to write the file

# What may stand somewhere, each with its meaning.
Words = Mapping[str, str]


def answer() -> None:
  """Answers the shell, and exits."""
  parser = argparse.ArgumentParser(add_help=False)
  parser.add_argument("words", nargs=argparse.REMAINDER)
  _Finder()(parser)


class _Finder(argcomplete.CompletionFinder):

  def collect_completions(
      self, active_parsers: Sequence[argparse.ArgumentParser],
      parsed_args: argparse.Namespace, cword_prefix: str) -> list[str]:
    words = following(_read(_path()), getattr(parsed_args, "words", ()),
                      cword_prefix)
    self.get_display_completions().update(words)
    return list(words)

  def quote_completions(
      self, completions: list[str], cword_prequote: str,
      last_wordbreak_pos: int | None) -> list[str]:
    # For bash a word begins behind a quote, which is not known here.
    return [] if cword_prequote else super().quote_completions(
        completions, cword_prequote, last_wordbreak_pos)


def following(known: Mapping[str, Any], words: Sequence[str],
              prefix: str) -> Words:
  """What begins with `prefix` and may come next.

  Args:
    known: as the file has it.
    words: of the line before it, without the program's name.
  """
  command, rest = known["program"], list(words)
  while command["commands"]:
    if not rest:
      return _matching({name: each["meaning"] for name, each in
                        command["commands"].items()}, prefix)
    name = rest.pop(0)
    if name not in command["commands"]:
      return {}
    command = command["commands"][name]
  flags = command["flags"]
  flag, equals, value = prefix.partition("=")
  if equals and flag in flags:  # --flag=value
    return {f"{flag}={word}": meaning for word, meaning in
            _of_flag(known, flags[flag], value).items()}
  if rest and flags.get(rest[-1], {}).get("takes"):
    return _of_flag(known, flags[rest[-1]], prefix)
  if prefix.startswith("-"):
    return _matching({name: each["meaning"] for name, each in flags.items()},
                     prefix)
  return _of_place(known, command["places"], _positional(flags, rest), prefix)


def _positional(flags: Mapping[str, Any], words: Sequence[str]) -> list[str]:
  """Those words that are neither flags nor values of flags."""
  positional, left = [], iter(words)
  for word in left:
    flag, equals, _ = word.partition("=")
    if flag not in flags:
      positional.append(word)
    elif flags[flag]["takes"] and not equals:
      next(left, None)
  return positional


def _of_flag(known: Mapping[str, Any], flag: Mapping[str, Any],
             prefix: str) -> Words:
  if flag["place"] == "page":
    return _pages(known, prefix)
  values = flag["values"]
  return _paths(prefix) if values is None else _matching(values, prefix)


def _of_place(known: Mapping[str, Any], places: Sequence[Sequence[Any]],
              given: Sequence[str], prefix: str) -> Words:
  """Of a positional argument, after those that are given."""
  if not places or len(given) >= len(places) and not places[-1][1]:
    return {}
  match places[min(len(given), len(places) - 1)][0]:
    case "page":
      return _pages(known, prefix)
    case "words":
      keys = {key: option["meaning"] for key, option in
              known["options"].items()}
      return _matching(keys, prefix) | _pages(known, prefix)
    case "overrides":
      return _overrides(known, given[0] if given else "", given, prefix)
  return _paths(prefix)


def _overrides(known: Mapping[str, Any], page: str, given: Sequence[str],
               prefix: str) -> Words:
  key, equals, value = prefix.partition("=")
  options, choices = known["options"], known["choices"]
  if equals and key in options:
    values = options[key]["values"]
    words = _paths(value) if values is None else _matching(values, value)
    return {f"{key}={word}": meaning for word, meaning in words.items()}
  if equals:  # An arm of a study, as name=key=value.
    words = _overrides(known, page, given, value) | _pages(known, value)
    return {f"{key}={word}": meaning for word, meaning in words.items()}
  keys = known["pages"].get(page, known["pages"][""])["keys"]
  for assignment in given:
    choice, _, member = assignment.partition("=")
    if member in choices.get(choice, ()):
      keys = [*(k for k in keys if not k.startswith(f"{choice}.")),
              *choices[choice][member]]
  return {f"{key}=": options[key]["meaning"] for key in keys
          if key.startswith(prefix)}


def _pages(known: Mapping[str, Any], prefix: str) -> Words:
  """Names of pages, and files; folders where nothing else is."""
  pages = {name: page["meaning"] for name, page in known["pages"].items()
           if name}
  paths = _paths(prefix)
  return _matching(pages, prefix) | {
      path: "" for path in paths if path.endswith(".py")} or paths


def _paths(prefix: str) -> Words:
  return {path + "/" * os.path.isdir(path): ""
          for path in glob.glob(f"{glob.escape(prefix)}*")}


def _matching(words: Words, prefix: str) -> Words:
  return {word: meaning for word, meaning in words.items()
          if word.startswith(prefix)}


def _path() -> pathlib.Path:
  """Of the file; one for each copy of the program."""
  name = hashlib.sha256(str(_PACKAGE).encode()).hexdigest()[:12]
  return files.cache_directory() / "completion" / f"{name}.json"


def _read(path: pathlib.Path) -> Mapping[str, Any]:
  with contextlib.suppress(ValueError):  # A UserError, too: it is not there.
    known = json.loads(files.read_text(path))
    if (known["stamp"] != _stamp()
        and time.time() - path.stat().st_mtime > _PATIENCE):
      os.utime(path)
      _write_elsewhere()
    return known
  return write(path)


def _write_elsewhere() -> None:
  import subprocess  # Late, as all that a TAB seldom needs.
  subprocess.Popen(
      [sys.executable, "-m", __name__], start_new_session=True,
      stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
      stderr=subprocess.DEVNULL)


def _stamp() -> str:
  """Of the program's source and pages; it changes with them."""
  digest = hashlib.sha256()
  for folder in (_PACKAGE, config.PAGES):
    for path in sorted(folder.rglob("*.py")):
      status = path.stat()
      digest.update(f"{path} {status.st_mtime_ns} {status.st_size}\n".encode())
  return digest.hexdigest()


def write(path: pathlib.Path) -> Mapping[str, Any]:
  """Writes all that is known to the file."""
  from bert_jax.cli import main
  from bert_jax.experiment import Experiment
  options, choices = {}, {}
  _collect(Experiment(), "", options, choices)
  own = [option.key for option in catalog.catalog(Experiment())]
  pages = {"": {"meaning": "", "keys": own}}
  for name in config.page_names():
    pages[name] = {"meaning": "", "keys": own}
    with contextlib.suppress(Exception):  # It may be anybody's.
      page = config.load_page(name)
      pages[name] = {
          "meaning": page.docstring.partition("\n")[0],
          "keys": [option.key for option in catalog.catalog(page.experiment)]}
      for option in catalog.catalog(page.experiment):
        options.setdefault(option.key, _described(option))
  known = {"stamp": _stamp(), "program": _commands(main.make_parser()),
           "pages": pages, "options": options, "choices": choices}
  path.parent.mkdir(parents=True, exist_ok=True)
  files.write_text(path, json.dumps(known))
  return known


def _collect(tree: Any, prefix: str, options: dict[str, Any],
             choices: dict[str, Any]) -> None:
  """Adds every option and choice of a tree and of all members below."""
  for option in catalog.catalog(tree, prefix):
    options.setdefault(option.key, _described(option))
  for field in dataclasses.fields(tree):
    key, value = prefix + field.name, getattr(tree, field.name)
    if isinstance(value, config.Choice):
      for name, member in value.members(()).items():
        below = choices.setdefault(key, {})
        if name not in below:
          below[name] = [option.key for option in catalog.catalog(
              member(), f"{key}.")]
          _collect(member(), f"{key}.", options, choices)
    elif dataclasses.is_dataclass(value):
      _collect(value, f"{key}.", options, choices)


def _described(option: catalog.Option) -> dict[str, Any]:
  """Its meaning, and its values; None: any text, as a path."""
  values = option.members or {
      word: "" for word in option.type.split(" | ")
      if re.fullmatch("[a-z0-9_]+", word) and word not in ("int", "float")}
  return {"meaning": option.meaning,
          "values": None if "text" in values else values}


def _commands(parser: argparse.ArgumentParser) -> dict[str, Any]:
  """The flags, positional arguments and commands of a parser."""
  flags, places, commands = {}, [], {}
  for action in parser._actions:
    if isinstance(action, argparse._SubParsersAction):
      commands = {name: _commands(each)
                  for name, each in action.choices.items()}
    elif action.option_strings:
      values = dict.fromkeys(action.choices or (), "")
      flags |= dict.fromkeys(action.option_strings, {
          "meaning": action.help or "", "takes": action.nargs != 0,
          "place": action.dest,
          "values": values if values or action.type else None})
    else:
      places.append([action.dest, action.nargs in ("*", "+")])
  return {"meaning": parser.description or "", "flags": flags,
          "places": places, "commands": commands}


if __name__ == "__main__":
  write(_path())
