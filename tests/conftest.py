"""What every test starts from: eight CPU devices and a strict jax."""

import os
import pathlib
import subprocess
import sys

# Tests compile much and compute little, and the same things again.
_COMPILE = "--xla_backend_optimization_level=0"
# Compiles a training step in 1.4 seconds where it takes 3.8; an XLA that does
# not know a flag aborts, and newer ones do not know this one.
_WITHOUT_FUSION_EMITTERS = "--xla_cpu_use_fusion_emitters=false"


def _starts(flags: str) -> bool:
  """Whether this machine's XLA starts with these flags."""
  return not subprocess.run(
      [sys.executable, "-c", "import jax; jax.devices()"], capture_output=True,
      env=os.environ | {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": flags}).returncode


if "PYTEST_XDIST_WORKER" not in os.environ:  # they have what it found
  os.environ["XLA_FLAGS"] = f"{_COMPILE} {_WITHOUT_FUSION_EMITTERS}"
  if not _starts(os.environ["XLA_FLAGS"]):
    os.environ["XLA_FLAGS"] = _COMPILE
# Before the first import of jax, which reads them once; by the environment, so
# that processes started by tests are as strict.
os.environ.update(
    JAX_PLATFORMS="cpu",
    JAX_NUM_CPU_DEVICES="8",
    JAX_NUMPY_RANK_PROMOTION="raise",
    JAX_NUMPY_DTYPE_PROMOTION="strict",
    JAX_COMPILATION_CACHE_DIR=str(
        pathlib.Path(__file__).parents[1] / ".pytest_cache" / "compiled"),
    JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS="0.2",
    HYPOTHESIS_STORAGE_DIRECTORY=str(
        pathlib.Path(__file__).parents[1] / ".pytest_cache" / "hypothesis"),
)

import hypothesis
import pytest

from tests import small_run

# The same examples in every run, on a machine of any speed.
hypothesis.settings.register_profile(
    "suite", max_examples=60, deadline=None, derandomize=True, database=None)
hypothesis.settings.load_profile("suite")


@pytest.fixture(scope="session")
def folder(tmp_path_factory) -> pathlib.Path:
  """What small_run writes, and the cache of the corpora made from it."""
  folder = tmp_path_factory.mktemp("runs")
  small_run.write(folder)
  os.environ["BERT_JAX_CACHE"] = str(folder / "cache")
  return folder


@pytest.fixture(scope="session")
def shared() -> pathlib.Path:
  """The folder of golden arrays, texts and tasks beside a checkout."""
  folder = pathlib.Path(__file__).parents[2] / "shared"
  if not folder.is_dir():
    pytest.skip(f"no folder {folder} of golden data on this machine")
  return folder
