"""Many fine-tunings at once: seeds and learning rates of one experiment.

The members are one program over all devices of a host, and each is what a run
by itself with that seed and rate is. Where not all fit, they run in groups.
"""

import dataclasses
import itertools
import pathlib
import sys
from collections.abc import Callable, Sequence
from typing import Any

import jax
from jax.sharding import Mesh, NamedSharding, PartitionSpec as P

from bert_jax import config
from bert_jax.checkpoints.owner import Owner
from bert_jax.checkpoints.reading import read_checkpoint
from bert_jax.config import Page, UserError
from bert_jax.experiment import Experiment, Run, compose
from bert_jax.metrics.selection import rank
from bert_jax.parallel.cost import Workload
from bert_jax.reporting import plots
from bert_jax.runs.anomalies import AnomalyDetector
from bert_jax.runs.clock import Clock
from bert_jax.runs.early_stopping import EarlyStopping
from bert_jax.runs.evaluation import check_best
from bert_jax.runs.initialize import first_state
from bert_jax.runs.loop import Job, Scores, Stopped, train_loop
from bert_jax.runs.observers import Observers
from bert_jax.runs.step_log import StepLog
from bert_jax.studies.members import layout, results as member_results
from bert_jax.studies.members.results import Member, MemberResult
from bert_jax.training.step import TrainState, check_divisible


def run(experiment: Experiment, workdir: pathlib.Path, seeds: int,
        rates: Sequence[float] = (), at_once: int | None = None,
        page: Page | None = None) -> str:
  """Trains a grid of members, and writes their results.

  Args:
    workdir: gets what `Sweep.train` writes, and all results in results.json.
    page: the config page, kept in the checkpoint.

  Returns:
    A table in Markdown: the statistics of every score over the seeds, by rate.

  Raises:
    UserError: as Sweep.
  """
  sweep = Sweep(experiment, grid(experiment, seeds, rates), at_once)
  decides = experiment.best or "loss"
  results = sweep.train(workdir, lambda scores: rank(decides, scores), page)
  member_results.write(workdir / "results.json", results, sweep.provenance)
  best = max(results, key=lambda result: rank(decides, result.scores))
  return f"{member_results.table(results)}\n\nBest by {decides}: {best.member}."


def grid(experiment: Experiment, seeds: int,
         rates: Sequence[float] = ()) -> list[Member]:
  """Each rate with this many seeds, from the experiment's on.

  Args:
    rates: none: the experiment's.
  """
  rates = rates or (experiment.schedule.learning_rate,)
  return [Member(experiment.seed + i, rate)
          for rate, i in itertools.product(rates, range(seeds))]


def provenance(experiment: Experiment,
               members: Sequence[Member]) -> dict[str, Any]:
  """What results come from: options and members."""
  return {"options": config.changes(Experiment(), experiment.untracked()),
          "members": list(map(str, members))}


class Sweep:
  """Members that run as one program.

  Attributes:
    members: as given.
    run: the first one's.
    provenance: of its results.
    program: the step and the evaluation of all members.
  """

  def __init__(self, experiment: Experiment, members: Sequence[Member],
               at_once: int | None = None,
               observers: Observers = Observers()):
    """
    Args:
      experiment: what the members share.
      members: at least one.
      at_once: how many run together; None: as the devices have memory for.
      observers: what shows the progress.

    Raises:
      UserError: it cannot be run, or not as a sweep.
    """
    check(experiment, members)
    self._source = (read_checkpoint(experiment.init_from)
                    if experiment.init_from else None)
    self.run = compose(members[0].configure(experiment),
                       self._source and self._source.manifest.tokenizer)
    check_best(self.run)
    self.members, self._observers = list(members), observers
    self.provenance = provenance(experiment, members)
    devices = jax.local_devices()
    self._group = at_once or min(len(members), self._room(devices))
    check_divisible(self.run.experiment.batch_size,
                    self.run.recipe.parts, 1)
    self._mesh = layout.make_mesh(self._group, devices)
    self.program = layout.MemberProgram(self.run, self._mesh)

  def _room(self, devices: Sequence[jax.Device]) -> int:
    return layout.room(Workload(
        self.run.recipe, self.run.shape(), self.run.row(),
        self.run.experiment.batch_size), devices)

  def run_alone(self, member: Member) -> Run:
    """What the member is by itself."""
    run = self.run.with_seed(member.seed)
    return dataclasses.replace(run,
                               experiment=member.configure(run.experiment))

  def train(self, workdir: pathlib.Path,
            value: Callable[[Scores], Any] | None,
            page: Page | None = None,
            score_further: Callable[[MemberResult], Scores] = lambda result: {}
            ) -> list[MemberResult]:
    """Runs all members, from their beginning to their end.

    What an earlier call finished, group by group, is read.

    Args:
      workdir: gets a folder for each group, with the means over its members
        and, at its end, their results; and best/, the work directory of the
        best member.
      value: of scores; the greatest is the best. None: none is kept.
      page: the config page, kept in the checkpoint.
      score_further: more scores of a result.

    Returns:
      The results in the order of the members, without parameters.

    Raises:
      UserError: the workdir is of other options or members, or another process
        is at work there.
      Stopped: after SIGTERM or SIGINT.
    """
    with Owner(workdir) as owner:
      owner.take()
      return self._train_groups(workdir, value, page, score_further)

  def _train_groups(
      self, workdir: pathlib.Path, value: Callable[[Scores], Any] | None,
      page: Page | None, score_further: Callable[[MemberResult], Scores]
      ) -> list[MemberResult]:
    results: list[MemberResult] = []
    for i in range(0, len(self.members), self._group):
      group = self.members[i:i + self._group]
      folder = workdir / "_to_".join(dict.fromkeys(
          map(str, (group[0], group[-1]))))
      path = folder / "results.json"
      if path.exists():
        results += member_results.read(path, self.provenance)
        continue
      folder.mkdir(parents=True, exist_ok=True)
      trained = [
          dataclasses.replace(r, scores={**r.scores, **score_further(r)})
          for r in self.train_group(group, folder)]
      best = value and max([*results, *trained],
                           key=lambda r: value(r.scores))
      if best and best.params is not None:
        member_results.save(best, self.run_alone(best.member),
                            workdir / "best", page)
      # Last: what is written here is not trained again to become the best.
      member_results.write(path, trained, self.provenance)
      results += [dataclasses.replace(r, params=None) for r in trained]
    return results

  def train_group(self, group: Sequence[Member],
                  workdir: pathlib.Path) -> list[MemberResult]:
    """Trains members together; `workdir` gets the means over them."""
    experiment, count = self.run.experiment, len(group)
    # A diverged member shows in its scores; the others continue.
    detector = AnomalyDetector(sys.maxsize, 0.0)
    job, results = self._job(group)
    with StepLog(workdir, experiment.steps, experiment.log_every,
                 count * experiment.batch_size, detector,
                 members=count, terminal=self._observers.progress(
                     f"{workdir.parent.name}/{workdir.name}"),
                 tracker=experiment.tracker,
                 options=config.options(experiment)) as log:
      try:
        train_loop(job, self.first_states(group, log.note), 0, log)
      except Stopped as stopped:
        raise Stopped("Asked to end; the same command starts again with "
                      f"{group[0]}.", stopped.number) from None
    plots.plot_curves(workdir / "metrics.jsonl", workdir / "curves.png")
    return [results[member] for member in group]

  def _job(self, group: Sequence[Member]
           ) -> tuple[Job, dict[Member, MemberResult]]:
    """What the loop runs, and the results that it fills in."""
    experiment, results, clock = self.run.experiment, {}, Clock()

    def save(step: int, states: TrainState, scores: Sequence[Scores],
             better: Sequence[bool]) -> None:
      last = not experiment.best and step == experiment.steps
      for i, (member, score) in enumerate(zip(group, scores)):
        if better[i] or last:
          results[member] = MemberResult(member, step, score, clock.used(),
                                         self._params(states, i))

    return Job(
        experiment,
        self.program.runner(self.run, [m.numbers for m in group]),
        batches=lambda start: layout.batches(
            self.run, [m.seed for m in group], start),
        evaluate=lambda states: self.program.evaluate(
            states.params, self.run, [m.numbers for m in group]),
        save=save, clock=clock,
        stopping=[EarlyStopping(experiment.best, experiment.patience)
                  for _ in group]), results

  def first_states(self, group: Sequence[Member],
                   say: Callable[[str], None] = lambda text: None
                   ) -> TrainState:
    """The states before the first step; `say` as `first_state`'s, once."""
    silent = lambda text: None
    alone = Mesh(self._mesh.devices[:1], self._mesh.axis_names)
    here = jax.tree.map(lambda _: NamedSharding(alone, P()), self.run.shape())
    return layout.put(self._mesh, layout.stack([
        jax.device_get(first_state(
            self.run.with_seed(m.seed), here, self._source,
            silent if i else say)) for i, m in enumerate(group)]))

  def _params(self, states: TrainState, member: int) -> Any:
    params = jax.tree.map(lambda x: x[member], states.params)
    return jax.device_get(self.run.experiment.adapter.merge(params))


def check(experiment: Experiment, members: Sequence[Member]) -> None:
  """
  Raises:
    UserError: it cannot be run as a sweep.
  """
  experiment.tracker.check()
  twice = [m for i, m in enumerate(members) if m in members[:i]]
  if twice:
    raise UserError(f"The member {twice[0]} is given twice; it would count "
                    "twice in the statistics.")
  if jax.process_count() > 1:
    raise UserError("A sweep runs on the devices of one host; give each host "
                    "members or tasks of its own.")
  if experiment.budget:
    raise UserError(f"budget={experiment.budget}: a sweep has no budget; set "
                    "epochs or steps.")
  for name, no in (("evaluation_batches", None), ("spike_deviations", 0.0)):
    if getattr(experiment, name) != no:
      raise UserError(f"{name}={getattr(experiment, name)}: a sweep evaluates "
                      "on the full set and never rolls back; set "
                      f"{name}={no}.")
  if experiment.objective.label_kind is None:
    raise UserError(f"objective={experiment.objective.choice_name} has no "
                    "labels; sweeps are for labeled tasks.")
