"""Config pages: files that bind `experiment`, each a module of its own."""

import contextvars
import dataclasses
import hashlib
import importlib.metadata
import pathlib
import sys
import types
from collections.abc import Iterable, Mapping
from typing import Any

from bert_jax.config.errors import UserError, nearest


def _pages_folder() -> pathlib.Path:
  """Of a checkout, or what was installed with the package."""
  checkout = pathlib.Path(__file__).resolve().parents[2]
  if (checkout / "setup.cfg").exists():
    return checkout / "configs"
  installed = importlib.metadata.files("bert_jax") or []
  return next((pathlib.Path(file.locate()).resolve().parent
               for file in installed
               if file.match("bert_jax/configs/quickstart.py")),
              checkout / "configs")


PAGES = _pages_folder()
MODULES = "bert_jax_page_"  # what the names of pages' modules begin with


@dataclasses.dataclass(frozen=True, eq=False)
class Page:
  """A loaded config page.

  Attributes:
    pages: those it builds on, by the names that it calls them.
  """

  experiment: Any
  source: str
  docstring: str
  module: str
  pages: Mapping[str, "Page"]

  def to_json(self) -> dict[str, Any]:
    """Its text and that of all it builds on, as `run_page` takes them."""
    return {"source": self.source, "pages": {
        name: page.to_json() for name, page in self.pages.items()}}


@dataclasses.dataclass(frozen=True)
class _Running:
  """A page that is being executed.

  Attributes:
    folder: that the names of pages are relative to.
    stored: the pages it builds on, as JSON; None: they are files.
    sources: of it and of those that build on it.
    pages: those that it has loaded.
  """

  module: str
  folder: pathlib.Path
  stored: Mapping[str, Any] | None
  sources: tuple[str, ...]
  pages: dict[str, Page] = dataclasses.field(default_factory=dict)


_LOADED: dict[str, Page] = {}  # by module, the last one loaded last
_RUNNING = contextvars.ContextVar[_Running | None]("running", default=None)


def pages_of(value: Any) -> list[Page]:
  """The pages that define classes of a tree of dataclasses."""
  pages = {c.__module__: _LOADED[c.__module__] for c in type(value).__mro__
           if c.__module__ in _LOADED}
  if dataclasses.is_dataclass(value):
    for field in dataclasses.fields(value):
      pages |= {p.module: p for p in pages_of(getattr(value, field.name))}
  return list(pages.values())


def modules_of(pages: Iterable[Page]) -> list[str]:
  """Of pages and those they build on; what counts more is later."""
  return [module for page in reversed(list(pages)) for module in (
      *modules_of(page.pages.values()), page.module)]


def visible_modules(preferred: Iterable[Page] = ()) -> list[str]:
  """Modules of the pages that are visible here, all or, in a page, those that
  it has loaded and its own; what counts more is later."""
  running, first = _RUNNING.get(), modules_of(preferred)
  return ([*_LOADED, *first] if running is None else
          [*modules_of(running.pages.values()), *first, running.module])


def load_page(name: str) -> Page:
  """The page at a path, of that name in the project's `configs/`, or else the
  file of that name with .py.

  A page that calls this has paths relative to its own folder, or gets what was
  stored with it.
  """
  running = _RUNNING.get()
  if running is None:
    return _read_page(name, pathlib.Path())
  if name not in running.pages:
    if running.stored is None:
      page = _read_page(name, running.folder)
    elif name in running.stored:
      page = run_page(path=name, **running.stored[name])
    else:
      raise UserError(f"The page {name!r}, which a page builds on, is not "
                      "stored with it.")
    running.pages[name] = page
  return running.pages[name]


def page_names() -> list[str]:
  """Of the project's pages."""
  return sorted(str(path.relative_to(PAGES).with_suffix(""))
                for path in PAGES.rglob("*.py"))


def page_source(name: str) -> str:
  """The text of a page, which is not run.

  Raises:
    UserError: there is none.
  """
  return _page_path(name, pathlib.Path()).read_text()


def _page_path(name: str, folder: pathlib.Path) -> pathlib.Path:
  for path in (folder / name, PAGES / name, PAGES / f"{name}.py",
               folder / f"{name}.py"):
    if path.is_file():
      return path
  raise UserError(f"No config page {name!r}, neither as a file in "
                  f"{folder.absolute()} nor in configs/"
                  f"{nearest(name, page_names())}")


def _read_page(name: str, folder: pathlib.Path) -> Page:
  path = _page_path(name, folder)
  return run_page(path.read_text(), str(path))


def run_page(source: str, path: str,
             pages: Mapping[str, Any] | None = None) -> Page:
  """Executes a page's source; its classes become members of their families.

  A page that was executed before, with the same pages below it, is that one.

  Args:
    path: of its file, for messages and for the pages that it builds on.
    pages: the JSON of those; None: they are files.
  """
  running = _RUNNING.get()
  above = running.sources if running else ()
  if source in above:
    raise UserError(f"The config page {path} builds on itself.")
  module = types.ModuleType(
      f"{MODULES}{hashlib.sha256(source.encode()).hexdigest()[:16]}_"
      f"{len(_LOADED)}")
  running = _Running(module.__name__, pathlib.Path(path).parent, pages,
                     (*above, source))
  token = _RUNNING.set(running)
  try:
    for page in reversed(_LOADED.values()):
      if page.source == source and all(
          load_page(name) is other for name, other in page.pages.items()):
        _LOADED[page.module] = _LOADED.pop(page.module)
        return page
    sys.modules[module.__name__] = module
    exec(compile(source, path, "exec"), vars(module))
  except BaseException:
    sys.modules.pop(module.__name__, None)
    raise
  finally:
    _RUNNING.reset(token)
  if not hasattr(module, "experiment"):
    raise UserError(f"{path} is not a config page: it does not bind "
                    "`experiment`.")
  _LOADED[module.__name__] = Page(module.experiment, source,
                                  module.__doc__ or "", module.__name__,
                                  running.pages)
  return _LOADED[module.__name__]
