"""Runs that are one program, each in a work directory of its own.

On disk they are runs like any other: one that was begun together with others
can be finished alone, and the other way round.
"""

import contextlib
import dataclasses
import pathlib
from collections.abc import Sequence
from typing import Any

import jax
from jax.sharding import Mesh, NamedSharding, PartitionSpec as P

from bert_jax import config
from bert_jax.checkpoints.owner import Owner
from bert_jax.checkpoints.reading import read_checkpoint, saved_steps
from bert_jax.config import Page
from bert_jax.experiment import Experiment, Run, compose, recipe, workload
from bert_jax.objectives.base import Objective
from bert_jax.runs import train
from bert_jax.runs.anomalies import NonFiniteError
from bert_jax.runs.clock import Clock
from bert_jax.runs.early_stopping import EarlyStopping
from bert_jax.runs.loop import Job, Scores, train_loop
from bert_jax.runs.observers import Observers
from bert_jax.runs.record import Recorder
from bert_jax.runs.train import Result
from bert_jax.studies.members import layout, runs as member_runs
from bert_jax.studies.members.runs import MemberRun
from bert_jax.training.step import TrainState

# In these numbers, and in the seed, members of a program may differ.
NUMBERS = (
    "schedule.learning_rate", "model.hidden_dropout_prob",
    "model.attention_probs_dropout_prob", "objective.masking.rate",
    "objective.masking.mask_fraction", "objective.masking.random_fraction")


def groups(experiments: Sequence[Experiment]) -> list[list[int]]:
  """Which of them can be one program, by their places."""
  by_program: dict[Any, list[int]] = {}
  for i, experiment in enumerate(experiments):
    key = tuple(sorted(_program(experiment).items())) if _may_share(
        experiment) else i
    by_program.setdefault(key, []).append(i)
  return list(by_program.values())


def _program(experiment: Experiment) -> dict[str, str]:
  """What members have in common."""
  options = config.options(experiment)
  return {key: value for key, value in options.items()
          if key not in (*numbers_of(experiment), "seed")}


def numbers_of(experiment: Experiment) -> dict[str, float]:
  """Those of `NUMBERS` that a program may get as its input."""
  options, numbers = config.options(experiment), {}
  for key in NUMBERS:
    # Networks of its own, and blocks of a pattern, are checked when made.
    plain = (type(experiment.objective).networks is Objective.networks
             and options["model.stack"] == "uniform")
    if key in options and (plain or not key.startswith("model.")):
      numbers[key] = float(options[key])
  return numbers


def _may_share(experiment: Experiment) -> bool:
  return not (experiment.best or experiment.spike_deviations
              or experiment.budget or jax.process_count() > 1)


def at_once(experiment: Experiment, members: int | None) -> int:
  """How many members a program gets.

  Args:
    members: as asked for; None: as the devices have memory for.
  """
  if members is not None:
    return members
  return layout.room(workload(experiment), jax.local_devices())


def train_together(experiments: Sequence[Experiment],
                   workdirs: Sequence[pathlib.Path], page: Page | None,
                   observers: Sequence[Observers]
                   ) -> list[Result | Exception]:
  """What `train` of each by itself gives, as one program.

  Args:
    experiments: one of `groups`.
    observers: of each member.

  Returns:
    Of each its result, or why it failed; the others continue.

  Raises:
    UserError: as `train`, of any of them.
    Stopped: after SIGTERM or SIGINT; all are saved.
  """
  results: dict[int, Result | Exception] = {}
  by_step: dict[int, list[int]] = {}
  for i, workdir in enumerate(workdirs):
    step = max(saved_steps(workdir), default=0)
    by_step.setdefault(step, []).append(i)
  for step, group in sorted(by_step.items()):
    pick = lambda values: [values[i] for i in group]
    if len(group) == 1 or step == experiments[group[0]].steps:
      done = [train.train(experiments[i], workdirs[i], page, observers[i])
              for i in group]
    else:
      done = _train_group(pick(experiments), pick(workdirs), page,
                          pick(observers))
    results |= dict(zip(group, done))
  return [results[i] for i in range(len(experiments))]


def _train_group(experiments: Sequence[Experiment],
                 workdirs: Sequence[pathlib.Path], page: Page | None,
                 observers: Sequence[Observers]) -> list[Result | Exception]:
  """Members that were saved at the same step."""
  with contextlib.ExitStack() as stack:
    recorders = []
    for experiment, workdir in zip(experiments, workdirs):
      owner = stack.enter_context(Owner(workdir))
      recorder = stack.enter_context(Recorder(workdir))
      owner.take()
      recorder.begin(experiment, page)
      experiment.tracker.check()
      recorders.append((owner, recorder))
    source = (read_checkpoint(experiments[0].init_from)
              if experiments[0].init_from else None)
    first = compose(experiments[0], source and source.manifest.tokenizer)
    runs = [_member(first, experiment) for experiment in experiments]
    devices = jax.local_devices()
    mesh = layout.make_mesh(len(runs), devices)
    alone = Mesh(mesh.devices[:1], mesh.axis_names)
    here = jax.tree.map(lambda _: NamedSharding(alone, P()), first.shape())
    program = layout.MemberProgram(_with_slots(first, runs), mesh)
    group = [stack.enter_context(MemberRun.begin(
        run, workdir, page, source, here, *writers, observer))
             for run, workdir, writers, observer in zip(
                 runs, workdirs, recorders, observers)]
    return _Group(group, program, mesh, here).train()


def _member(first: Run, experiment: Experiment) -> Run:
  """The run by itself, but for its data, which is read once."""
  run = first.with_seed(experiment.seed)
  complete = layout.with_numbers(run.experiment, numbers_of(experiment))
  return Run(complete, run.prepared, recipe(complete, run.recipe.vocabulary))


def _with_slots(first: Run, runs: Sequence[Run]) -> Run:
  """The run with slots for the predictions of every member."""
  masking = getattr(first.experiment.objective, "masking", None)
  if masking is None:
    return first
  slots = max(run.experiment.objective.masking.predictions_per_row(
      run.experiment.data.length) for run in runs)
  return dataclasses.replace(first, experiment=layout.with_numbers(
      first.experiment, {"objective.masking.max_predictions": slots}))


@dataclasses.dataclass(frozen=True, eq=False)
class _Group:
  """Members in the loop."""

  members: list[MemberRun]
  program: layout.MemberProgram
  mesh: Mesh
  here: TrainState  # Where a member's own state lies.

  def train(self) -> list[Result | Exception]:
    first = self.members[0].run
    clock = Clock(first.experiment.save_minutes)
    numbers = [numbers_of(m.run.experiment) for m in self.members]
    log = member_runs.Logs(self.members)

    def save(step: int, states: TrainState, scores: Sequence[Scores],
             better: Sequence[bool]) -> None:
      own = self._apart(states)
      for i, member in enumerate(self.members):
        member.save(step, own[i], scores[i] if scores else {},
                    clock.used() / len(self.members))
      clock.saved()

    def evaluate(states: TrainState) -> list[Scores]:
      scores = self.program.evaluate(states.params, first, numbers)
      own = self._apart(states)
      return [{**score, **member.further_scores(state.params)}
              for score, member, state in zip(scores, self.members, own)]

    job = Job(first.experiment, self.program.runner(first, numbers),
              batches=lambda start: layout.batches(
                  first, [m.run.experiment.seed for m in self.members], start),
              evaluate=evaluate, save=save, clock=clock,
              stopping=[EarlyStopping("", None) for _ in self.members])
    states = layout.put(self.mesh, layout.stack(
        [jax.device_get(m.state) for m in self.members]))
    start = int(self.members[0].state.step)
    member_runs.evaluate_late(job, start, states, self.members)
    try:
      states, scores = train_loop(job, states, start, log,
                                  member_runs.on_step(self.members))
    except NonFiniteError:
      return [member.result({}, None) for member in self.members]
    scores = scores or evaluate(states)
    return [member.result(score, state.params) for member, score, state in zip(
        self.members, scores, self._apart(states))]

  def _apart(self, states: TrainState) -> list[TrainState]:
    """The state of each member, as that of a run by itself."""
    arrays = jax.device_get(states)
    return [jax.device_put(jax.tree.map(lambda x: x[i], arrays), self.here)
            for i in range(len(self.members))]
