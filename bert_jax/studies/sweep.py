"""Many fine-tunings at once: seeds and learning rates of one experiment.

The members are one program over all devices of a host, and each is what a run
by itself with that seed and rate is. Where not all fit, they run in groups.
"""

import dataclasses
import functools
import itertools
import math
import pathlib
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from bert_jax import config
from bert_jax.checkpoints.manager import read
from bert_jax.config import UserError
from bert_jax.data.batches import loader, spec
from bert_jax.experiment import Experiment, Run, compose
from bert_jax.metrics import weighted
from bert_jax.metrics.selection import rank
from bert_jax.parallel import cost
from bert_jax.parallel.cost import Workload
from bert_jax.parallel.layouts import memory_limit
from bert_jax.reporting import plots
from bert_jax.runs.anomalies import AnomalyDetector
from bert_jax.runs.initialize import start_from
from bert_jax.runs.step_log import StepLog
from bert_jax.studies import members as program, outcomes
from bert_jax.studies.outcomes import (
    Member, MemberResult, MemberTracker, Scores)
from bert_jax.training.step import TrainState, check_divisible


def run(experiment: Experiment, workdir: pathlib.Path, seeds: int,
        rates: Sequence[float] = (), at_once: int | None = None,
        page: str = "") -> str:
  """Trains a grid of members, and writes down what became of them.

  Args:
    workdir: gets what `Sweep.train` writes, and all in outcomes.json.
    page: the source of the config page, kept in the checkpoint.

  Returns:
    A table in Markdown: of every score, what the seeds of each rate say.

  Raises:
    UserError: as Sweep.
  """
  sweep = Sweep(experiment, grid(experiment, seeds, rates), at_once)
  decides = experiment.best or "loss"
  found = sweep.train(workdir, lambda scores: rank(decides, scores), page)
  outcomes.write(workdir / "outcomes.json", found, sweep.how)
  best = max(found, key=lambda outcome: rank(decides, outcome.scores))
  return f"{outcomes.table(found)}\nBest by {decides}: {best.member}."


def grid(experiment: Experiment, seeds: int,
         rates: Sequence[float] = ()) -> list[Member]:
  """So many seeds, from the experiment's on, with each of the rates.

  Args:
    rates: none: the experiment's.
  """
  rates = rates or (experiment.schedule.learning_rate,)
  return [Member(experiment.seed + i, rate)
          for rate, i in itertools.product(rates, range(seeds))]


def how(experiment: Experiment, members: Sequence[Member]) -> dict[str, Any]:
  """What outcomes come by: options and members."""
  return {"options": config.changes(Experiment(), experiment),
          "members": list(map(str, members))}


class Sweep:
  """Members that run as one program.

  Attributes:
    members: as given.
    run: the first one's composition.
    how: what its outcomes come by.
  """

  def __init__(self, experiment: Experiment, members: Sequence[Member],
               at_once: int | None = None):
    """
    Args:
      experiment: what the members share.
      members: at least one.
      at_once: so many run together; None: as the devices have memory for.

    Raises:
      UserError: what is asked for cannot be run, or not as a sweep.
    """
    _check(experiment)
    self._source = (read(experiment.init_from)
                    if experiment.init_from else None)
    tokenizer = self._source and self._source.facts.tokenizer
    self.run = compose(members[0].of(experiment), tokenizer)
    self.members = list(members)
    self.how = how(experiment, members)
    devices = jax.local_devices()
    self._group = at_once or min(len(members), self._room(devices))
    self._mesh = program.make_mesh(self._group, devices)
    experiment, recipe = self.run.experiment, self.run.recipe
    check_divisible(experiment.batch_size, experiment.microbatches, 1)
    self._step = program.on_members(
        recipe, lambda peak: dataclasses.replace(
            experiment.schedule, learning_rate=peak).build(experiment.steps),
        self._mesh)
    self._evaluate = program.evaluation_on_members(recipe, self._mesh)

  def _room(self, devices: Sequence[jax.Device]) -> int:
    """How many members the devices hold at once, at least one each.

    A CPU computes them one after another anyhow.
    """
    limit = memory_limit(devices)
    if limit is None:
      return len(devices)
    work = Workload(self.run.recipe, self.run.shape(), self.run.row(),
                    self.run.experiment.batch_size)
    alone = cost.price(work, (1, 1, 1))
    return len(devices) * max(1, limit // alone.memory)

  def of(self, member: Member) -> Run:
    """What the member is by itself."""
    run = self.run.with_seed(member.seed)
    return dataclasses.replace(run, experiment=member.of(run.experiment))

  def train(self, workdir: pathlib.Path, value: Callable[[Scores], Any],
            page: str = "",
            further: Callable[[MemberResult], Scores] = lambda outcome: {}
            ) -> list[MemberResult]:
    """Runs all members, from their beginning to their end.

    What an earlier call finished, group by group, is read.

    Args:
      workdir: gets a folder for each group, with the means over its members
        and, at its end, their outcomes; and best/, the work directory of the
        best member.
      value: of scores; the greatest is the best.
      page: the source of the config page, kept in the checkpoint.
      further: more scores of an outcome.

    Returns:
      The outcomes in the order of the members, without parameters.

    Raises:
      UserError: the workdir is of other options or members.
    """
    ended: list[MemberResult] = []
    for i in range(0, len(self.members), self._group):
      group = self.members[i:i + self._group]
      folder = workdir / "_to_".join(dict.fromkeys(
          map(str, (group[0], group[-1]))))
      path = folder / "outcomes.json"
      if path.exists():
        ended += outcomes.read(path, self.how)
        continue
      folder.mkdir(parents=True, exist_ok=True)
      found = [dataclasses.replace(o, scores={**o.scores, **further(o)})
               for o in self._train(group, folder)]
      best = max([*ended, *found], key=lambda o: value(o.scores))
      if best.params is not None:
        outcomes.save(best, self.of(best.member), workdir / "best", page)
      # Last: what is written here is not trained again to become the best.
      outcomes.write(path, found, self.how)
      ended += [dataclasses.replace(o, params=None) for o in found]
    return ended

  def _train(self, group: Sequence[Member],
             workdir: pathlib.Path) -> list[MemberResult]:
    experiment, count = self.run.experiment, len(group)
    begun = time.monotonic()
    kept = [MemberTracker(m, experiment) for m in group]
    states = self._first(group)
    peaks = self._spread([np.float32(m.learning_rate) for m in group])
    told = dataclasses.replace(experiment,
                               batch_size=count * experiment.batch_size)
    # A member that diverges is told by its scores; the others go on.
    detector = AnomalyDetector(sys.maxsize, 0.0)
    with StepLog(workdir, told, 0, detector, {}) as log:
      for step, batches in enumerate(self._batches(group), 1):
        states, pairs = self._step(states, peaks, self._spread(batches))
        log.flush()  # The metrics of the step before.
        log.hold(step, _end_to_end(batches),
                 functools.partial(_sums, pairs, count))
        last = step == experiment.steps
        if last or step % experiment.evaluate_every == 0:
          log.flush()
          found = self._evaluated(states, count)
          log.held_out(step, _means(found))
          for i, (member, scores) in enumerate(zip(kept, found)):
            member.see(step, scores, functools.partial(self._params, states, i),
                       time.monotonic() - begun, last)
          if all(member.over() for member in kept):
            break
    plots.plot_curves(workdir / "metrics.jsonl", workdir / "curves.png")
    return [member.outcome for member in kept]

  def _first(self, group: Sequence[Member]) -> TrainState:
    """The states before the first step."""
    experiment, recipe = self.run.experiment, self.run.recipe
    init = jax.jit(recipe.init)

    def first(member: Member) -> Any:
      params = jax.device_get(
          init(np.int32(member.seed), self.run.row()).params)
      if self._source is None or experiment.from_scratch:
        return params
      return start_from(
          self._source, params, experiment.finetuning.reinitialized(
              experiment.model.num_hidden_layers))[0]

    params = self._spread([first(m) for m in group])
    sharding = program.sharding(self._mesh)
    begin = lambda seed, params: TrainState(
        jnp.zeros((), jnp.int32), seed, params,
        recipe.optimizer.init(recipe.rates.trained(params)))
    return jax.jit(jax.vmap(begin), out_shardings=sharding)(
        self._spread([np.int32(m.seed) for m in group]), params)

  def _spread(self, trees: Sequence[Any]) -> Any:
    """A tree for each member, stacked and on the devices."""
    sharding = program.sharding(self._mesh)
    places = program.places(len(trees), self._mesh)
    return jax.tree.map(lambda *leaves: jax.device_put(
        np.stack([leaves[i] for i in places]), sharding), *trees)

  def _batches(self, group: Sequence[Member]) -> Iterator[list[loader.Batch]]:
    """Of every step, each member's batch."""
    experiment = self.run.experiment
    # Rates share what seeds decide.
    seeds = list(dict.fromkeys(m.seed for m in group))
    by_seed = [loader.batches(self.run.with_seed(seed).prepared.train,
                              experiment.batch_size, 0, experiment.steps)
               for seed in seeds]
    for batches in zip(*by_seed, strict=True):
      yield [batches[seeds.index(m.seed)] for m in group]

  def _evaluated(self, states: TrainState,
                 count: int) -> list[Scores]:
    """Each member's scores."""
    prepared, counted, predicted = self.run.prepared, [], []
    for batch in loader.evaluation_batches(
        prepared.evaluation, self.run.experiment.batch_size):
      pairs, predictions = jax.device_get(self._evaluate(states.params, batch))
      places = spec.locating(prepared.labeled.keys, batch)
      counted.append(pairs)
      predicted.append((places, predictions))

    def of(i: int) -> Scores:
      found = prepared.labeled.collect(
          [(places, predictions[i]) for places, predictions in predicted])
      pairs = weighted.merge(
          jax.tree.map(lambda x: x[i], pairs) for pairs in counted)
      return weighted.summarize(pairs) | prepared.labeled.scores(found)

    return [of(i) for i in range(count)]

  def _params(self, states: TrainState, member: int) -> Any:
    params = jax.tree.map(lambda x: x[member], states.params)
    return jax.device_get(self.run.experiment.adapter.merge(params))


def _check(experiment: Experiment) -> None:
  if jax.process_count() > 1:
    raise UserError("A sweep runs on the devices of one host; give each host "
                    "members or tasks of its own.")
  if experiment.budget:
    raise UserError(f"budget={experiment.budget}: a sweep has no budget; set "
                    "epochs or steps.")
  for name, no in (("evaluation_batches", None), ("spike_deviations", 0.0)):
    if getattr(experiment, name) != no:
      raise UserError(f"{name}={getattr(experiment, name)}: a sweep evaluates "
                      "on the whole set and rolls nothing back; set "
                      f"{name}={no}.")
  if experiment.objective.label_kind is None:
    raise UserError(f"objective={experiment.objective.choice_name} has no "
                    "labels; sweeps are for labeled tasks.")


def _end_to_end(batches: Sequence[loader.Batch]) -> loader.Batch:
  """The members' rows as one batch, of which tokens are counted."""
  return {"example_ids": np.concatenate([b["example_ids"] for b in batches])}


def _sums(pairs: Any, count: int) -> Any:
  """Pairs over the members; without those that only fill up the devices."""
  return jax.tree.map(lambda x: x[:count].sum(0), jax.device_get(pairs))


def _means(scores: Sequence[Scores]) -> dict[str, float]:
  """Over the members, of those that have a finite score."""
  values = {name: [s[name] for s in scores if math.isfinite(s[name])]
            for name in scores[0]}
  return {name: float(np.mean(found)) if found else math.nan
          for name, found in values.items()}
