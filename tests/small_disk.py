"""A disk that is soon full, or that nobody may write to, for one subprocess.

  subprocess.run([*small_disk.prefix(folder, megabytes=2), sys.executable, ...])

The command finds an empty tmpfs at `folder`; nobody else sees it, and it goes
when the command ends. So what is to be looked at there has to be looked at, or
copied to another folder, by the command itself.
"""

import functools
import pathlib
import subprocess

import pytest

_MOUNT = 'mount -t tmpfs -o "$1" none "$2" && shift 2 && exec "$@"'


def prefix(folder: pathlib.Path, megabytes: int,
           read_only: bool = False) -> list[str]:
  """The words to put before a command; skips the test where none works."""
  folder.mkdir(parents=True, exist_ok=True)
  options = f"size={megabytes}m" + (",ro" if read_only else "")
  return [*_unshare(), "sh", "-c", _MOUNT, "mount", options, str(folder)]


@functools.cache
def _unshare() -> list[str]:
  tried = [["unshare", "--mount"],
           ["unshare", "--user", "--map-root-user", "--mount"]]
  for words in tried:
    command = [*words, "sh", "-c", _MOUNT, "mount", "size=1m", "/tmp", "true"]
    try:
      if not subprocess.run(command, capture_output=True).returncode:
        return words
    except FileNotFoundError:
      pytest.skip("needs unshare, which makes a small disk")
  pytest.skip("this machine lets nobody mount a small disk")
