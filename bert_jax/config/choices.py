"""Choices, overrides and changes: an experiment as a tree of dataclasses."""

import dataclasses
import functools
import json
import re
import types
import typing
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, ClassVar

from bert_jax.config.errors import UserError, nearest, nearest_keys
from bert_jax.config.pages import (
    MODULES, Page, modules_of, pages_of, visible_modules)


class Choice:
  """Base of the families; a family's members are frozen dataclasses."""

  choice_name: ClassVar[str]
  _abstract: ClassVar[bool]

  def __init_subclass__(cls, name: str | None = None, abstract: bool = False,
                        **kwargs: Any):
    """
    Args:
      name: by which it is chosen; None: that of its class.
      abstract: what members have in common, and not one of them.
    """
    super().__init_subclass__(**kwargs)
    cls._abstract = abstract or cls.__name__.startswith("_")
    stem = cls.__name__.removesuffix(cls.family().__name__)
    cls.choice_name = name or re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_",
                                     stem).lower()

  @classmethod
  def family(cls) -> type["Choice"]:
    return next(c for c in cls.__mro__ if Choice in c.__bases__)

  @classmethod
  def members(cls, modules: Sequence[str] | None = None
              ) -> dict[str, type["Choice"]]:
    """Every public member of the family by name; a redefinition replaces.

    Args:
      modules: of the pages whose members count, of one name the last; None: of
        all that were loaded.
    """
    modules = visible_modules() if modules is None else modules
    rank = {module: i for i, module in enumerate(modules)}
    members, open_classes = [], cls.family().__subclasses__()
    for member in open_classes:
      open_classes.extend(member.__subclasses__())
      if ("__dataclass_fields__" in vars(member)
          and not member._abstract
          and (not member.__module__.startswith(MODULES)
               or member.__module__ in rank)):
        members.append(member)
    members.sort(key=lambda member: rank.get(member.__module__, -1))
    return {member.choice_name: member for member in members}

  @classmethod
  def _undecorated(cls, name: str) -> str:
    """A hint, if a class of that name is no dataclass."""
    for member in cls.family().__subclasses__():
      if (member.choice_name == name
          and "__dataclass_fields__" not in vars(member)):
        return (f"; the class {member.__name__} has no decorator: write "
                "@bert_jax.choice, or @dataclasses.dataclass(frozen=True), "
                "above it")
    return ""

  @classmethod
  def member(cls, name: str, key: str,
             modules: Sequence[str]) -> type["Choice"]:
    members = cls.members(modules)
    if name not in members:
      raise UserError(f"{key}={name}: no such {cls.family().__name__.lower()}"
                      + cls._undecorated(name) + nearest(name, members))
    return members[name]


def override(base: Any, assignments: Iterable[str],
             pages: Iterable[Page] | None = None) -> Any:
  """`base` with `key=value` assignments applied, later ones over earlier.

  Args:
    pages: whose members may be named, beside those of the package, of one name
      the first page's; None: in a page its own, else of all pages, first those
      that `base` is from.

  Raises:
    UserError: an unknown key or member, or a value of another type.
  """
  modules = (visible_modules(pages_of(base)) if pages is None
             else modules_of(pages))
  tree = _Node.of(base)
  for assignment in assignments:
    key, equals, text = assignment.partition("=")
    if not equals:
      raise UserError(f"{assignment!r} is not an override; write key=value.")
    try:
      tree.assign(key.strip().split("."), text, key.strip(), modules)
    except _UnknownOption as error:
      raise UserError(f"{key.strip()}: {error.cls.__name__} has no option "
                      f"{error.name!r}" + _nearest_option(error, tree)
                      ) from None
  return tree.build()


def _nearest_option(error: "_UnknownOption", tree: "_Node") -> str:
  """Of the same class, or else anywhere in the tree."""
  elsewhere = nearest_keys(error.name, tree.keys())
  text = nearest(error.name, error.valid)
  if elsewhere and "did you mean" not in text:
    return f"; did you mean {' or '.join(elsewhere)}?"
  return text


def changes(base: Any, run: Any) -> list[str]:
  """The assignments that turn `base` into `run`."""
  return list(_changes(base, run, ""))


def described_changes(base: Any, run: Any) -> list[str]:
  """`changes` for a reader, each with what it was."""
  was = options(base)
  return [change + (f" (was {was[key] or chr(34) * 2})" if (
      key := change.partition("=")[0]) in was else "")
          for change in changes(base, run)]


def options(experiment: Any) -> dict[str, str]:
  """Every option of an experiment by its dotted key, in order, as text."""
  texts = {}
  for field in dataclasses.fields(experiment):
    value = getattr(experiment, field.name)
    if isinstance(value, Choice):
      texts[field.name] = value.choice_name
    if dataclasses.is_dataclass(value):
      texts |= {f"{field.name}.{k}": v for k, v in options(value).items()}
    else:
      texts[field.name] = text_of(value)
  return texts


def _changes(base: Any, run: Any, prefix: str) -> Iterator[str]:
  for field in dataclasses.fields(run):
    key, old, new = (prefix + field.name, getattr(base, field.name),
                     getattr(run, field.name))
    if not dataclasses.is_dataclass(new):
      # repr, so that 1 and 1.0, and nan and nan, compare as they are written.
      if repr(old) != repr(new):
        yield f"{key}={text_of(new)}"
      continue
    if isinstance(new, Choice) and type(old) is not type(new):
      yield f"{key}={new.choice_name}"
      old = type(new)()
    yield from _changes(old, new, key + ".")


def text_of(value: Any) -> str:
  """A value as an override gives it."""
  if isinstance(value, tuple):
    plain = all(re.fullmatch(r"[^,\[\]]+", str(v)) for v in value)
    return ",".join(map(str, value)) if plain else json.dumps(list(value))
  if value is None or isinstance(value, bool):
    return str(value).lower()
  return str(value)


@functools.cache
def _hints(cls: type) -> dict[str, Any]:
  return typing.get_type_hints(cls)


class _UnknownOption(Exception):
  """A class has no option of this name."""

  def __init__(self, cls: type, name: str, valid: Sequence[str]):
    super().__init__(name)
    self.cls, self.name, self.valid = cls, name, valid


@dataclasses.dataclass
class _Node:
  """A dataclass taken apart, so that it is validated once, when complete."""

  cls: type
  values: dict[str, Any]

  @classmethod
  def of(cls, value: Any) -> "_Node":
    values = {f.name: getattr(value, f.name)
              for f in dataclasses.fields(value)}
    return cls(type(value), {k: cls.of(v) if dataclasses.is_dataclass(v) else v
                             for k, v in values.items()})

  def build(self) -> Any:
    return self.cls(**{k: v.build() if isinstance(v, _Node) else v
                       for k, v in self.values.items()})

  def keys(self, prefix: str = "") -> Iterator[str]:
    """Dotted, of all values and choices below."""
    for name, value in self.values.items():
      yield prefix + name
      if isinstance(value, _Node):
        yield from value.keys(f"{prefix}{name}.")

  def assign(self, path: Sequence[str], text: str, key: str,
             modules: Sequence[str]) -> None:
    name, *rest = path
    if name not in self.values:
      raise _UnknownOption(self.cls, name, list(self.values))
    value = self.values[name]
    if rest:
      if not isinstance(value, _Node):
        raise UserError(f"{key}: {name!r} is a value and has no options.")
      value.assign(rest, text, key, modules)
    elif not isinstance(value, _Node):
      self.values[name] = _parse(text, _hints(self.cls)[name], key)
    elif not issubclass(value.cls, Choice):
      raise UserError(f"{key} is a group; set one of its options"
                      + nearest(text, value.values))
    else:
      member = value.cls.member(text, key, modules)
      if member is not value.cls:
        self.values[name] = _Node.of(member())


def _parse(text: str, hint: Any, key: str) -> Any:
  """`text` as a value of the annotated type `hint`."""
  origin, arguments = typing.get_origin(hint), typing.get_args(hint)
  if origin in (types.UnionType, typing.Union):
    if text.lower() == "none" and type(None) in arguments:
      return None
    inner, = (a for a in arguments if a is not type(None))
    return _parse(text, inner, key)
  if origin is typing.Literal:
    if text not in arguments:
      raise UserError(f"{key}={text}" + nearest(text, arguments))
    return text
  if origin is tuple:
    items = (json.loads(text) if text.startswith("[")
             else text.split(",") if text else [])
    return tuple(_parse(str(item), arguments[0], key) for item in items)
  try:
    return _SCALARS[hint](text)
  except ValueError:
    raise UserError(
        f"{key}={text}: expected {hint.__name__}, as in {key}="
        f"{_EXAMPLES[hint]}.") from None


def _integer(text: str) -> int:
  number = float(text) if re.search(r"[eE.]", text) else int(text)
  if number != int(number):
    raise ValueError
  return int(number)


def _boolean(text: str) -> bool:
  if text.lower() not in ("true", "false"):
    raise ValueError
  return text.lower() == "true"


_SCALARS = {int: _integer, float: float, bool: _boolean, str: str}
_EXAMPLES = {int: "1000", float: "1e-4", bool: "true", str: "text"}
