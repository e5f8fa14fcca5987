"""The setup of every test: eight CPU devices and strict promotion rules."""

import gc
import os
import pathlib
import subprocess
import sys
import types

# Tests spend their time compiling, mostly the same few programs.
_COMPILE = "--xla_backend_optimization_level=0"
# Cuts the compilation of a training step from 3.8 to 1.4 seconds. XLA aborts on
# unknown flags, and newer versions no longer have this one.
_WITHOUT_FUSION_EMITTERS = "--xla_cpu_use_fusion_emitters=false"


def _starts(flags: str) -> bool:
  """Whether this machine's XLA starts with these flags."""
  return not subprocess.run(
      [sys.executable, "-c", "import jax; jax.devices()"], capture_output=True,
      env=os.environ | {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": flags}).returncode


if "PYTEST_XDIST_WORKER" not in os.environ:  # workers inherit it
  os.environ["XLA_FLAGS"] = f"{_COMPILE} {_WITHOUT_FUSION_EMITTERS}"
  if not _starts(os.environ["XLA_FLAGS"]):
    os.environ["XLA_FLAGS"] = _COMPILE
# Set before jax is imported, which reads them once; in the environment, so that
# subprocesses of the tests are as strict.
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

from bert_jax.runs import record, train
from bert_jax.studies.members import runs as members, sweep
from bert_jax.training import programs
from tests import small_run

# Tracing makes millions of objects beside the many of the libraries, which
# live as long as the process.
gc.freeze()
gc.set_threshold(50_000, 20, 50)

# The same examples in every run, on a machine of any speed.
hypothesis.settings.register_profile(
    "suite", max_examples=60, deadline=None, derandomize=True, database=None)
hypothesis.settings.load_profile("suite")


@pytest.fixture(scope="session", autouse=True)
def uncounted_flops():
  """Counting takes a second for each network; test_record counts."""
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(record, "step_flops", lambda experiment: 0)
    yield


@pytest.fixture(scope="session", autouse=True)
def undrawn_curves():
  """A picture takes as long as some runs; test_loop has one drawn."""
  with pytest.MonkeyPatch.context() as patch:
    for module in (train, members, sweep):
      patch.setattr(module, "plots", types.SimpleNamespace(
          plot_curves=lambda jsonl, png: None))
    yield


@pytest.fixture(scope="session", autouse=True)
def shared_programs():
  """Of all tests of a process, which are mostly the same few."""
  with pytest.MonkeyPatch.context() as patch, programs.shared():
    patch.setattr(programs, "_MOST", 10_000)
    yield


@pytest.fixture(scope="session")
def folder(tmp_path_factory) -> pathlib.Path:
  """The files of small_run, and the cache of the corpora built from them."""
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
