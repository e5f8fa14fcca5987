"""The `classifier` of a checkpoint, whose outputs have the names of labels."""

import dataclasses
import logging
from collections.abc import Sequence

from bert_jax.checkpoints.reading import Checkpoint
from bert_jax.config import UserError
from bert_jax.objectives.base import Objective
from bert_jax.training.param_paths import leaves, nested

_HEAD = "classifier/"
_TEACHERS = f"teacher_heads/{_HEAD}"
_SHOWN = 10  # labels in a sentence
_LOG = logging.getLogger(__name__)


def match_head(source: Checkpoint,
               objective: Objective) -> tuple[Checkpoint, str]:
  """A checkpoint whose `classifier` means what it does in `objective`.

  Its outputs are put into the order of the objective's labels by their names,
  or else by their names without case. The head of other labels, or of another
  kind of label, is left out.

  Returns:
    The checkpoint, and a sentence that says this; "" where there is no head.
  """
  given, there = leaves(source.params), source.manifest.experiment.objective
  head = {path: x for path, x in given.items() if path.startswith(_HEAD)}
  if not head or objective.label_kind is None:
    return source, ""
  old, new = there.head_rows(), objective.head_rows()
  order = _order(old, new)
  if order is None or _kind(there) != _kind(objective):
    params = nested({p: x for p, x in given.items() if p not in head})
    return dataclasses.replace(source, params=params), (
        f" The classifier there is for other labels, {_kind(there)}"
        f"{_listed(old)}; here it is for {_kind(objective)}{_listed(new)}.")
  if not new:
    return source, ""
  kept = [name for i, name in enumerate(new) if order[i] == i]
  moved = [f"{name} ({order[i]} to {i})" for i, name in enumerate(new)
           if order[i] != i]
  return _reordered(source, order), (
      f" Outputs of the classifier, by label: kept{_listed(kept)}; "
      f"moved{_listed(moved)}.")


def _kind(objective: Objective) -> str:
  return objective.label_kind.head_kind() if objective.label_kind else "none"


def _order(old: Sequence[str], new: Sequence[str]) -> list[int] | None:
  """Where among `old` each of `new` is; None: they are not the same names."""
  for same in (str, str.casefold):
    places = {same(name): i for i, name in enumerate(old)}
    order = [places.get(same(name), -1) for name in new]
    if sorted(order) == list(range(len(old))):
      return order
  return None


def _listed(names: Sequence[str]) -> str:
  more = [f"{len(names) - _SHOWN} more"] * (len(names) > _SHOWN)
  return " " + (", ".join([*names[:_SHOWN], *more]) or "none")


def rename_head(saved: Checkpoint, objective: Objective) -> Checkpoint:
  """A checkpoint to be used under the labels of `objective`, which may be
  those of the run in another order, or all of them renamed place by place.

  Raises:
    UserError: they are neither.
  """
  old, new = saved.manifest.experiment.objective.head_rows(), (
      objective.head_rows())
  order = _order(old, new)
  if order is not None:
    return _reordered(saved, order) if new else saved
  if len(old) != len(new) or set(old) & set(new):
    raise UserError(
        f"objective.labels={','.join(new)}: the labels of this network are "
        f"{','.join(old)}; allowed: these in any order, or as many other ones, "
        "which rename them.")
  _LOG.warning("Labels are renamed: %s.", ", ".join(
      f"{there} is {here}" for there, here in zip(old, new)))
  return saved


def _reordered(saved: Checkpoint, order: Sequence[int]) -> Checkpoint:
  """With the outputs of its head in this order."""
  return dataclasses.replace(saved, params=nested({
      path: x[..., list(order)] if path.startswith((_HEAD, _TEACHERS)) else x
      for path, x in leaves(saved.params).items()}))
