"""Arms: the variants of a study, from the words that name them."""

import dataclasses
import difflib
import re
import shlex
from collections.abc import Iterable, Mapping, Sequence

from bert_jax import config
from bert_jax.checkpoints.reading import resolve_experiment
from bert_jax.config import Page, UserError
from bert_jax.experiment import Experiment
from bert_jax.studies.definition import BASE

_NAME = r"[A-Za-z0-9][A-Za-z0-9_.+-]*"
_OPTIONS = tuple(field.name for field in dataclasses.fields(Experiment))


@dataclasses.dataclass(frozen=True, eq=False)
class Arm:
  """A variant.

  Attributes:
    words: as they were typed; "" of the base.
    page: that its experiment is from; None: it was made in Python.
  """

  name: str
  words: str
  experiment: Experiment
  page: Page | None = None

  def changes(self, base: "Arm") -> list[str]:
    return config.changes(base.experiment.untracked(),
                          self.experiment.untracked())


def sort_words(words: Iterable[str]) -> tuple[list[str], dict[str, str]]:
  """Options of all arms, and arms by name, of `key=value` words.

  Raises:
    UserError: two arms have one name.
  """
  overrides, arms = [], {}
  for word in words:
    name, _, text = word.partition("=")
    if name.split(".")[0] in _OPTIONS:
      overrides.append(word)
    elif name in arms:
      raise UserError(f"Two arms are called {name}.")
    else:
      arms[name] = text
  return overrides, arms


def make_arms(page: Page | Experiment, overrides: Sequence[str],
              arms: Mapping[str, str | Experiment],
              cumulative: bool = False) -> list[Arm]:
  """The base and its variants.

  Args:
    page: of the base.
    overrides: of all arms.
    arms: by name overrides of the base, divided as a shell does; a page may
      stand before them. Or an experiment.
    cumulative: whether an arm has the words of all before it, too.

  Raises:
    UserError: names all faults of all arms.
  """
  try:
    base = _make(BASE, "", page, overrides)
  except UserError as error:
    raise UserError(f"{error}{_option_hint(overrides)}") from None
  if cumulative:
    arms = _cumulated(arms)
  faults, others = [], []
  for name, words in arms.items():
    try:
      _check_name(name, words)
      others.append(_make(name, words, page, overrides))
    except UserError as error:
      faults.append(f"{name}: {error}")
  for i, arm in enumerate(others):
    if arm.experiment.seed != base.experiment.seed:
      faults.append(f"{arm.name}: seed={arm.experiment.seed}; the seeds of all "
                    "arms are the same.")
    if not arm.changes(base):
      faults.append(f"{arm.name}: it is the base; nothing differs.")
    faults += [f"{arm.name}: it is the same as {other.name}."
               for other in others[:i] if not arm.changes(other)]
  if faults:
    raise UserError("\n  ".join(["Nothing was started:", *faults]))
  return [base, *others]


def _cumulated(arms: Mapping[str, str | Experiment]) -> dict[str, str]:
  """Each with the words of all before it."""
  others = [name for name, words in arms.items()
            if isinstance(words, Experiment) or "=" not in words.split(" ")[0]]
  if others:
    raise UserError(f"A cumulative study adds options: {', '.join(others)} "
                    "cannot be a page or an experiment.")
  texts = list(arms.values())
  return {name: joined(texts[:i + 1]) for i, name in enumerate(arms)}


def joined(texts: Iterable[str]) -> str:
  """The words of all: choices before their options, as a choice begins with
  its defaults; otherwise in their order, so that the last one holds."""
  words = [word for text in texts for word in shlex.split(text)]
  return shlex.join(sorted(
      words, key=lambda word: word.partition("=")[0].count(".")))


def _make(name: str, words: str | Experiment, page: Page | Experiment,
          overrides: Sequence[str]) -> Arm:
  if isinstance(words, Experiment):
    return Arm(name, "", words)
  own = shlex.split(words)
  if own and "=" not in own[0]:
    page, *own = _load_page(own[0], name), *own[1:]
  if isinstance(page, Experiment):
    return Arm(name, words, resolve_experiment(page, [*overrides, *own]))
  return Arm(name, words, resolve_experiment(
      page.experiment, [*overrides, *own], page), page)


def _check_name(name: str, words: str | Experiment) -> None:
  if name in (*_OPTIONS, BASE):
    raise UserError("an option or the base is called so; give the arm another "
                    "name.")
  if not re.fullmatch(_NAME, name):
    raise UserError("a name has letters, digits and _ . + - only, as its runs "
                    "lie in a folder of that name.")
  if not words:
    raise UserError("nothing differs from the base; write NAME=\"key=value "
                    "...\" or NAME=page.py.")


def _load_page(name: str, arm: str) -> Page:
  try:
    return config.load_page(name)
  except UserError as error:
    close = difflib.get_close_matches(arm, _OPTIONS, n=1)
    if close and f"No config page {name!r}" in str(error):
      raise UserError(f"there is no config page {name!r}; did you mean the "
                      f"option {close[0]}={name}?") from error
    raise


def _option_hint(overrides: Sequence[str]) -> str:
  """For an arm that has the name of an option."""
  named = [word.partition("=")[0] for word in overrides
           if "=" in word.partition("=")[2]]
  return "".join(f" {name} is an option: if it was to be an arm, give it "
                 "another name." for name in named if name in _OPTIONS)
