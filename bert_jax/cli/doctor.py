"""Whether this machine can train: doctor."""

import argparse
import glob
import importlib.metadata
import os
import pathlib
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from typing import NamedTuple

import jax

from bert_jax import config, distributed, files
from bert_jax.analysis import describe
from bert_jax.cli import flags
from bert_jax.config import UserError
from bert_jax.experiment import Experiment

_SMALL = ("model.vocab_size=64", "model.hidden_size=32", "data.length=16",
          "model.num_hidden_layers=1", "model.num_attention_heads=2",
          "model.intermediate_size=64", "batch_size=8")
_PACKAGES = ("jax", "jaxlib", "libtpu", "flax", "optax", "orbax-checkpoint")
_LEAST_DISK = 5 * 10**9  # bytes; of BERT-base a checkpoint has 1.3e9


class Finding(NamedTuple):
  """
  Attributes:
    about: what was looked at.
    text: what it is like.
    remedy: what to do; "": it is well.
  """

  about: str
  text: str
  remedy: str = ""


def add(commands: argparse._SubParsersAction) -> None:
  doctor = flags.command(
      commands, "doctor", _doctor, "Looks for what would keep a run from "
      "training here: versions, devices, hosts, disk, the compiler.")
  doctor.add_argument("--workdir", default=".", help="where runs will be; "
                      "default: here")
  flags.several_hosts(doctor)


def _doctor(options: argparse.Namespace) -> None:
  """
  Raises:
    UserError: something is wrong.
  """
  faults = 0
  for finding in findings(pathlib.Path(options.workdir), os.environ):
    faults += bool(finding.remedy)
    flags.say(f"{'!!' if finding.remedy else 'ok'}  {finding.about}: "
              f"{finding.text}")
    if finding.remedy:
      flags.say(f"      {finding.remedy}")
  if faults:
    raise UserError(f"{faults} of these need something to be done.")


def findings(workdir: pathlib.Path,
             environment: Mapping[str, str]) -> Iterator[Finding]:
  """One after another, as some take seconds."""
  yield python(sys.version_info[:2])
  yield versions({name: _version(name) for name in _PACKAGES})
  yield accelerator(jax.default_backend(), accelerators())
  yield Finding("devices", f"{distributed.devices()}, "
                f"{jax.process_count()} processes")
  yield from addresses(environment, jax.process_count())
  for about, folder in (("workdir", workdir),
                        ("cache", files.cache_directory())):
    yield disk(about, folder)
  yield hosts()
  yield compiler()


def python(version: tuple[int, int]) -> Finding:
  text = ".".join(map(str, version))
  return Finding("Python", text, "" if version >= (3, 11) else
                 "3.11 is the oldest that works; `uv python install 3.12` "
                 "brings a newer one")


def _version(package: str) -> str:
  try:
    return importlib.metadata.version(package)
  except importlib.metadata.PackageNotFoundError:
    return ""


def versions(installed: Mapping[str, str]) -> Finding:
  """jax and jaxlib come together."""
  text = ", ".join(f"{name} {version}" for name, version in installed.items()
                   if version)
  fit = installed["jax"] == installed["jaxlib"]
  return Finding("versions", text, "" if fit else
                 "jax and jaxlib are of different versions: reinstall both, "
                 "on a notebook by restarting it from its image")


def accelerators() -> list[str]:
  """That this machine has, whether jax uses them or not."""
  tpu = glob.glob("/dev/accel*") + glob.glob("/dev/vfio/[0-9]*")
  gpu = glob.glob("/dev/nvidia[0-9]*")
  return ["tpu"] * bool(tpu) + ["gpu"] * bool(gpu)


def accelerator(backend: str, there: list[str]) -> Finding:
  """Whether jax uses what the machine has."""
  unused = [kind for kind in there if kind != backend]
  if backend != "cpu" or not unused:
    return Finding("backend", backend)
  kind, = unused[:1]
  extra, otherwise = {
      "tpu": ("tpu", "another process holds it: `sudo lsof /dev/accel* "
              "/dev/vfio/*` names that"),
      "gpu": ("cuda", "JAX_PLATFORMS says cpu")}[kind]
  return Finding("backend", f"{backend}, though there is a {kind}",
                 f"install the extra [{extra}], as tools/quickstart.sh does; "
                 f"or {otherwise}")


def addresses(environment: Mapping[str, str],
              processes: int) -> Iterator[Finding]:
  """What images set, and what keeps processes apart."""
  named = environment.get("TPU_PROCESS_ADDRESSES", "")
  if named and named != "local" and processes == 1:
    yield Finding("TPU_PROCESS_ADDRESSES", named, "it names several processes, "
                  "and this is alone: run the command on every host, or unset "
                  "it")
  platforms = environment.get("JAX_PLATFORMS", "")
  if platforms:
    yield Finding("JAX_PLATFORMS", platforms)


def disk(about: str, folder: pathlib.Path) -> Finding:
  """Whether there is room, and the right to write."""
  there = next(path for path in (folder.absolute(), *folder.absolute().parents)
               if path.is_dir())
  try:
    with tempfile.NamedTemporaryFile(dir=there):
      pass
  except OSError as error:
    return Finding(about, f"{there}: {error.strerror}", "name another folder"
                   + (", by BERT_JAX_CACHE" if about == "cache" else ""))
  free = shutil.disk_usage(there).free
  return Finding(about, f"{there}, {free / 1e9:.0f} GB free", "" if (
      free >= _LEAST_DISK) else "make room: a checkpoint of BERT-base has 1.3 "
      "GB, and three are kept")


def hosts() -> Finding:
  """Waits for all processes and compares them."""
  try:
    distributed.assert_equal({name: _version(name) for name in _PACKAGES})
  except UserError as error:
    return Finding("hosts", str(error), "install the same everywhere")
  count = jax.process_count()
  return Finding("hosts", "alone" if count == 1 else
                 f"all {count} processes answered, with the same versions")


def compiler() -> Finding:
  """Compiles a small training step."""
  since = time.monotonic()
  describe.compile_step(config.override(Experiment(), _SMALL))
  return Finding("compiler", "a small training step took "
                 f"{time.monotonic() - since:.0f} s")
