"""The GLUE suite in one command: several seeds of every task, one table."""

import dataclasses
import json
import math
import pathlib
import statistics
import time
from collections.abc import Mapping
from typing import Any

from bert_jax import config, sweep, writers
from bert_jax.config import UserError
from bert_jax.data import glue, tables
from bert_jax.data.datasets import GlueData
from bert_jax.data.glue import Task, task_facts
from bert_jax.data.labelled import Labelled
from bert_jax.evaluate import Evaluator
from bert_jax.experiment import Composition, Experiment
from bert_jax.objectives.tasks import Classification, Regression
from bert_jax.spread import Spread
from bert_jax.sweep import Outcome, Sweep
from bert_jax.training import partition
from bert_jax.watch import write_whole

# What is trained as another task, whose members it scores.
_SCORED_BY = {"MNLI": "MNLI-mm"}


@dataclasses.dataclass(frozen=True)
class Protocol:
  """How a table came about; it stands beside every number.

  A change of anything here is another version.
  """

  name: str = "bert_jax GLUE"
  version: int = 1
  training: str = "by `options`, the same for every task"
  splits: str = ("trained on the whole of train, scored on the whole of dev "
                 "(MNLI on both)")
  metrics: str = "GLUE's own, as data/glue.py lists them; the first decides"
  selection: str = ("after the last step, without a look at dev before; of "
                    "several rates the one of the best median on dev")
  degenerate: str = ("no more accurate than the most frequent class, or no "
                     "positive correlation")


@dataclasses.dataclass(frozen=True)
class Suite:
  """What to run.

  Attributes:
    experiment: what the tasks share, of GlueData.
    workdir: gets a folder for each task, and table.md, results.json, glue.png.
    tasks: their names; (): those whose files are there.
    seeds: so many of each rate, from the experiment's on.
    rates: peak learning rates; (): the experiment's.
    at_once: members of a sweep that run together; None: as memory allows.
  """

  experiment: Experiment
  workdir: pathlib.Path
  tasks: tuple[str, ...] = ()
  seeds: int = 5
  rates: tuple[float, ...] = ()
  at_once: int | None = None


def run(suite: Suite) -> str:
  """Runs what is not finished yet, task by task.

  Returns:
    The table, in Markdown.

  Raises:
    UserError: no task's files are there, or a task was run in another way.
  """
  if not isinstance(suite.experiment.data, GlueData):
    raise UserError(f"data={suite.experiment.data.choice_name}: the suite "
                    "wants data=glue.")
  if not suite.experiment.init_from:
    raise UserError("The suite starts from a pretrained network: "
                    "init_from=WORKDIR, of a run or of `bert-jax import`.")
  if suite.seeds < 1:
    raise UserError(f"--seeds {suite.seeds}: at least 1.")
  results = {name: _task(suite, name) for name in _names(suite)}
  told = table(results)
  write_whole(suite.workdir / "table.md", told + "\n")
  write_whole(suite.workdir / "results.json", _json(results))
  _draw(results, suite.workdir / "glue.png")
  return told


def _names(suite: Suite) -> list[str]:
  folder = suite.experiment.data.folder
  trained = [name for name, task in glue.TASKS.items()
             if task.train and name not in _SCORED_BY.values()]
  for name in suite.tasks:
    if task_facts(name).name not in trained:
      raise UserError(f"--tasks {name}: it has no training set of its own; it "
                      "comes with MNLI.")
  found = [name for name in glue.present(folder) if name in trained]
  missing = [name for name in suite.tasks if name not in found]
  if missing or not found:
    raise UserError(
        f"data.folder={folder}: no train and dev files of "
        f"{', '.join(missing or trained)} there. GLUE's own layout is wanted, "
        f"as {folder}/RTE/train.tsv; or data.folder=tfds.")
  return list(suite.tasks) or found


def _task(suite: Suite, name: str) -> dict[str, Any]:
  """A task's results, as JSON; those of an earlier call where there are."""
  task, folder = task_facts(name), suite.workdir / name
  experiment = _of_task(suite.experiment, task)
  members = sweep.grid(experiment, suite.seeds, suite.rates)
  how = {"protocol": dataclasses.asdict(Protocol()),
         "options": config.changes(Experiment(), experiment),
         "members": list(map(str, members))}
  path = folder / "result.json"
  if path.exists():
    result = json.loads(path.read_text())
    if {key: result[key] for key in how} != how:
      raise UserError(f"{path} is of another protocol, other options or other "
                      "members; give another workdir.")
    return result
  begun = time.monotonic()
  found = Sweep(experiment, members, suite.at_once)
  _say(name, found)
  outcomes = found.train(folder)
  best = max(outcomes, key=lambda o: _or_worst(o.scores[task.metrics[0]]))
  sweep.save(best, found.of(best.member), folder / "best")
  _submit(suite, name, found.run, best)
  result = how | {
      "metrics": task.metrics,
      "outcomes": [_outcome(suite, name, found.run, o) for o in outcomes],
      "seconds": round(time.monotonic() - begun)}
  write_whole(path, _json(result))
  return json.loads(_json(result))


def _of_task(experiment: Experiment, task: Task) -> Experiment:
  objective = Regression() if task.kind == "number" else Classification()
  return dataclasses.replace(
      experiment, objective=objective,
      data=dataclasses.replace(experiment.data, task=task.name))


def _say(name: str, found: Sweep) -> None:
  experiment, rows = found.run.experiment, found.run.prepared.train
  print(f"{name}: {len(found.members)} members of {experiment.steps} steps of "
        f"{experiment.batch_size} rows; {len(rows.examples(0))} examples in "
        f"{len(rows)} rows.", flush=True)


def _outcome(suite: Suite, name: str, run: Composition,
             outcome: Outcome) -> dict[str, Any]:
  scores, member = dict(outcome.scores), outcome.member
  if name in _SCORED_BY:
    other = glue.read(suite.experiment.data.folder, _SCORED_BY[name], "dev")
    found = _predicted(run, outcome, other)
    scores |= {f"mismatched_{metric}": score
               for metric, score in other.scores(found).items()}
  return {"seed": member.seed, "learning_rate": member.learning_rate,
          "scores": scores,
          "degenerate": _degenerate(run.prepared.labelled, scores)}


def _degenerate(labelled: Labelled, scores: Mapping[str, float]) -> bool:
  if labelled.kind == "number":
    return not scores["pearson"] > 0
  most = labelled.counts_C().max() / len(labelled)
  return not scores["accuracy"] > most


def _submit(suite: Suite, name: str, run: Composition, best: Outcome) -> None:
  """Writes what GLUE's server wants, where its questions are there."""
  folder = suite.experiment.data.folder
  asked = [name, *([_SCORED_BY[name], "AX"] if name in _SCORED_BY else [])]
  for other in asked:
    if glue.has_test(folder, other):
      found = _predicted(run, best, glue.read(folder, other, "test"))
      path, columns, records = glue.submission(other, found)
      (suite.workdir / "submission").mkdir(exist_ok=True)
      tables.write_table(str(suite.workdir / "submission" / path), columns,
                         records)


def _predicted(run: Composition, outcome: Outcome, labelled: Labelled) -> Any:
  mesh, data = partition.make_mesh(), run.experiment.data
  rows = labelled.rows(run.prepared.tokenizer, data.length,
                       data.examples_per_row, seed=0, shuffle=False)
  evaluator = Evaluator(run.recipe, partition.row_devices(mesh) * 8, mesh)
  return evaluator.predict(
      partition.place(outcome.params, partition.shardings(
          outcome.params, mesh)), rows, labelled)


def chosen_rate(result: Mapping[str, Any]) -> float:
  """The rate of the best median of the metric that decides."""
  decides = result["metrics"][0]
  by_rate: dict[float, list[float]] = {}
  for outcome in result["outcomes"]:
    by_rate.setdefault(outcome["learning_rate"], []).append(
        _or_worst(outcome["scores"][decides]))
  return max(by_rate, key=lambda rate: statistics.median(by_rate[rate]))


def table(results: Mapping[str, Mapping[str, Any]]) -> str:
  """In hundredths, as GLUE is told; a line for every metric."""
  lines = [line for name, result in results.items()
           for line in _lines(name, result)]
  medians = [Spread.of(_scores(result, result["metrics"][0])).median
             for result in results.values()]
  lines.append([f"mean of {len(medians)}", "", "",
                f"{100 * statistics.fmean(medians):.1f}", *[""] * 5])
  return writers.table(["task", "metric", "rate", "median", "mean", "deviation",
                        "95% interval of the mean", "seeds", "degenerate"],
                       lines)


def _lines(name: str, result: Mapping[str, Any]) -> list[list[str]]:
  rate, told = chosen_rate(result), lambda x: f"{100 * x:.1f}"
  here = [o for o in result["outcomes"] if o["learning_rate"] == rate]
  extra = [m for m in here[0]["scores"] if m.startswith("mismatched_acc")]
  spreads = {metric: Spread.of(_scores(result, metric))
             for metric in [*result["metrics"], *extra]}
  return [[name, metric.replace("_", " "), f"{rate:g}", told(s.median),
           told(s.mean), told(s.deviation), f"{told(s.low)} to {told(s.high)}",
           str(s.count), str(sum(o["degenerate"] for o in here))]
          for metric, s in spreads.items()]


def _scores(result: Mapping[str, Any], metric: str) -> list[float]:
  """Of the seeds with the chosen rate."""
  rate = chosen_rate(result)
  found = [o["scores"][metric] for o in result["outcomes"]
           if o["learning_rate"] == rate]
  return [math.nan if score is None else score for score in found]


def _draw(results: Mapping[str, Mapping[str, Any]],
          png: pathlib.Path) -> None:
  writers.plot_table(
      {name: _scores(result, result["metrics"][0])
       for name, result in results.items()}, png,
      "GLUE, held out: every seed, and their means", "the metric that decides")


def _or_worst(score: float | None) -> float:
  return -math.inf if score is None or math.isnan(score) else score


def _json(value: Any) -> str:
  """With null for what is no number."""
  def clean(x: Any) -> Any:
    if isinstance(x, Mapping):
      return {key: clean(y) for key, y in x.items()}
    if isinstance(x, (list, tuple)):
      return [clean(y) for y in x]
    return None if isinstance(x, float) and math.isnan(x) else x

  return json.dumps(clean(value), indent=1) + "\n"
