"""What options there are, and what their classes say of them."""

import dataclasses
import functools
import inspect
import re
import types
import typing
from collections.abc import Iterator, Mapping
from typing import Any

from bert_jax.config.choices import Choice, text_of
from bert_jax.config.ranges import Range


@dataclasses.dataclass(frozen=True)
class Option:
  """
  Attributes:
    key: dotted, as `model.norm.bias`.
    type: of its values, as `int` or `post | pre | sandwich`.
    value: as text.
    meaning: from the docstring of its class, or of its family; with the values
      as an override gives them, `none` and not `None`.
    members: of a choice, by name what each is.
  """

  key: str
  type: str
  value: str
  meaning: str
  members: Mapping[str, str] = dataclasses.field(default_factory=dict)


def catalog(options: Any, prefix: str = "") -> Iterator[Option]:
  """Of a tree of dataclasses, in order; of a choice first itself, then the
  options of its member."""
  cls = type(options)
  hints = typing.get_type_hints(cls, include_extras=True)
  for field in dataclasses.fields(options):
    key, value = prefix + field.name, getattr(options, field.name)
    meaning = meanings(cls).get(field.name, "")
    if isinstance(value, Choice):
      family = value.family()
      yield Option(key, "choice", value.choice_name,
                   meaning or summary(family), {
                       name: summary(member)
                       for name, member in value.members().items()})
    elif not dataclasses.is_dataclass(value):
      yield Option(key, type_name(hints[field.name]), text_of(value), meaning)
    if dataclasses.is_dataclass(value):
      yield from catalog(value, key + ".")


def of_other_members(options: Any) -> dict[tuple[str, ...], list[Option]]:
  """Options that it has not, but would with other choices, by these: an option
  of ("data=table", "data=glue") comes with either of the two."""
  by_option: dict[tuple[str, ...], tuple[Option, list[str]]] = {}
  for option, choice in _of_other_members(options, "", ""):
    # What comes with one choice is not said of two; of two the last differs.
    _, choices = by_option.setdefault(_identity(option), (option, []))
    if not choices or (choice.rpartition(" ")[0]
                       == choices[0].rpartition(" ")[0]):
      choices.append(choice)
  own = {_identity(option) for option in catalog(options)}
  groups: dict[tuple[str, ...], list[Option]] = {}
  for identity, (option, choices) in by_option.items():
    if identity not in own:
      groups.setdefault(tuple(choices), []).append(option)
  return groups


def _identity(option: Option) -> tuple[str, ...]:
  return option.key, option.type, option.meaning


def _of_other_members(options: Any, prefix: str,
                      chosen: str) -> Iterator[tuple[Option, str]]:
  """Each with what is to be chosen, fewer choices before more."""
  further = []
  for field in dataclasses.fields(options):
    key, value = prefix + field.name, getattr(options, field.name)
    if isinstance(value, Choice):
      for name, member in value.members().items():
        if name != value.choice_name:
          choice = f"{chosen} {key}={name}".lstrip()
          yield from ((option, choice)
                      for option in catalog(member(), key + "."))
          if not chosen:  # A member may have another one of its family.
            further.append((member(), key + ".", choice))
    if dataclasses.is_dataclass(value):
      further.append((value, key + ".", chosen))
  for tree in sorted(further, key=lambda tree: tree[2].count("=")):
    yield from _of_other_members(*tree)


@functools.cache
def meanings(cls: type) -> dict[str, str]:
  """What the docstrings of a class and its bases say of each attribute."""
  texts: dict[str, str] = {}
  for base in reversed(cls.__mro__):
    _, _, section = (vars(base).get("__doc__") or "").partition("Attributes:\n")
    indent = " " * (len(section) - len(section.lstrip(" ")))
    lines = re.split(rf"\n+(?={indent}\S)", section.rstrip()) if indent else []
    for line in lines:
      names, colon, meaning = line.strip().partition(":")
      if colon and re.fullmatch(r"[a-z]\w*(, [a-z]\w*)*", names):
        text = re.sub(r"\b(None|True|False)(?=[:;,.)])",
                      lambda value: value[0].lower(), " ".join(meaning.split()))
        texts |= dict.fromkeys(names.split(", "), text)
  return texts


def summary(cls: type) -> str:
  """The first sentence of its docstring."""
  text = " ".join((inspect.getdoc(cls) or "").partition("\n\n")[0].split())
  # Not the stops of "et al. 2019", nor what stands in brackets.
  first = re.split(r"(?<=[\w)])[.] (?=[A-Z`])", text)[0].rstrip(".")
  return first


def type_name(hint: Any) -> str:
  """As a user writes values of it, as `int, none` or `0 to 1`."""
  origin, arguments = typing.get_origin(hint), typing.get_args(hint)
  if origin is typing.Annotated:
    number = type_name(arguments[0])
    ranges = [r for r in hint.__metadata__ if isinstance(r, Range)]
    return " ".join([number, *(r.short() for r in ranges[:1])]).rstrip()
  if origin is typing.Literal:
    return " | ".join(map(str, arguments))
  if origin in (types.UnionType, typing.Union):
    return " | ".join("none" if a is type(None) else type_name(a)
                      for a in arguments)
  if origin is tuple:
    return f"{type_name(arguments[0])},..."
  names: dict[Any, str] = {bool: "true | false", str: "text"}
  return names.get(hint, hint.__name__)
