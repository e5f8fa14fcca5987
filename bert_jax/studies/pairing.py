"""What two runs of the same seed do not share, by name.

Order of rows, sentence pairs and crops follow from the data's fingerprint;
masks and dropout are drawn for (seed, step, row, place), initial values for
(seed, path): they are the same wherever the shapes allow.
"""

import itertools
from collections.abc import Iterator, Sequence

from bert_jax import config
from bert_jax.experiment import Run
from bert_jax.objectives.base import Objective
from bert_jax.objectives.mlm import Mlm
from bert_jax.training.param_paths import leaves

_SHOWN = 3  # paths or options in a sentence

# Options that decide what is dropped: rates, and shapes of what it is drawn
# for. A member of a family may have other shapes, which is not seen here.
_DROPOUT = ("data.length", "model.hidden_size", "model.embedding_size",
            "model.num_attention_heads", "model.hidden_dropout_prob",
            "model.attention_probs_dropout_prob", "model.stack")
_INITIAL = ("init_from", "from_scratch", "model.initializer_range",
            "finetuning.reinitialize", "finetuning.layers_from")


def unshared(base: Run, arm: Run, name: str = "this arm") -> list[str]:
  """A short sentence for each thing that the runs do not share.

  Args:
    base: what `arm` is compared with.
    arm: composed, as `base` is.
    name: of the arm, for the sentences.
  """
  changes = config.changes(base.experiment, arm.experiment)
  return [*_draws(base, arm, changes), *_parameters(base, arm, name),
          *_initial_values(changes), *_steps(base, arm)]


def _draws(base: Run, arm: Run, changes: Sequence[str]) -> Iterator[str]:
  old, new = base.experiment, arm.experiment
  if old.seed != new.seed:
    yield f"nothing that is drawn (seed={new.seed}, the base has {old.seed})"
  elif base.prepared.fingerprint != arm.prepared.fingerprint:
    yield "other rows" + (_because(changes, "data") or " (another text)")
  if old.batch_size != new.batch_size:
    yield f"other batches (batch_size={new.batch_size})"
  if _corruption(old.objective) != _corruption(new.objective):
    yield "other masks" + (_because(changes, "objective.masking")
                           or _because(changes, "objective"))
  if because := _because(changes, *_DROPOUT):
    yield f"other dropout draws{because}"


def _corruption(objective: Objective) -> object:
  """What decides the masks: of a page's own corruption all of its options."""
  corrupt = type(objective).corrupt
  if corrupt is Objective.corrupt:
    return None
  return corrupt, (objective.masking if corrupt is Mlm.corrupt else objective)


def _parameters(base: Run, arm: Run, name: str) -> Iterator[str]:
  old, new = (leaves(run.shape().params) for run in (base, arm))
  both = old.keys() & new.keys()
  for what, paths in (
      (f"only in {name}", new.keys() - both),
      ("only in the base", old.keys() - both),
      ("of another shape", {path for path in both
                            if old[path].shape != new[path].shape})):
    if paths:
      yield (f"{len(paths)} parameter{'s' * (len(paths) > 1)} {what} "
             f"({_listed(sorted(paths))})")


def _initial_values(changes: Sequence[str]) -> Iterator[str]:
  if because := _because(changes, *_INITIAL):
    yield f"other initial values{because}"


def _steps(base: Run, arm: Run) -> Iterator[str]:
  old, new = base.experiment.steps, arm.experiment.steps
  if old != new:
    yield f"other number of steps ({new:,}, the base has {old:,})"


def _because(changes: Sequence[str], *prefixes: str) -> str:
  """The changed options that begin so, "" for none."""
  causes = [change for change in changes if change.startswith(prefixes)]
  return f" ({_listed(causes)})" if causes else ""


def _listed(names: Sequence[str]) -> str:
  more = len(names) - _SHOWN
  return ", ".join([*itertools.islice(names, _SHOWN),
                    *([f"{more} more"] if more > 0 else [])])
