"""The same number of trials for every arm, each judged where no score looks."""

import dataclasses
import itertools
import math
import pathlib
from collections.abc import Sequence

from bert_jax import config
from bert_jax.config import UserError
from bert_jax.studies.arms import Arm
from bert_jax.studies.protocols import scores
from bert_jax.studies.protocols.base import Protocol
from bert_jax.studies.work import Unit

# Of trials: none that a run of a study is likely to have.
_SEED = 1_000_000
# The ruler on held-out documents that scores leave out.
_RULER = "mlm part=tune"


@dataclasses.dataclass(frozen=True, eq=False)
class Trial:
  """An arm with some of the values."""

  arm: Arm
  words: tuple[str, ...]


def trials(arms: Sequence[Arm], tune: Sequence[str]) -> list[Trial]:
  """Every combination of the values, for every arm.

  Args:
    tune: each an option and its values, as "schedule.learning_rate=1e-4,3e-4".

  Raises:
    UserError: names the arms that do not have such options or values.
  """
  choices = [[f"{option}={value}" for value in values.split(",")]
             for option, _, values in (word.partition("=") for word in tune)]
  made, faults = [], []
  for arm, words in itertools.product(arms, itertools.product(*choices)):
    try:
      made.append(Trial(dataclasses.replace(arm, experiment=config.override(
          arm.experiment, words, [arm.page] if arm.page else None)), words))
    except UserError as error:
      faults.append(f"{arm.name}: {error}")
  if faults:
    raise UserError("\n  ".join(["--tune is not possible for all arms:",
                                 *dict.fromkeys(faults)]))
  return made


def ruler(arms: Sequence[Arm]) -> Protocol:
  return Protocol.parse(_RULER).fit([arm.experiment for arm in arms])


def unit(folder: pathlib.Path, trial: Trial, protocol: Protocol) -> Unit:
  name = " ".join(word.rpartition(".")[2] for word in trial.words)
  return Unit(f"{trial.arm.name} tuning", name,
              folder / trial.arm.name / "tuning" / name.replace(" ", "_"),
              dataclasses.replace(trial.arm.experiment, seed=_SEED),
              trial.arm.page, [protocol])


def choose(trial_units: Sequence[tuple[Trial, Unit]]) -> dict[str, Trial]:
  """The best trial of each arm that has one which did not fail."""
  best: dict[str, tuple[float, Trial]] = {}
  for trial, unit in trial_units:
    protocol, = unit.protocols
    score, name = scores.read(unit.folder).get(protocol.title), trial.arm.name
    value = score.value if score else math.nan
    if not math.isnan(value) and (name not in best or value < best[name][0]):
      best[name] = value, trial
  return {name: trial for name, (_, trial) in best.items()}
