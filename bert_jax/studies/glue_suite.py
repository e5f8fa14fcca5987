"""The GLUE suite in one command: several seeds of every task, one table."""

import dataclasses
import json
import pathlib
from collections.abc import Callable, Mapping
from typing import Any

from bert_jax import files
from bert_jax.checkpoints import environment
from bert_jax.checkpoints.reading import read_checkpoint
from bert_jax.config import Page, UserError
from bert_jax.data.labeled import glue
from bert_jax.data.labeled.base import LabeledSet
from bert_jax.data.labeled.glue import Task, task_named
from bert_jax.data.labeled.texts import ClassificationSet
from bert_jax.data.sources import GlueData
from bert_jax.experiment import Experiment, Run
from bert_jax.objectives.classification import Classification
from bert_jax.objectives.regression import Regression
from bert_jax.studies import glue_table
from bert_jax.studies.members import results as member_results, sweep
from bert_jax.studies.members.results import MemberResult
from bert_jax.studies.members.sweep import Sweep
from bert_jax.studies.protocols.finetuning import predictor

# What is trained as another task, whose members it scores.
_SCORED_BY = {"MNLI": "MNLI-mm"}


@dataclasses.dataclass(frozen=True)
class SuiteProtocol:
  """How a table came about; it stands beside every number.

  A change of anything here is another version. It is no member of `Protocol`,
  as glue@1 is: options and rates are the user's, so its numbers compare with
  those of equal options only.
  """

  name: str = "glue_suite"
  version: int = 1
  training: str = "by `options`, the same for every task"
  splits: str = ("trained on the whole of train, scored on the whole of dev "
                 "(MNLI on both)")
  metrics: str = ("GLUE's own, as data/labeled/glue.py lists them; the first "
                  "decides")
  selection: str = ("after the last step, without a look at dev before; of "
                    "several rates the one of the best median on dev")
  degenerate: str = ("no more accurate than the most frequent class, or no "
                     "positive correlation")

  @property
  def title(self) -> str:
    return f"{self.name}@{self.version}"

  def caption(self) -> str:
    """What stands below a table."""
    return (f"Protocol {self.title}: {self.splits}; {self.selection}. The "
            "options are in results.json.")


@dataclasses.dataclass(frozen=True)
class Suite:
  """What to run.

  Attributes:
    experiment: what the tasks share, of GlueData.
    workdir: gets a folder for each task, and table.md, results.json, glue.png.
    tasks: their names; (): those whose files are there.
    seeds: of each rate, from the experiment's on.
    rates: peak learning rates; (): the experiment's.
    at_once: members of a sweep that run together; None: as memory allows.
    page: the config page, kept in the checkpoints.
  """

  experiment: Experiment
  workdir: pathlib.Path
  tasks: tuple[str, ...] = ()
  seeds: int = 5
  rates: tuple[float, ...] = ()
  at_once: int | None = None
  page: Page | None = None


def run(suite: Suite) -> str:
  """Runs what is not finished yet, task by task.

  Returns:
    The table, in Markdown.

  Raises:
    UserError: no task's files are there, or a task was run in another way.
  """
  if not isinstance(suite.experiment.data, GlueData):
    raise UserError(f"data={suite.experiment.data.choice_name}: the suite "
                    "needs data=glue.")
  if not suite.experiment.init_from:
    raise UserError("The suite starts from a pretrained network: "
                    "init_from=WORKDIR, of a run or of `bert-jax import`.")
  _check_protocol(suite.experiment)
  results = {name: _task(suite, name) for name in _names(suite)}
  markdown_table = (f"{glue_table.table(results)}\n\n"
                    + SuiteProtocol().caption())
  files.write_text(suite.workdir / "table.md", markdown_table + "\n")
  files.write_text(suite.workdir / "results.json",
                   member_results.to_json(results))
  glue_table.draw(results, suite.workdir / "glue.png")
  return markdown_table


def _check_protocol(experiment: Experiment) -> None:
  """
  Raises:
    UserError: the protocol would not be what was done.
  """
  for option, given in (("best", experiment.best),
                        ("data.shots", experiment.data.shots)):
    if given:
      raise UserError(
          f"{option}={given}: the suite trains on all of train and takes what "
          "the last step gives; `bert-jax sweep` of a page with data=glue does "
          "otherwise.")
  if not isinstance(experiment.objective, Classification):
    raise UserError(f"objective={experiment.objective.choice_name}: the suite "
                    "needs objective=classification; for tasks with numbers "
                    "it takes regression by itself.")


def _names(suite: Suite) -> list[str]:
  folder = suite.experiment.data.folder
  trained = [name for name, task in glue.TASKS.items()
             if task.train and name not in _SCORED_BY.values()]
  for name in suite.tasks:
    if task_named(name).name not in trained:
      raise UserError(f"--tasks {name}: it has no training set of its own; it "
                      "comes with MNLI.")
  present = [name for name in glue.present(folder) if name in trained]
  missing = [name for name in suite.tasks if name not in present]
  if missing or not present:
    raise UserError(
        f"data.folder={folder}: no train and dev files of "
        f"{', '.join(missing or trained)} there. The layout is GLUE's own, "
        f"as {folder}/RTE/train.tsv; or data.folder=tfds.")
  return list(suite.tasks) or present


def _task(suite: Suite, name: str) -> dict[str, Any]:
  """A task's results, as JSON; those of an earlier call where there are."""
  task, folder = task_named(name), suite.workdir / name
  experiment = _of_task(suite.experiment, task)
  members = sweep.grid(experiment, suite.seeds, suite.rates)
  provenance = {"protocol": dataclasses.asdict(SuiteProtocol()),
                **sweep.provenance(experiment, members)}
  path = folder / "result.json"
  if path.exists():
    result = json.loads(path.read_text())
    if {key: result[key] for key in provenance} != provenance:
      raise UserError(f"{path} is of another protocol, other options or other "
                      "members; give another workdir.")
    environment.warn(result["environment"])
    return result
  task_sweep = Sweep(experiment, members, suite.at_once)
  _say(name, task_sweep)
  results = task_sweep.train(
      folder, lambda scores: glue_table.value(scores, task.metrics[0]),
      suite.page, _mismatched(suite, name, task_sweep.run))
  _submit(suite, name, task_sweep.run, read_checkpoint(folder / "best").params)
  labeled = task_sweep.run.prepared.evaluation_set
  result = provenance | {
      "metrics": task.metrics, "environment": environment.rounding(),
      "results": [
          {"seed": r.member.seed, "learning_rate": r.member.learning_rate,
           "scores": r.scores, "degenerate": _degenerate(labeled, r.scores),
           "seconds": round(r.seconds)} for r in results]}
  files.write_text(path, member_results.to_json(result))
  return json.loads(path.read_text())


def _of_task(experiment: Experiment, task: Task) -> Experiment:
  objective = (experiment.objective if task.kind is ClassificationSet
               else Regression())
  return dataclasses.replace(
      experiment, objective=objective,
      data=dataclasses.replace(experiment.data, task=task.name))


def _say(name: str, task_sweep: Sweep) -> None:
  experiment = task_sweep.run.experiment
  rows = task_sweep.run.prepared.train
  print(f"{name}: {len(task_sweep.members)} members of {experiment.steps} "
        f"steps of {experiment.batch_size} rows; {len(rows.examples(0))} "
        f"examples in {len(rows)} rows.", flush=True)


def _mismatched(suite: Suite, name: str,
                run: Run) -> Callable[[MemberResult], Mapping[str, float]]:
  """Further scores of a task, where its data has another dev set."""
  if name not in _SCORED_BY:
    return lambda result: {}
  data = suite.experiment.data
  other = glue.read(data.folder, _SCORED_BY[name], "dev", data.bad_records)
  predict = _predictor(run, other)
  return lambda result: {
      f"mismatched_{metric}": score for metric, score in other.scores(
          predict(result.params)).items()}


def _degenerate(labeled: LabeledSet, scores: Mapping[str, float]) -> bool:
  if not labeled.label_names:
    return not scores["pearson"] > 0
  most = labeled.counts_C().max() / len(labeled)
  return not scores["accuracy"] > most


def _submit(suite: Suite, name: str, run: Run, params: Any) -> None:
  """Writes the submission to GLUE's server, where the test set is there."""
  folder = suite.experiment.data.folder
  asked = [name, *([_SCORED_BY[name], "AX"] if name in _SCORED_BY else [])]
  for other in asked:
    if glue.has_test(folder, other):
      predict = _predictor(run, glue.read(folder, other, "test"))
      glue.write_submission(suite.workdir / "submission", other,
                            predict(params))


def _predictor(run: Run, labeled: LabeledSet) -> Callable[[Any], Any]:
  """From parameters to predictions of further examples."""
  data = run.experiment.data
  return predictor(run, labeled, labeled.rows(
      run.prepared.tokenizer, data.length, data.examples_per_row, seed=0,
      shuffle=False))
