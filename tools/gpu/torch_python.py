"""A Python that has PyTorch and transformers."""

import shutil
import subprocess
import sys

from beside import CACHE

_PACKAGES = ("torch", "transformers")


def find(given=None):
  """Its path: the one given, this one, or one in an environment of its own,
  which is made now; None, and a sentence why, if there is none."""
  if given:
    if not _works(given):
      sys.exit(f"--torch-python {given}: it cannot import torch and "
               "transformers, or torch sees no GPU.")
    return given
  if _works(sys.executable):
    return sys.executable
  folder = CACHE / "torch_gpu"
  python = folder / "bin" / "python"
  if not _works(python) and not _make(folder, python):
    print("PyTorch is not measured: it is not in this Python, and an "
          f"environment for it could not be made in {folder} (see above). "
          "--torch-python names another; --no-torch is silent about it.",
          file=sys.stderr)
    return None
  return str(python)


def _works(python):
  """Whether PyTorch finds a GPU there."""
  try:
    return subprocess.run(
        [python, "-c", "import torch, transformers; "
         "raise SystemExit(not torch.cuda.is_available())"],
        capture_output=True).returncode == 0
  except OSError:
    return False


def _make(folder, python):
  print(f"Making an environment with {' and '.join(_PACKAGES)} in {folder}; "
        "this is not part of the time ...", file=sys.stderr, flush=True)
  uv = shutil.which("uv")
  commands = ([[uv, "venv", "--quiet", "--clear", folder],
               [uv, "pip", "install", "--quiet", "--python", python]] if uv else
              [[sys.executable, "-m", "venv", "--clear", folder],
               [python, "-m", "pip", "install", "--quiet", "--retries", "1"]])
  commands[1] += _PACKAGES
  try:
    return all(subprocess.run(command).returncode == 0
               for command in commands) and _works(python)
  except OSError as error:
    print(error, file=sys.stderr)
    return False
