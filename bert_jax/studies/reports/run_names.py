"""Names of arms, from the folders of their runs."""

import os
import pathlib
import re
from collections.abc import Sequence

# A seed's number, and the word before it, at the end of a folder's name.
_SEED = re.compile(r"([/_.-]?seed)?[/_.=-]*\d*$")


def of_groups(groups: Sequence[Sequence[pathlib.Path]]) -> list[str]:
  """One for each, short and different.

  Args:
    groups: the folders of each arm's runs.
  """
  paths = [_common([folder.resolve() for folder in group]) for group in groups]
  for depth in range(1, max(len(path.parts) for path in paths) + 1):
    names = ["/".join(path.parts[-depth:]) for path in paths]
    if len(set(names)) == len(names):
      return names
  return [f"{path.name}#{i}" for i, path in enumerate(paths, 1)]


def _common(folders: Sequence[pathlib.Path]) -> pathlib.Path:
  """What the names begin with, without the seed: runs/a of runs/a_1 and
  runs/a_2; abl/pre of abl/pre/seed0."""
  text = os.path.commonprefix([str(folder) for folder in folders])
  if len(folders) > 1 or re.search(r"seed\d+$", text):
    text = _SEED.sub("", text)
  return pathlib.Path(text.rstrip("/_.-") or "/")
