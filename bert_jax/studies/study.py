"""Does it help? Arms that differ in one thing, over seeds, by one ruler."""

import contextlib
import dataclasses
import functools
import pathlib
import textwrap
import time
from collections.abc import Iterator, Mapping, Sequence

from bert_jax import config
from bert_jax.checkpoints.owner import Owner
from bert_jax.config import Page, UserError
from bert_jax.experiment import Experiment
from bert_jax.objectives.mlm import MlmNsp
from bert_jax.reporting.study_progress import StudyProgress
from bert_jax.studies import budgets, definition, plan as planning, tuning
from bert_jax.studies.arms import Arm, make_arms
from bert_jax.studies.comparing import Report
from bert_jax.studies.plan import Plan
from bert_jax.studies.protocols.base import Protocol
from bert_jax.studies.reports import comparison, report
from bert_jax.studies.work import Unit, fail, work
from bert_jax.training import programs
from bert_jax.training.budget import Budget


@dataclasses.dataclass(frozen=True)
class Study:
  """A base and its variants.

  Attributes:
    base: a config page or its name, or an experiment; in a page that binds
      `study`, "" is the page's own experiment.
    arms: by name the options in which a variant differs, as
      "model.norm_placement=pre", after the name of a page of its own, if it
      has one; or an experiment.
    cumulative: whether an arm has the options of all arms before it, too. It is
      then also compared with the arm before.
    seeds: of each arm, from the base's on.
    budget: what is equal in all arms.
    protocols: titles of those that score the arms; the first decides. (): by
      what the base learns.
    then: titles of further ones, of fine-tuning.
    overrides: of all arms.
    tune: options and values, as "schedule.learning_rate=1e-4,3e-4", which
      every arm tries.
    workdir: for the runs and the report.
    command: that runs it, for the report.
  """

  base: str | Experiment = ""
  arms: Mapping[str, str | Experiment] = dataclasses.field(
      default_factory=dict)
  cumulative: bool = False
  seeds: int = 5
  budget: budgets.Unit = "steps"
  protocols: Sequence[str] = ()
  then: Sequence[str] = ()
  overrides: Sequence[str] = ()
  tune: Sequence[str] = ()
  workdir: str = "runs/study"
  command: str = ""

  def run(self, share: tuple[int, int] = (1, 1),
          members: int | None = None) -> Report:
    """Runs what is missing, and writes study.md and study.html.

    Args:
      share: which process this is, from 1, and of how many that share the
        work.
      members: runs that are one program at most; None: as fits.

    Raises:
      UserError: names all that is wrong with the study, before it begins.
      Stopped: after SIGTERM or SIGINT; the same call resumes.
    """
    folder, page = pathlib.Path(self.workdir), self._page()
    arms = make_arms(page, self.overrides, self.arms, self.cumulative)
    _check(arms, self)
    chosen = self._tune(folder, arms, share, members) if self.tune else {}
    with _alone(folder / "claims" / "plan"):
      plan = self._plan(folder, arms, chosen)
      units = plan.units(folder)
      planning.check_same(units)
      definition.write(folder, plan.definition)
    lost = [unit for unit in units if self.tune and unit.arm not in chosen]
    _work(folder, [unit for unit in units if unit not in lost], lost, share,
          members)
    with _alone(folder / "claims" / "report"):
      result = comparison.read_study(folder)
      report.write(folder, result)
    return Report(result)

  def describe(self, columns: int = 80) -> str:
    """What would run: the arms and what differs in them, and the ruler.

    Raises:
      UserError: names all that is wrong with the study.
    """
    arms = make_arms(self._page(), self.overrides, self.arms, self.cumulative)
    _check(arms, self)
    rulers = [Protocol.parse(title).title for title in self._titles(arms[0])]
    wrapped = functools.partial(textwrap.fill, width=columns,
                                break_long_words=False, break_on_hyphens=False)
    lines = [f"A study of {len(arms) * self.seeds} runs: {len(arms)} arms of "
             f"{self.seeds} seeds, with the same {self.budget}, scored by "
             f"{', '.join(rulers)}."]
    if self.tune:
      lines.append(f"Before them every arm tries {', '.join(self.tune)}.")
    margin = max(len(arm.name) for arm in arms) + 4
    listed = [f"{f'  {arm.name}':<{margin}}{arm.words or 'the page itself'}"
              for arm in arms]
    return "\n".join([*map(wrapped, lines), *(
        wrapped(line, subsequent_indent=" " * margin) for line in listed)])

  def table(self) -> str:
    """What is known until now, in Markdown."""
    return report.markdown_of(comparison.read_study(
        pathlib.Path(self.workdir)))

  def _page(self) -> Page | Experiment:
    if isinstance(self.base, str):
      return config.load_page(self.base)
    return self.base

  def _titles(self, base: Arm) -> list[str]:
    objective = base.experiment.objective
    own = ["mlm", "nsp"] if isinstance(objective, MlmNsp) else ["mlm"]
    return [*(self.protocols or own), *self.then]

  def _plan(self, folder: pathlib.Path, arms: Sequence[Arm],
            chosen: Mapping[str, tuning.Trial]) -> Plan:
    about = {"command": self.command, "base": _name(self.base),
             "cumulative": self.cumulative,
             "overrides": list(self.overrides), "tuned": list(self.tune)}
    return planning.make_plan(
        [chosen[arm.name].arm if arm.name in chosen else arm for arm in arms],
        self.seeds, self.budget, self._titles(arms[0]), about,
        definition.read(folder),
        {name: list(trial.words) for name, trial in chosen.items()})

  def _tune(self, folder: pathlib.Path, arms: Sequence[Arm],
            share: tuple[int, int],
            members: int | None) -> dict[str, tuning.Trial]:
    """The best trial of each arm of which one succeeded."""
    ruler, base = tuning.ruler(arms), planning.composed(arms[0])
    made = [dataclasses.replace(trial, arm=planning.with_budget(
        trial.arm, base, planning.composed(trial.arm), self.budget))
            for trial in tuning.trials(arms, self.tune)]
    units = [tuning.unit(folder, trial, ruler) for trial in made]
    planning.check_same(units)
    _work(folder, units, [], share, members)
    return tuning.choose(list(zip(made, units)))


def _work(folder: pathlib.Path, units: Sequence[Unit], lost: Sequence[Unit],
          share: tuple[int, int], members: int | None) -> None:
  """Does all units but the lost ones, of arms whose trials all failed."""
  steps = [(u.arm, u.name, u.experiment.steps) for u in (*units, *lost)]
  jobs = planning.jobs(units, members)
  with StudyProgress(steps, share[1]) as board, programs.shared():
    for unit in lost:
      fail(unit, UserError("All trials of this arm failed; see error.txt in "
                           f"{folder / unit.arm / 'tuning'}."), board)
    work(jobs, folder / "claims", board, len(jobs) * (share[0] - 1) // share[1])


def _check(arms: Sequence[Arm], study: Study) -> None:
  """
  Raises:
    UserError: names all that no study can be made of.
  """
  faults = []
  for arm in arms:
    experiment = arm.experiment
    if experiment.best:
      faults.append(
          f"{arm.name}: best={experiment.best} chooses a checkpoint on "
          "held-out documents that the score uses; set best= and "
          "patience=none.")
    if experiment.objective.label_kind is not None:
      faults.append(
          f"{arm.name}: objective={experiment.objective.choice_name} has "
          "labels; a study compares pretrainings, and fine-tunings of them "
          "with --then.")
    if experiment.budget and (
        Budget.parse(experiment.budget).unit == "seconds"):
      faults.append(f"{arm.name}: budget={experiment.budget} is a time, which "
                    "each run would measure; set steps and --equal seconds.")
    try:
      experiment.tracker.check()
    except UserError as error:
      faults.append(f"{arm.name}: {error}")
  if study.tune and study.budget == "seconds":
    faults.append("--tune with --equal seconds: every process would measure "
                  "other times; take --equal flops.")
  if study.seeds < 1:
    faults.append(f"seeds={study.seeds}: at least 1.")
  if faults:
    raise UserError("\n  ".join(["Nothing was started:", *faults]))


@contextlib.contextmanager
def _alone(folder: pathlib.Path) -> Iterator[None]:
  """Of all processes that share a study, one after another."""
  with Owner(folder) as owner:
    while not owner.try_take():
      time.sleep(0.5)
    yield


def _name(base: str | Experiment) -> str:
  return base if isinstance(base, str) else "an experiment made in Python"
