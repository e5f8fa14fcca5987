"""README.md and docs/ say what is there: links, commands, options, Python.

Each law is a function from a page's text to complaints, so that the tests can
show it both the pages and text that breaks it.
"""

import argparse
import ast
import configparser
import dataclasses
import functools
import pathlib
import re
import shlex
from collections.abc import Iterator
from typing import Any

import pytest

import bert_jax as bj
from bert_jax import config
from bert_jax.cli import main as commands
from bert_jax.config import UserError
from bert_jax.config.choices import Choice
from bert_jax.data.batches import spec
from bert_jax.data.labeled.base import LabeledSet
from bert_jax.experiment import Experiment
from bert_jax.objectives.base import Objective
from bert_jax.studies.arms import make_arms, sort_words
from tests.test_laws import DIMENSIONS, ROOT, style_faults

README, DOCS = ROOT / "README.md", ROOT / "docs"
PAGES = [README, *sorted(DOCS.glob("*.md"))]
MOST_LINES, MOST_COLUMNS = 120, 120

_BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_SHELL = {"&&", "||", "|", ";", "<", ">"}  # what ends a command
_KEYS = {}  # of options; a choice's with the names of its members


def blocks(text: str, language: str) -> list[str]:
  """The code blocks in a language."""
  return [code for name, code in _BLOCK.findall(text) if name == language]


def size_faults(text: str) -> list[str]:
  lines = text.splitlines()
  return [f"line {i}: {len(line)} columns" for i, line in enumerate(lines, 1)
          if len(line) > MOST_COLUMNS] + (
              [f"{len(lines)} lines"] if len(lines) > MOST_LINES else [])


def anchors(text: str) -> set[str]:
  """Of the headings, as sites and GitHub name them."""
  titles = re.findall(r"^#+ (.*)$", _BLOCK.sub("", text), re.MULTILINE)
  return {re.sub(r"[-\s]+", "-", re.sub(r"[^\w\s-]", "", title).strip().lower())
          for title in titles}


def link_faults(text: str, folder: pathlib.Path) -> list[str]:
  """Relative links and pictures that lead nowhere."""
  faults = []
  prose = re.sub(r"`[^`]*`", "", _BLOCK.sub("", text))
  for target in re.findall(r"\]\(([^)\s]+)\)", prose):
    name, _, anchor = target.partition("#")
    path = folder / name
    if "://" in target:
      continue
    if name and not path.exists():
      faults.append(f"{target}: no such file")
    elif anchor and anchor not in anchors(path.read_text() if name else text):
      faults.append(f"{target}: no such heading")
  return faults


def path_faults(text: str) -> list[str]:
  """Files of this repository, named in the prose, that do not exist."""
  names = re.findall(r"`((?:(?:bert_jax|configs|docs|tests|tools)/[\w./]+|"
                     r"test_\w+\.py))`", _BLOCK.sub("", text))
  return [name for name in names if not (ROOT / name).exists()
          and not (ROOT / "tests" / name).exists()]


def calls(text: str) -> Iterator[list[str]]:
  """Arguments of each command of the program in the shell blocks."""
  for code in blocks(text, "bash"):
    for line in code.replace("\\\n", " ").splitlines():
      yield from _calls_of(line)


def _calls_of(line: str) -> Iterator[list[str]]:
  words = shlex.split(line, comments=True)
  for i, word in enumerate(words):
    if re.search("bert[-_]jax ", word):  # A command for another machine.
      yield from _calls_of(word)
    if word.rpartition("/")[2] == "bert-jax" or words[i - 1:i + 1] == [
        "-m", "bert_jax"]:
      rest = words[i + 1:]
      yield rest[:next((n for n, w in enumerate(rest) if w in _SHELL), None)]


def command_faults(text: str) -> list[str]:
  """Commands, flags, pages, options and values that do not exist."""
  faults = []
  for words in calls(text):
    try:
      _check_call(words)
    except (UserError, SystemExit) as error:
      faults.append(f"{shlex.join(words)}: {error}")
  return faults


def _check_call(words: list[str]) -> None:
  """Parses a command; of its work, no more than its options."""
  options = commands._parse(words)
  if options.command in ("options", "pages", "page"):
    options.run(options)
    return
  if getattr(options, "page", "").endswith(".py"):
    options.page = "quickstart"  # One of the reader's own.
  page = (config.load_page(options.page) if "page" in options else None)
  base = page.experiment if page else Experiment()
  if options.command == "predict":  # Of a run that was fine-tuned.
    base = config.load_page("task").experiment
  if options.command == "ablate":
    overrides, arms = sort_words(options.overrides)
    make_arms(page, overrides, {
        name: word for name, word in arms.items() if not word.endswith(".py")})
  elif "overrides" in options:
    config.override(base, options.overrides, [page] if page else None)


def option_keys(options: Any, prefix: str = "") -> Iterator[tuple[str, set]]:
  """Every key of a tree and of all members of its choices, with the names that
  a choice may have."""
  for field in dataclasses.fields(options):
    key, value = prefix + field.name, getattr(options, field.name)
    members = value.members() if isinstance(value, Choice) else {}
    yield key, set(members)
    for member in members.values():
      yield from option_keys(member(), f"{key}.")
    if dataclasses.is_dataclass(value) and not members:
      yield from option_keys(value, f"{key}.")


@functools.cache
def all_keys() -> dict[str, set]:
  for name in config.page_names():
    config.load_page(name)  # Registers its members.
  keys: dict[str, set] = {}
  for key, names in option_keys(Experiment()):
    keys.setdefault(key, set()).update(names)
  return keys


def option_faults(text: str) -> list[str]:
  """Options in the prose that do not exist, as `model.norm=rms`."""
  faults, keys = [], all_keys()
  groups = {key for key in keys if any(k.startswith(f"{key}.") for k in keys)}
  for code in re.findall(r"`([^`\n]+)`", _BLOCK.sub("", text)):
    for word in code.split():
      key, equals, value = word.partition("=")
      top = key.partition(".")[0]
      if top not in keys or not (equals or (top in groups and "." in key)):
        continue
      if (not re.fullmatch(r"[a-z0-9_.]+", key)
          or key.endswith((".py", ".safetensors"))):
        continue
      if key not in keys:
        faults.append(f"`{code}`: there is no {key}")
      elif equals and keys[key] and value not in keys[key] | {"", "..."}:
        faults.append(f"`{code}`: {key} cannot be {value}")
  return faults


def python_faults(text: str) -> list[str]:
  """Python that is none, or uses names that the face does not have."""
  faults = []
  for code in blocks(text, "python"):
    try:
      tree = ast.parse(code)
    except SyntaxError as error:
      faults.append(f"{error.msg}: {error.text}")
      continue
    faults += [f"bj.{node.attr}" for node in ast.walk(tree)
               if isinstance(node, ast.Attribute)
               and isinstance(node.value, ast.Name) and node.value.id == "bj"
               and node.attr not in bj.__all__]
  return faults


def rows(text: str) -> list[set[str]]:
  """The cells of each line of the tables that has figures."""
  return [{cell.strip() for cell in line.strip("|").split("|")}
          for line in text.splitlines()
          if line.startswith("|") and re.search(r"\d", line)]


def all_faults(law, *arguments) -> dict[str, list[str]]:
  faults = {page.name: law(page.read_text(), *(
      argument(page) for argument in arguments)) for page in PAGES}
  return {name: lines for name, lines in faults.items() if lines}


def test_readme_is_short():
  assert not size_faults(README.read_text())
  assert size_faults("\n" * 121) == ["121 lines"]
  assert size_faults("x" * 121) == ["line 1: 121 columns"]


def test_links_lead_somewhere():
  assert not all_faults(link_faults, lambda page: page.parent)


@pytest.mark.parametrize("text", [
    "[a](no.md)", "![a](pictures/no.png)", "[a](#no)", "# Yes\n[a](#no)",
    "[a](results.md#no)"])
def test_broken_links_are_reported(text):
  assert len(link_faults(text, DOCS)) == 1
  assert not link_faults(
      "# A, b's c\n[a](#a-bs-c) `[a](no.md)` [b](https://no.md) "
      "[c](results.md#killed)\n```\n[a](no.md)\n```", DOCS)


def test_files_in_the_prose_exist():
  assert not all_faults(path_faults)
  assert path_faults("`tools/no.py` `test_no.py` `configs/studies/` `x/y` "
                     "`test_docs.py`") == ["tools/no.py", "test_no.py"]


def test_commands_exist_with_their_options(capsys):
  assert sum(len(list(calls(page.read_text()))) for page in PAGES) > 50
  assert not all_faults(command_faults)


def helps(parser: argparse.ArgumentParser) -> Iterator[argparse.ArgumentParser]:
  """Of each command; of those that have some, of theirs in its place."""
  groups = [action.choices for action in parser._actions
            if isinstance(action, argparse._SubParsersAction)]
  for command in (groups[0].values() if groups else ()):
    yield from helps(command)
  if not groups:
    yield parser


def test_help_of_each_command_has_an_example(capsys):
  texts = {parser.prog: parser.epilog for parser in helps(
      commands.make_parser())}
  assert len(texts) > 20
  assert {name for name, text in texts.items() if not text} <= {
      "bert-jax pages", "bert-jax help"}
  for name, text in texts.items():
    assert not text or f"\n  {name} " in text
    assert not command_faults(f"```bash\n{text}\n```")
    assert max(map(len, (text or "").splitlines()), default=0) <= 80


@pytest.mark.parametrize("name", config.page_names())
def test_commands_of_pages_exist(name, capsys):
  page = config.load_page(name)
  lines = re.findall(r"^  (bert-jax (?:.*\\\n)*.*)$", page.docstring,
                     re.MULTILINE)
  assert lines and not command_faults("\n".join(["```bash", *lines, "```"]))


@pytest.mark.parametrize("command", [
    "bert-jax pretrian mini --workdir x", "bert-jax pretrain no --workdir x",
    "bert-jax pretrain mini --workdir x --sedes 3",
    "bert-jax pretrain mini", "python -m bert_jax predict a b",
    "bert-jax pretrain mini --workdir x model.nrom=rms",
    "bert-jax pretrain mini --workdir x model.norm=batch",
    "bert-jax pretrain mini --workdir x \\\n  data.held_out_percent=200",
    "cd x && .venv/bin/python -m bert_jax show mini lr=1 || true",
    "ssh host --command=\"cd x && bert-jax show base x=1 bert_jax \"",
    "bert-jax ablate quickstart --workdir x pre=model.norm_place=pre",
    "bert-jax ablate quickstart --workdir x --equal kilos pre=model.norm=rms",
    "bert-jax options model.nrom", "bert-jax page no > x"])
def test_wrong_command_is_reported(command, capsys):
  assert len(command_faults(f"```bash\n{command}\n```\n")) == 1


def test_options_in_the_prose_exist():
  assert not all_faults(option_faults)
  assert option_faults("`model.nrom=rms` `data.lenght` `model.norm=batch`") == [
      "`model.nrom=rms`: there is no model.nrom",
      "`data.lenght`: there is no data.lenght",
      "`model.norm=batch`: model.norm cannot be batch"]
  assert not option_faults("`model.norm=rms`, `data.columns.text=x`, `data/`, "
                           "`PYTHON=x`, `experiment.py`, `model.norm`")


def test_python_compiles_and_uses_names_that_exist():
  assert not all_faults(python_faults)
  assert len(python_faults("```python\nx = (\n```\n```python\n"
                           "bj.laod('x')\nbj.load('x')\n```\n")) == 2


def test_figures_of_the_readme_stand_in_the_docs():
  known = [row for page in PAGES[1:] for row in rows(page.read_text())]
  missing = [row for row in rows(README.read_text())
             if not any(row <= other for other in known)]
  assert not missing
  assert rows("| a | 1.5 |\n| - | -: |\nb 2\n") == [{"a", "1.5"}]


def test_docs_are_plain_american_english():
  assert not {page.name: faults for page in PAGES
              if (faults := style_faults(page))}


def test_reference_has_every_name_of_the_face():
  text = (DOCS / "python.md").read_text()
  assert sorted(re.findall(r"^::: bert_jax\.(\w+)$", text, re.MULTILINE)
                ) == sorted(bj.__all__)


def test_glossary_has_every_letter_and_key():
  text = (DOCS / "glossary.md").read_text()
  names = {name for line in re.findall(r"^\| (`.*?) \|", text, re.MULTILINE)
           for name in re.findall(r"`(\w+)`", line)}
  kinds = [LabeledSet]
  for kind in kinds:
    kinds += kind.__subclasses__()
  keys = {"row", "order", *spec.PRETRAINING_KEYS, *(
      name for kind in [*kinds, *Objective.members(()).values()]
      for name in kind.keys)}
  assert names == DIMENSIONS | keys


def test_every_page_is_on_the_site():
  settings = (ROOT / "tools" / "mkdocs.yml").read_text()
  assert set(re.findall(r"^  - (?:.*: )?(\w+\.md)$", settings, re.MULTILINE)
             ) == {page.name for page in PAGES[1:]}


def test_citation_and_changes_are_of_this_version():
  settings = configparser.ConfigParser()
  settings.read(ROOT / "setup.cfg")
  version = settings["metadata"]["version"]
  assert f"\nversion: {version}\n" in (ROOT / "CITATION.cff").read_text()
  assert f"\n## {version}" in (DOCS / "changelog.md").read_text()
