"""Environments of other programs that this project is compared with."""

import os
import pathlib
import subprocess
import sys

CACHE = pathlib.Path(os.environ.get(
    "XDG_CACHE_HOME", pathlib.Path.home() / ".cache")) / "bert_jax"


def environment(name, *installs):
  """The interpreter of an environment, made at the first call.

  Args:
    name: of its folder.
    installs: the arguments of pip install, one list after another.
  """
  folder, requirements = CACHE / name, repr(installs)
  python, done = folder / "bin" / "python", folder / "done"
  if not done.exists() or done.read_text() != requirements:
    print(f"Making an environment with "
          f"{', '.join(' '.join(words) for words in installs)} in {folder} ...",
          file=sys.stderr)
    subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    for words in installs:
      subprocess.run([python, "-m", "pip", "install", "--quiet", *words],
                     check=True)
    done.write_text(requirements)
  return str(python)


def print_table(head, rows):
  print("| " + " | ".join(head) + " |")
  print("| " + " | ".join("---" for _ in head) + " |")
  for row in rows:
    print("| " + " | ".join(map(str, row)) + " |")
  print(flush=True)
