"""`config.json` and our options, both ways."""

import dataclasses
import json
import pathlib
from collections.abc import Collection, Mapping
from typing import Any

from bert_jax.config import UserError, nearest
from bert_jax.data.labeled.soft_labels import SoftLabelSet
from bert_jax.interop.families import FAMILIES, PREFIXES
from bert_jax.interop.family import Family
from bert_jax.interop.parameter_map import Entry
from bert_jax.model.bert import BertConfig
from bert_jax.model.dense import Activation
from bert_jax.objectives.base import Objective
from bert_jax.objectives.classification import (
    Classification, MultiLabel, MultipleChoice, Tagging)
from bert_jax.objectives.embedding import Similarity
from bert_jax.objectives.mlm import Mlm, MlmNsp
from bert_jax.objectives.regression import Regression
from bert_jax.objectives.replaced_tokens import ReplacedTokens
from bert_jax.objectives.sentence_order import MlmSop
from bert_jax.objectives.span import Span


@dataclasses.dataclass(frozen=True)
class _Task:
  """What Hugging Face calls a head for a kind of labels.

  Attributes:
    ending: of the class.
    use: what the hub says that such a network is for (pipeline_tag).
    outputs: of the head; None: one for each label.
    problem: problem_type of the configuration.
  """

  objective: type[Objective]
  ending: str
  use: str
  outputs: int | None = None
  problem: str | None = None


TASKS = {task.objective.label_kind: task for task in (
    _Task(Classification, "ForSequenceClassification", "text-classification",
          problem="single_label_classification"),
    _Task(Regression, "ForSequenceClassification", "text-classification", 1,
          "regression"),
    _Task(MultiLabel, "ForSequenceClassification", "text-classification",
          problem="multi_label_classification"),
    _Task(Tagging, "ForTokenClassification", "token-classification"),
    _Task(MultipleChoice, "ForMultipleChoice", "multiple-choice", 1),
    _Task(Span, "ForQuestionAnswering", "question-answering", 2))}
TASKS[SoftLabelSet] = TASKS[Classification.label_kind]
_TASK_ENDINGS = {task.ending for task in TASKS.values()}


@dataclasses.dataclass(frozen=True)
class Architecture:
  """A network as a configuration describes it.

  Attributes:
    ending: of the name of its class.
    entries: its tensors.
    first_position: rows of the position table before the first token's.
  """

  family: Family
  ending: str
  entries: tuple[Entry, ...]
  model: BertConfig
  objective: Objective
  first_position: int = 0

  @property
  def parts(self) -> set[str]:
    """As of `Entry.part`."""
    return {entry.part for entry in self.entries}


def read_json(path: pathlib.Path) -> dict[str, Any]:
  try:
    content = json.loads(path.read_text(encoding="utf-8"))
  except OSError as error:
    raise UserError(f"{path}: {error.strerror}.") from None
  except ValueError as error:
    raise UserError(f"{path} is not JSON: {error}.") from None
  if not isinstance(content, dict):
    raise UserError(f"{path}: expected an object, as in {{\"vocab_size\": 1}}.")
  return content


def family_of(options: Mapping[str, Any], source: str) -> Family:
  """
  Raises:
    UserError: names those that are known.
  """
  name = options.get("model_type", "bert")
  if name not in FAMILIES:
    raise UserError(f"{source}: model_type={name} is no encoder that is known "
                    "here" + nearest(name, FAMILIES))
  return FAMILIES[name]


def read(options: Mapping[str, Any], shapes: Mapping[str, tuple[int, ...]],
         source: str) -> Architecture:
  """
  Args:
    options: of `config.json` or `bert_config.json`.
    shapes: of the tensors, under the common names of the family.
    source: named in errors.

  Raises:
    UserError: it is none of the families, or one that this project cannot
      express.
  """
  family = family_of(options, source)
  model = family.read_options(options, source)
  ending = _ending(family, options, shapes, source)
  head = family.classes[ending]
  if ending in _TASK_ENDINGS:
    spare = family.spare
    objective = _task_objective(ending, head, options, shapes, source)
  else:
    # The name of a class drops no tensors that are there.
    spare = [*family.spare, *(entry for name, entries in family.classes.items()
                              if name not in _TASK_ENDINGS
                              for entry in entries)]
    objective = None
  entries = _with_spare((*family.encoder, *head), spare, shapes, model)
  parts = {entry.part for entry in entries}
  _check_activation(family, model.hidden_act, parts)
  return Architecture(family, ending, entries, model,
                      objective or _reader_objective(parts),
                      family.first(options, source))


def _with_spare(entries: tuple[Entry, ...], spare: Collection[Entry],
                shapes: Collection[str],
                model: BertConfig) -> tuple[Entry, ...]:
  """Entries, and those parts of which there is something."""
  paths = {entry.path for entry in entries}
  there = {entry.part for entry in spare if any(
      name in shapes for name in entry.names(model.parameter_layers))}
  more = {entry.path: entry for entry in spare
          if entry.part in there and entry.path not in paths}
  return (*entries, *more.values())


def _reader_objective(parts: Collection[str]) -> Objective:
  """Of a network that reads text alone."""
  # A discriminator comes without the generator.
  objectives = {"replaced": ReplacedTokens(generator="random"),
                "nsp": MlmNsp(), "sop": MlmSop(), "mlm": Mlm()}
  return next((objective for part, objective in objectives.items()
               if part in parts), Similarity())


def _check_activation(family: Family, hidden_act: Activation,
                      parts: Collection[str]) -> None:
  always = family.mlm_activation
  if always and "mlm" in parts and hidden_act != always:
    raise UserError(
        f"{family.title}'s masked-LM head always has hidden_act={always}; this "
        f"network's {hidden_act} cannot be expressed.")


def _ending(family: Family, options: Mapping[str, Any],
            shapes: Collection[str], source: str) -> str:
  """What the class's name says after the family's, or the tensors say."""
  named = (options.get("architectures") or [""])[0]
  ending = named.removeprefix(next(
      (prefix for prefix in (family.prefix, *PREFIXES)
       if named.startswith(prefix)), ""))
  if ending in family.classes:
    return ending
  if ending:
    known = [family.prefix + ending for ending in family.classes]
    if any(ending in other.classes for other in FAMILIES.values()):
      raise UserError(f"{source}: architectures={named}; of {family.title} "
                      f"there are {', '.join(known)}.")
    raise UserError(f"{source}: architectures={named}" + nearest(named, known))
  complete = [ending for ending, entries in family.classes.items()
              if all(entry.name in shapes for entry in entries)]
  return max(complete, key=lambda ending: len(family.classes[ending]))


def _task_objective(ending: str, head: Collection[Entry],
                    options: Mapping[str, Any],
                    shapes: Mapping[str, tuple[int, ...]],
                    source: str) -> Objective:
  """What the head of a class is for."""
  tasks = [task for task in TASKS.values() if task.ending == ending]
  problem = tasks[0].problem
  if len(tasks) > 1:
    problem = options.get("problem_type") or (
        "regression" if len(_labels(options, source)) == 1
        else "single_label_classification")
  problems = [task.problem for task in tasks]
  if problem not in problems:
    raise UserError(f"{source}: problem_type={problem}" + nearest(
        str(problem), problems))
  bias = next(e.name for e in head if e.path == "classifier/bias")
  # A tensor that is missing is reported later.
  outputs = shapes[bias][0] if bias in shapes else None
  return _objective(tasks[problems.index(problem)], options, outputs, source)


def _labels(options: Mapping[str, Any], source: str) -> tuple[str, ...]:
  """The names of the classes; () if not given."""
  names = options.get("id2label") or {}
  if not names and "num_labels" in options:
    return tuple(f"LABEL_{i}" for i in range(options["num_labels"]))
  if set(map(str, names)) != {str(i) for i in range(len(names))}:
    raise UserError(f"{source}: id2label numbers its labels "
                    f"{', '.join(map(str, names))}, not from 0 on; which "
                    "output is whose is not clear.")
  return tuple(str(names[str(i)]) for i in range(len(names)))


def _objective(task: _Task, options: Mapping[str, Any],
               outputs: int | None, source: str) -> Objective:
  member = task.objective
  if task.outputs:
    if outputs not in (None, task.outputs):
      raise UserError(
          f"{source}: a head for objective={member.choice_name} gives "
          f"{task.outputs} numbers, but the classifier has {outputs}.")
    return member()
  classes = outputs or 2
  labels = _labels(options, source) or tuple(
      f"LABEL_{i}" for i in range(classes))
  if len(labels) != classes:
    raise UserError(f"{source}: id2label names {len(labels)} labels, but the "
                    f"classifier has {classes}.")
  try:
    return member(labels=labels)
  except UserError as error:
    raise UserError(f"{source}: id2label: {error}") from None


def write(family: Family, model: BertConfig, objective: Objective,
          parts: Collection[str], pad_id: int) -> tuple[dict[str, Any], str]:
  """`config.json`, and the ending of the class.

  Args:
    parts: that the network has parameters of.
    pad_id: of the tokenizer.

  Raises:
    UserError: names every option and head that the family does not have.
  """
  if "encoder/pooler" not in parts:  # It does not matter.
    model = dataclasses.replace(model, pooler=family.expressed(model).pooler)
  wrong = family.lacking(model)
  if wrong:
    raise UserError(f"{', '.join(wrong)}: Hugging Face's {family.title} has "
                    "nothing like it, so its weights cannot be exported.")
  ending, labels = _written_head(family, objective, parts)
  _check_activation(family, model.hidden_act, parts)
  return {"architectures": [family.prefix + ending],
          "model_type": family.model_type, **family.write_options(model, pad_id),
          "tie_word_embeddings": True, **labels}, ending


def _written_head(family: Family, objective: Objective,
                  parts: Collection[str]) -> tuple[str, dict[str, Any]]:
  """The ending of the class, and the options of its labels."""
  heads = set(parts) - {"encoder", "encoder/pooler"}
  if "classifier" in parts and objective.label_kind in TASKS:
    task, labels = TASKS[objective.label_kind], {}
    if task.problem:
      labels["problem_type"] = task.problem
    names = (("LABEL_0",) if task.objective is Regression else
             () if task.outputs else objective.labels)
    if names:
      labels["id2label"] = {str(i): name for i, name in enumerate(names)}
      labels["label2id"] = {name: i for i, name in enumerate(names)}
    if task.ending in family.classes:
      return task.ending, labels
  if "classifier" not in parts:
    for ending in family.classes:
      if family.heads(ending) == heads:
        return ending, {}
  others = [other.model_type for other in FAMILIES.values()
            if any(other.heads(ending) == heads for ending in other.classes)]
  raise UserError(
      f"objective={objective.choice_name}: Hugging Face's {family.title} has "
      f"no class for its head ({', '.join(sorted(heads))})" + (
          f"; export it with --family {others[0]}." if others
          and "classifier" not in parts else "."))
