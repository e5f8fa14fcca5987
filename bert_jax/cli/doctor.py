"""Whether this machine can train: doctor."""

import argparse
import glob
import importlib.metadata
import os
import pathlib
import shutil
import statistics
import sys
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
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
_MOST_SKEW = 10.0  # seconds; an owner is taken for dead after 180


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

  def lines(self, where: str = "") -> str:
    """For the terminal; `where` names processes."""
    first = (f"{'!!' if self.remedy else 'ok'}  {where and f'{where}: '}"
             f"{self.about}: {self.text}")
    return f"{first}\n      {self.remedy}" if self.remedy else first


def add(commands: argparse._SubParsersAction) -> None:
  doctor = flags.command(
      commands, "doctor", _doctor, "Looks for what would keep a run from "
      "training here: versions, devices, hosts, clocks, disk, the compiler.",
      "bert-jax doctor --workdir runs")
  doctor.add_argument("--workdir", default=".", help="where runs will be; "
                      "default: here")
  flags.several_hosts(doctor)


def _doctor(options: argparse.Namespace) -> None:
  """
  Raises:
    UserError: something is wrong, here or on another process.
  """
  own = []
  for finding in findings(pathlib.Path(options.workdir), os.environ):
    own.append(finding)
    flags.say(finding.lines())
  first, *others = [[Finding(*finding) for finding in process]
                    for process in distributed.gather(own)]
  further = elsewhere(first, others)
  for finding, processes in further.items():
    flags.say(finding.lines(distributed.names(processes)))
  if faults := sum(bool(finding.remedy) for finding in (*first, *further)):
    raise UserError(f"{faults} of these need something to be done.")


def elsewhere(first: Sequence[Finding], others: Sequence[Sequence[Finding]]
              ) -> dict[Finding, list[int]]:
  """What process 0 has not seen, with the numbers of those that have."""
  processes: dict[Finding, list[int]] = {}
  for process, seen in enumerate(others, 1):
    for finding in seen:
      if finding not in first:
        processes.setdefault(finding, []).append(process)
  return processes


def findings(workdir: pathlib.Path,
             environment: Mapping[str, str]) -> Iterator[Finding]:
  """Of this process, one after another, as some take seconds."""
  yield python(sys.version_info[:2])
  yield versions({name: _version(name) for name in _PACKAGES})
  yield accelerator(jax.default_backend(), accelerators())
  yield Finding("devices", f"{distributed.devices()}, "
                f"{jax.process_count()} "
                f"process{'es' * (jax.process_count() > 1)}")
  yield from addresses(environment, jax.process_count())
  yield from disk("workdir", workdir)
  yield from disk("cache", files.cache_directory())
  yield hosts()
  if jax.process_count() > 1:
    yield clocks()
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


def disk(about: str, folder: pathlib.Path) -> Iterator[Finding]:
  """Whether a file can be written, read, renamed and removed, as those of runs
  are, whether there is room for more, and what time it is there."""
  there = next(path for path in (folder.absolute(), *folder.absolute().parents)
               if path.is_dir())
  probe, data = there / f".doctor-{uuid.uuid4().hex}", os.urandom(64)
  try:
    since = time.time()
    with files.replacing(probe) as file:  # It renames, too.
      file.write(data)
    now, written = time.time(), probe.stat().st_mtime
    kept = probe.read_bytes() == data
    probe.unlink()
  except OSError as error:
    yield Finding(about, f"{there}: {error.strerror}", "name another folder"
                  + (", by BERT_JAX_CACHE" if about == "cache" else ""))
    return
  free = shutil.disk_usage(there).free
  yield Finding(about, f"{there}, {free / 1e9:.0f} GB free",
                "a file there does not hold what was written to it: name "
                "another folder" if not kept else
                "" if free >= _LEAST_DISK else "make room: a checkpoint of "
                "BERT-base has 1.3 GB, and three are kept")
  skew = _outside(written, since, now)
  if abs(skew) >= 1:  # Some disks know no more than seconds.
    yield disk_clock(about, skew)


def _outside(moment: float, since: float, until: float) -> float:
  """How many seconds it lies after or, less than 0, before a time."""
  return max(0.0, moment - until) + min(0.0, moment - since)


def disk_clock(about: str, skew: float) -> Finding:
  """Of a disk whose files get times that lie `skew` seconds ahead.

  By the time of its file another host sees whether the owner of a work
  directory, or of a part of a shared study, is alive.
  """
  return Finding(
      f"clock of {about}", f"{abs(skew):.1f} s "
      f"{'ahead of' if skew > 0 else 'behind'} this machine", "" if (
          abs(skew) <= _MOST_SKEW) else "set both by NTP (`timedatectl set-ntp "
      "true`): runs that are alive may be taken for dead, as their files look "
      "old")


def hosts() -> Finding:
  """Waits for all processes and compares them."""
  try:
    distributed.assert_equal({name: _version(name) for name in _PACKAGES})
  except UserError as error:
    return Finding("hosts", str(error), "install the same everywhere")
  count = jax.process_count()
  return Finding("hosts", "alone" if count == 1 else
                 f"all {count} processes answered, with the same versions")


def clocks() -> Finding:
  """Of all processes, compared when all are here; after `hosts`."""
  distributed.gather("all are here")
  return compared_clocks(distributed.gather(time.time()))


def compared_clocks(times: Sequence[float]) -> Finding:
  """Of each process, read at the same moment."""
  usual = statistics.median_low(times)
  far = [process for process, moment in enumerate(times)
         if abs(moment - usual) > _MOST_SKEW]
  return Finding(
      "clocks", f"{max(times) - min(times):.1f} s apart at most",
      f"set them by NTP (`timedatectl set-ntp true`): {distributed.names(far)}"
      if far else "")


def compiler() -> Finding:
  """Compiles a small training step."""
  since = time.monotonic()
  describe.compile_step(config.override(Experiment(), _SMALL))
  return Finding("compiler", "a small training step was compiled in "
                 f"{time.monotonic() - since:.0f} s; a run does this once, and "
                 "keeps it for later ones")
