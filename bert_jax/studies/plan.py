"""What a study will do: its arms with their budgets, its rulers, its runs."""

import dataclasses
import pathlib
from collections.abc import Mapping, Sequence

from bert_jax import config
from bert_jax.checkpoints.manifest import RESUMABLE, page_changes
from bert_jax.checkpoints.reading import latest_manifest
from bert_jax.config import UserError
from bert_jax.experiment import Experiment, Run, compose
from bert_jax.runs import record
from bert_jax.studies import budgets, definition
from bert_jax.studies.arms import Arm
from bert_jax.studies.definition import ArmDefinition, Definition, run_folder
from bert_jax.studies.members import together
from bert_jax.studies.pairing import unshared
from bert_jax.studies.protocols.base import Protocol
from bert_jax.studies.work import Job, Unit


@dataclasses.dataclass(frozen=True, eq=False)
class Plan:
  """
  Attributes:
    arms: the base first; their experiments have their steps.
    protocols: that score them, the first decides.
    definition: for study.json.
  """

  arms: list[Arm]
  protocols: list[Protocol]
  definition: Definition

  def units(self, folder: pathlib.Path) -> list[Unit]:
    """All runs, seed by seed."""
    return [Unit(
        arm.name, f"seed {seed}", run_folder(folder, arm.name, seed),
        dataclasses.replace(arm.experiment, seed=seed), arm.page,
        self.protocols)
            for seed in self.definition.seeds for arm in self.arms]


def composed(arm: Arm) -> Run:
  """The arm's run with its first seed."""
  source = arm.experiment.init_from
  return compose(arm.experiment,
                 latest_manifest(source).tokenizer if source else None)


def with_budget(arm: Arm, base: Run, run: Run, unit: budgets.Unit,
                steps: int | None = None) -> Arm:
  """The arm with as many steps as its budget allows.

  Args:
    base, run: of the base and of the arm, composed.
    steps: that were measured before; None: find out.
  """
  experiment = dataclasses.replace(
      arm.experiment, steps=run.experiment.steps, epochs=None, budget="")
  if steps is not None:
    experiment = budgets.with_steps(experiment, steps)
  elif arm.name != definition.BASE:
    experiment = budgets.equalize(experiment, run, base, unit)
  return dataclasses.replace(arm, experiment=experiment)


def make_plan(arms: Sequence[Arm], seeds: int, unit: budgets.Unit,
              protocols: Sequence[str], about: Mapping[str, object],
              before: Definition | None = None,
              chosen: Mapping[str, list[str]] = {}) -> Plan:
  """
  Args:
    arms: the base first.
    protocols: titles.
    about: what else study.json says.
    before: of the same study; what was measured for it holds.
    chosen: by tuning, by arm.

  Raises:
    UserError: a protocol is not possible here.
  """
  fitted = [Protocol.parse(title).fit([arm.experiment for arm in arms])
            for title in protocols]
  for protocol in fitted:
    protocol.check()
  runs = [composed(arm) for arm in arms]
  measured = _measured(before, unit)
  arms = [with_budget(arm, runs[0], run, unit, measured.get(
      (arm.name, arm.words))) for arm, run in zip(arms, runs)]
  first = arms[0].experiment.seed
  return Plan(arms, fitted, Definition(
      **about, seeds=list(range(first, first + seeds)), equal=unit,
      protocols=[p.title for p in fitted],
      arms=[ArmDefinition(
          arm.name, arm.words, arm.changes(arms[0]),
          unshared(runs[0], run.with_steps(arm.experiment.steps), arm.name),
          arm.experiment.steps, chosen.get(arm.name, []))
            for arm, run in zip(arms, runs)]))


def _measured(before: Definition | None, unit: budgets.Unit
              ) -> dict[tuple[str, str], int]:
  """The steps of arms whose budget is a time that was measured."""
  if before is None or before.equal != unit or unit != "seconds":
    return {}
  return {(arm.name, arm.words): arm.steps for arm in before.arms}


def check_same(units: Sequence[Unit]) -> None:
  """
  Raises:
    UserError: there are runs of other options in their folders.
  """
  faults = []
  for unit in units:
    saved = record.read(unit.folder)
    if saved is None or not saved.started:  # It failed before it began.
      continue
    if saved.page and unit.page and any(page_changes(
        saved.page, unit.page.source)):
      faults.append(f"{unit.arm} {unit.name}: its page defines other classes")
    was, now = (
        {change for change in changes
         if change.partition("=")[0].split(".")[0] not in RESUMABLE}
        for changes in (saved.options, config.changes(
            Experiment(), unit.experiment.untracked())))
    if was != now:
      faults.append(f"{unit.arm} {unit.name}: "
                    + ", ".join(sorted(now - was) or ["the defaults"])
                    + " (was " + (", ".join(sorted(was - now)) or
                                  "the defaults") + ")")
  if faults:
    raise UserError("\n  ".join([
        "These runs were begun with other options; give another workdir or "
        "another name:", *faults[:20]]))


def jobs(units: Sequence[Unit], members: int | None) -> list[Job]:
  """Units that are one program, in the order of the first of each.

  Args:
    members: of a program at most; None: as fits.
  """
  divided = []
  for page in dict.fromkeys(unit.page for unit in units):
    places = [i for i, unit in enumerate(units) if unit.page is page]
    for group in together.groups([units[i].experiment for i in places]):
      size = together.at_once(units[places[group[0]]].experiment, members)
      divided += [[places[i] for i in group[start:start + size]]
                  for start in range(0, len(group), size)]
  return [[units[i] for i in group] for group in sorted(divided)]
