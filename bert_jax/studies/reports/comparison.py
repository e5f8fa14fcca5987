"""What several runs are, arm by arm and seed by seed, from their folders."""

import dataclasses
import itertools
import pathlib
import shlex
from collections.abc import Mapping, Sequence

from bert_jax.config import UserError
from bert_jax.runs import record
from bert_jax.runs.record import Record
from bert_jax.studies import definition
from bert_jax.studies.protocols import scores
from bert_jax.studies.protocols.scores import Score
from bert_jax.studies.reports import run_names


@dataclasses.dataclass(frozen=True, eq=False)
class ComparedRun:
  """Of an arm.

  Attributes:
    record: None: it was not begun.
    scores: by protocol.
  """

  folder: pathlib.Path
  seed: int
  record: Record | None
  scores: Mapping[str, Score]

  @property
  def finished(self) -> bool:
    return self.record is not None and self.record.state == "finished"


@dataclasses.dataclass(frozen=True, eq=False)
class ComparedArm:
  """Runs that differ in their seed alone.

  Attributes:
    changes: of the options, from those of the base, or of the arm before in a
      cumulative study.
    runs: by seed.
    unshared: what it does not share with the base, as "other masks".
    chosen: what its tuning chose.
  """

  name: str
  changes: Sequence[str]
  runs: Sequence[ComparedRun]
  unshared: Sequence[str] = ()
  chosen: Sequence[str] = ()

  @property
  def records(self) -> list[Record]:
    """Of the runs that are finished."""
    return [run.record for run in self.runs if run.finished]


@dataclasses.dataclass(frozen=True, eq=False)
class Comparison:
  """Arms beside their base.

  Attributes:
    title: what is compared.
    command: that makes it, or several lines of them.
    arms: the base first.
    protocols: titles of those that score the arms; the first one decides.
    equal: the unit in which the arms have the same budget; "": not known.
    overrides: that all arms share.
    cumulative: whether an arm has the changes of all arms before it, too.
    tuned: the options and values that every arm tried; none: it is not known,
      or one setting served all arms, as `study` says.
    study: whether it was planned as one.
  """

  title: str
  command: str
  arms: Sequence[ComparedArm]
  protocols: Sequence[str]
  equal: str = ""
  overrides: Sequence[str] = ()
  cumulative: bool = False
  tuned: Sequence[str] = ()
  study: bool = False

  @property
  def base(self) -> ComparedArm:
    return self.arms[0]


def read_study(folder: pathlib.Path) -> Comparison:
  """Of a study as far as it is done.

  Raises:
    UserError: the folder has no study.json.
  """
  plan = definition.read(folder)
  if plan is None:
    raise UserError(f"{folder} is no study: it has no study.json.")
  changes = [arm.changes for arm in plan.arms]
  if plan.cumulative:
    changes[1:] = [_changes(before, arm, "as in the base")
                   for before, arm in itertools.pairwise(changes)]
  arms = [ComparedArm(
      arm.name, changed,
      [read_run(definition.run_folder(folder, arm.name, seed), seed)
       for seed in plan.seeds], arm.unshared, arm.chosen)
      for arm, changed in zip(plan.arms, changes)]
  return Comparison(f"Study of {plan.base}", plan.command, arms,
                    plan.protocols, plan.equal, plan.overrides,
                    plan.cumulative, plan.tuned, study=True)


def read_runs(folders: Sequence[pathlib.Path],
              protocols: Sequence[str] = ()) -> Comparison:
  """Of any runs: those of the same options but for the seed are an arm.

  Args:
    folders: the first one's arm is the base.
    protocols: titles; (): all that scored a run.

  Raises:
    UserError: a folder has no run.json, an arm has a seed twice, or there is
      one arm only.
  """
  groups: dict[tuple[str, ...], list[ComparedRun]] = {}
  for folder in dict.fromkeys(folders):
    run = read_run(folder)
    groups.setdefault(tuple(sorted(_options(run))), []).append(run)
  names = run_names.of_groups(
      [[run.folder for run in runs] for runs in groups.values()])
  _check(dict(zip(names, groups.values())))
  base = _options(next(iter(groups.values()))[0])
  arms = [ComparedArm(name, _changes(base, _options(runs[0])),
                      sorted(runs, key=lambda run: run.seed))
          for name, runs in zip(names, groups.values())]
  command = shlex.join(["bert-jax", "compare", *map(str, folders)])
  runs = [run.record.command for arm in arms for run in arm.runs]
  return Comparison(f"{names[0]} and other runs", "\n".join(
      dict.fromkeys([*runs, command])), arms,
      protocols or _titles(arms))


def read_run(folder: pathlib.Path, seed: int | None = None) -> ComparedRun:
  """
  Args:
    seed: of a run that may not have begun; None: it has.

  Raises:
    UserError: it has not.
  """
  about = record.read(folder) if seed is not None else record.read_begun(folder)
  if seed is None:
    seed = about.seed
  return ComparedRun(folder, seed, about, scores.read(folder))


def _options(run: ComparedRun) -> list[str]:
  return [word for word in run.record.options
          if word.partition("=")[0] != "seed"]


def _changes(base: Sequence[str], arm: Sequence[str],
             undone: str = "as by default") -> list[str]:
  """Of options that differ from others, in the order of `arm`."""
  keys = {word.partition("=")[0] for word in arm}
  back = [word.partition("=")[0] for word in base]
  return [*(word for word in arm if word not in base),
          *(f"{key} {undone}" for key in back if key not in keys)]


def _titles(arms: Sequence[ComparedArm]) -> list[str]:
  """Of all protocols that scored a run, in the order of the arms."""
  return list(dict.fromkeys(
      title for arm in arms for run in arm.runs for title in run.scores))


def _check(arms: Mapping[str, Sequence[ComparedRun]]) -> None:
  for name, runs in arms.items():
    seeds = [run.seed for run in runs]
    for i, run in enumerate(runs):
      if run.seed in seeds[:i]:
        raise UserError(f"{run.folder} and {runs[seeds.index(run.seed)].folder}"
                        f" are the same run: seed {run.seed} of {name}.")
  if len(arms) == 1:
    raise UserError("The options of all runs are equal but for the seed: there "
                    "is one arm, and nothing to compare it with.")
