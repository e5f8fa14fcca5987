"""Reading the checkpoints of a run, which may be running."""

import dataclasses
import functools
import hashlib
import json
import pathlib
import warnings
from collections.abc import Sequence
from typing import Any

import jax
import orbax.checkpoint as ocp

from bert_jax import config
from bert_jax.checkpoints import files
from bert_jax.checkpoints.damage import Damaged, Removed
from bert_jax.checkpoints.manifest import Manifest, order
from bert_jax.config import UserError, cells
from bert_jax.experiment import Experiment
from bert_jax.metrics import selection
from bert_jax.training.step import TrainState


@dataclasses.dataclass(frozen=True)
class Checkpoint:
  """A checkpoint as read.

  Attributes:
    params: on the host; those of the plain network, an adapter being merged.
  """

  params: Any
  manifest: Manifest
  step: int

  @functools.cached_property
  def name(self) -> str:
    """Its step and a digest of the checksums of all its arrays."""
    text = json.dumps(self.manifest.checksums, sort_keys=True)
    digest = hashlib.blake2b(text.encode(), digest_size=8).hexdigest()
    return f"step {self.step}, {digest}"


def read_checkpoint(workdir: str | pathlib.Path) -> Checkpoint:
  """The checkpoint that a run is used by: its best, or else its latest.

  A damaged one is passed over, with a warning.

  Raises:
    UserError: there is none, or one cannot be read for a reason that proves no
      damage: an older one would give other scores.
  """
  manifests = read_manifests(workdir)
  best = manifests and manifests[max(manifests)].experiment.best
  for step in sorted(manifests, reverse=True, key=lambda s: order(
      manifests[s].rank if best else selection.WORST, s)):
    manifest = manifests[step]
    try:
      params = files.read_params(files.folder(workdir) / str(step), manifest)
    except Damaged as error:
      _warn_of_damage(workdir, step, error)
    except Removed:
      return read_checkpoint(workdir)  # Its run has saved another.
    else:
      params = manifest.experiment.adapter.merge(params)
      return Checkpoint(jax.device_get(params), manifest, step)
  raise UserError(f"{workdir} holds no finished checkpoint that is intact.")


def read_manifests(workdir: str | pathlib.Path) -> dict[int, Manifest]:
  """Of each finished checkpoint, by step.

  Nothing is changed there, so that a run may continue at the same time.

  Raises:
    UserError: there is no folder of checkpoints, or one cannot be read.
  """
  folder, manifests = files.folder(workdir), {}
  if not folder.is_dir():
    raise UserError((f"{workdir} holds no checkpoints" if folder.parent.is_dir()
                     else f"There is no folder {workdir}")
                    + "; give the work directory of a run.")
  for step in saved_steps(workdir):
    try:
      manifests[step] = files.read_manifest(folder / str(step))
    except Damaged as error:
      _warn_of_damage(workdir, step, error)
    except Removed:
      pass
  return manifests


def latest_manifest(workdir: str | pathlib.Path) -> Manifest:
  """
  Raises:
    UserError: no finished checkpoint is intact, or as read_manifests.
  """
  manifests = read_manifests(workdir)
  if not manifests:
    raise UserError(f"{workdir} holds no finished checkpoint that is intact.")
  return manifests[max(manifests)]


def saved_steps(workdir: str | pathlib.Path) -> list[int]:
  """Of the finished checkpoints, in order; none where there is no folder."""
  folder = files.folder(workdir)
  return sorted(ocp.utils.checkpoint_steps(folder)) if folder.is_dir() else []


def read_state(workdir: str | pathlib.Path, step: int, shape: TrainState,
               shardings: TrainState, manifest: Manifest) -> TrainState | None:
  """The state of a step, on the devices of `shardings`; None, and a warning,
  where it is damaged. Nothing is changed in the directory."""
  try:
    state, saved = files.read_state(files.folder(workdir) / str(step), shape,
                                    shardings, manifest)
    files.check(state, saved)
  except Damaged as error:
    _warn_of_damage(workdir, step, error)
    return None
  return state


def _warn_of_damage(directory: str | pathlib.Path, step: int,
                    error: Damaged) -> None:
  warnings.warn(f"{directory}: the checkpoint of step {step} is damaged and "
                f"was passed over ({error})", stacklevel=3)


def resolve_experiment(experiment: Experiment, overrides: Sequence[str] = (),
                       page: config.Page | None = None) -> Experiment:
  """The overridden experiment, on the network of its `init_from`, if any, and
  with that of its teacher.

  Overrides of the networks' options hold there too.

  Args:
    page: that the experiment is from; its choices may be named, and those of a
      notebook's cells.
  """
  pages = [page, *cells.pages()] if page else None
  experiment, read = config.override(experiment, overrides, pages), []
  if experiment.init_from:
    read.append(read_checkpoint(experiment.init_from).manifest)
    experiment = dataclasses.replace(experiment,
                                     model=read[-1].experiment.model)
  if experiment.objective.teacher:
    read.append(read_checkpoint(experiment.objective.teacher).manifest)
    experiment = dataclasses.replace(experiment, objective=dataclasses.replace(
        experiment.objective, teacher_model=read[-1].experiment.model))
  return config.override(
      experiment, [o for o in overrides if o.startswith(
          ("model.", "objective.teacher_model."))],
      pages and [*pages, *(page for manifest in read
                           for page in manifest.loaded_pages)])
