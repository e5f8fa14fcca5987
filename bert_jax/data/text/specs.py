"""Which files and data sets a text is made of, written as one string, a *spec*.

  embedded                      docstrings of this installation (docstrings.py)
  text/*.txt.gz                 a path or a glob; ** for folders at any depth
  a.txt,b.jsonl.xz              several, separated by commas
  a.txt?format=prose            with the layout said instead of recognized
  a.jsonl?field=body            JSON lines, the text in another column
  tfds:imdb_reviews:test        a TFDS data set; split `train` unless given
  tfds:glue/sst2?field=sentence

A folder or file that is there is meant as it is spelled, with its brackets and
commas. A pipe, as /dev/stdin, is read once.
"""

import collections
import dataclasses
import glob
import logging
import os
import pathlib
import re
from collections.abc import Iterator

from bert_jax.config import UserError, nearest
from bert_jax.files import check_local

FORMATS = ("auto", "sentences", "prose", "wrapped", "jsonl", "verbatim")
_log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class TextSource:
  """A file, `tfds:...` or `embedded`.

  Attributes:
    path: where it is.
    name: what its documents are named after, the same on every machine: the
      path from the fixed part of its glob on.
    format, field: as the spec says.
    digest: of its content, where it is the copy of a pipe.
  """

  path: str
  name: str
  format: str = "auto"
  field: str = "text"
  digest: str = ""

  @property
  def is_file(self) -> bool:
    return self.path != "embedded" and not self.path.startswith("tfds:")

  @property
  def is_stream(self) -> bool:
    """Whether it can be read only once."""
    return self.is_file and not os.path.isfile(self.path)

  @property
  def identity(self) -> tuple[str, str, str]:
    """Equal where the same text would be read."""
    path = os.path.realpath(self.path) if self.is_file else self.path
    return path, self.format, self.field


def text_sources(spec: str) -> list[TextSource]:
  """What a spec names, in order, each file once.

  Raises:
    UserError: nothing is there, or an option is unknown.
  """
  sources, words = [], [word for word in spec.split(",") if word.strip()]
  while words:
    # Commas may belong to names, so up to all of them are tried.
    for count in range(1, len(words) + 1):
      part = ",".join(words[:count]).strip()
      if named := _named(part):
        break
    else:
      count = _explain(_options(words[0].strip())[0])
    sources += named
    words = words[count:]
  if not sources:
    raise UserError("No text is named; give a file, a glob, tfds:NAME or "
                    "embedded.")
  return _with_distinct_names(_once(spec, sources))


def without(sources: list[TextSource],
            others: list[TextSource]) -> list[TextSource]:
  """Those that are not among others."""
  unwanted = {other.identity[0] for other in others}
  return [s for s in sources if s.identity[0] not in unwanted]


def _named(part: str) -> list[TextSource]:
  path, options = _options(part)
  if path == "embedded" or path.startswith("tfds:"):
    return [TextSource(path, path, **options)]
  folder, paths = _matches(os.path.expanduser(path))
  return [TextSource(path, _utf8(os.path.relpath(path, folder or ".")),
                     **options) for path in paths]


def _options(part: str) -> tuple[str, dict[str, str]]:
  match = re.fullmatch(r"(.+?)\?(\w+=[^?]*)", part)
  if not match or os.path.exists(part):
    return part, {}
  options = dict(pair.partition("=")[::2] for pair in match[2].split("&"))
  for name in options:
    if name not in ("format", "field"):
      raise UserError(f"{part}: unknown option {name!r}"
                      + nearest(name, ("format", "field")))
  if options.get("format", "auto") not in FORMATS:
    raise UserError(f"{part}: unknown format {options['format']!r}"
                    + nearest(options["format"], FORMATS))
  return match[1], options


def _matches(pattern: str) -> tuple[str, list[str]]:
  """The folder that a pattern begins with, and the files that match it."""
  check_local(pattern)
  if os.path.exists(pattern):
    return os.path.dirname(pattern), [pattern] * (not os.path.isdir(pattern))
  folder, rest = pattern, ""
  while folder and not os.path.isdir(folder):
    folder, name = os.path.split(folder)
    rest = os.path.join(name, rest) if rest else name
  return folder, sorted(p for p in set(_glob(folder, rest))
                        if not os.path.isdir(p))


def _glob(folder: str, pattern: str) -> list[str]:
  """As glob.glob, but ** visits no folder twice, whatever links there are."""
  parts = pattern.split("/")
  if "**" not in parts:
    return glob.glob(os.path.join(glob.escape(folder), pattern))
  at = parts.index("**")
  roots = _glob(folder, "/".join(parts[:at])) if at else [folder]
  return [path for root in roots if os.path.isdir(root or ".")
          for inner in _folders(root)
          for path in _glob(inner, "/".join(parts[at + 1:]) or "*")]


def _folders(root: str) -> Iterator[str]:
  """A folder and those below it, each once; hidden ones are left out."""
  seen, pending, links = set(), [root], []
  while pending:
    folder = pending.pop()
    status = os.stat(folder or ".")
    if (status.st_dev, status.st_ino) not in seen:
      seen.add((status.st_dev, status.st_ino))
      yield folder
      for entry in sorted(os.scandir(folder or "."), key=lambda e: e.name):
        if entry.is_dir() and not entry.name.startswith("."):
          later = links if entry.is_symlink() else pending
          later.append(os.path.join(folder, entry.name))
    if not pending:  # Links last: a folder is called by its own name.
      pending, links = links, []


def _explain(pattern: str) -> None:
  """
  Raises:
    UserError: why nothing matches.
  """
  pattern = os.path.expanduser(pattern)
  if os.path.isdir(pattern):
    raise UserError(f"{pattern} is a folder; name its files, as in "
                    f"'{pattern.rstrip('/')}/*.txt'.")
  folder = pathlib.Path(pattern).parent
  while not folder.is_dir():
    folder = folder.parent
  names = sorted(p.name for p in folder.iterdir())[:20]
  raise UserError(f"No file matches {pattern!r}. In {folder}"
                  + nearest(os.path.basename(pattern), names))


def _once(spec: str, sources: list[TextSource]) -> list[TextSource]:
  """Each file once, by its own name rather than by that of a link."""
  by_identity: dict[tuple[str, str, str], TextSource] = {}
  for source in sorted(sources, key=lambda s: s.is_file and (
      os.path.realpath(s.path) != os.path.abspath(s.path))):
    by_identity.setdefault(source.identity, source)
  kept = {id(source) for source in by_identity.values()}
  if len(kept) < len(sources):
    _log.warning("%s names %d of its %d files again, by links or otherwise; "
                 "each is read once.", spec, len(sources) - len(kept),
                 len(sources))
  return [source for source in sources if id(source) in kept]


def _with_distinct_names(sources: list[TextSource]) -> list[TextSource]:
  """Files of one name are distinguished by their folders."""
  streams = [s for s in sources if s.is_stream]
  files = [s for s in sources if s.is_file and not s.is_stream]
  renamed = {id(s): f"pipe{i}" for i, s in enumerate(streams)}
  paths = {os.path.abspath(s.path) for s in files}
  names = collections.Counter(
      name for name, _ in {(s.name, os.path.abspath(s.path)) for s in files})
  if len(names) < len(paths):
    common = os.path.commonpath(map(os.path.dirname, paths))
    renamed |= {id(s): _utf8(os.path.relpath(s.path, common)) for s in files}
  return [dataclasses.replace(s, name=renamed.get(id(s), s.name))
          for s in sources]


def _utf8(name: str) -> str:
  """A name without the bytes in it that are no UTF-8."""
  return os.fsencode(name).decode(errors="replace")
