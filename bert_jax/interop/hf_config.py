"""`config.json` and our options, both ways."""

import dataclasses
import json
import pathlib
from collections.abc import Mapping
from typing import Any

from bert_jax import config
from bert_jax.config import UserError, nearest
from bert_jax.interop import parameter_map
from bert_jax.data.labeled.soft_labels import SoftLabelSet
from bert_jax.model.bert import BertConfig
from bert_jax.objectives.base import Objective
from bert_jax.objectives.classification import (
    Classification, MultiLabel, MultipleChoice, Tagging)
from bert_jax.objectives.embedding import Similarity
from bert_jax.objectives.mlm import Mlm, MlmNsp
from bert_jax.objectives.regression import Regression
from bert_jax.objectives.span import Span

# The families whose tensors are BERT's, and what begins their classes.
FAMILIES = {"bert": "Bert", "roberta": "Roberta", "xlm-roberta": "XLMRoberta",
            "camembert": "Camembert"}
# Other words for the activations of `model.hidden_act`.
_ACTIVATIONS = {
    "gelu": "gelu", "gelu_python": "gelu", "gelu_new": "gelu_new",
    "gelu_pytorch_tanh": "gelu_new", "gelu_fast": "gelu_new",
    "gelu_accurate": "gelu_new", "relu": "relu", "silu": "silu",
    "swish": "silu", "tanh": "tanh"}

# Options that BERT's configuration has not: what another value than the
# default makes is not BERT, but for those that change no function.
_FREE = {"dtype", "scan_unroll", "remat"}
_OURS = _FREE | {"embedding_size", "norm_placement", "use_bias"} | {
    field.name for field in dataclasses.fields(BertConfig)
    if isinstance(field.default, config.Choice)}


@dataclasses.dataclass(frozen=True)
class _Task:
  """What Hugging Face calls a head for a kind of labels.

  Attributes:
    ending: of the class.
    use: what the hub says that such a network is for (pipeline_tag).
    pooler: whether the head is on the pooled output.
    outputs: of the head; None: one for each label.
    problem: problem_type of the configuration.
  """

  objective: type[Objective]
  ending: str
  use: str
  pooler: bool
  outputs: int | None = None
  problem: str | None = None


TASKS = {task.objective.label_kind: task for task in (
    _Task(Classification, "ForSequenceClassification", "text-classification",
          True, problem="single_label_classification"),
    _Task(Regression, "ForSequenceClassification", "text-classification", True,
          1, "regression"),
    _Task(MultiLabel, "ForSequenceClassification", "text-classification", True,
          problem="multi_label_classification"),
    _Task(Tagging, "ForTokenClassification", "token-classification", False),
    _Task(MultipleChoice, "ForMultipleChoice", "multiple-choice", True, 1),
    _Task(Span, "ForQuestionAnswering", "question-answering", False, 2))}
TASKS[SoftLabelSet] = TASKS[Classification.label_kind]
# Ending of a class that reads text: the parts that it cannot do without.
_READERS = {
    "Model": set(), "ForPreTraining": {"encoder/pooler", "mlm", "nsp"},
    "ForMaskedLM": {"mlm"}, "LMHeadModel": {"mlm"},
    "ForNextSentencePrediction": {"encoder/pooler", "nsp"}}
_HEADS = {"encoder/pooler", "mlm", "nsp"}
_ENDINGS = (*_READERS, *dict.fromkeys(t.ending for t in TASKS.values()))


@dataclasses.dataclass(frozen=True)
class Architecture:
  """A network as a configuration describes it.

  Attributes:
    parts: of its parameters, as `names.Entry.part`.
    first_position: rows of the position table before the first token's.
  """

  model: BertConfig
  objective: Objective
  parts: frozenset[str]
  first_position: int = 0


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


def read(options: Mapping[str, Any], shapes: Mapping[str, tuple[int, ...]],
         source: str) -> Architecture:
  """
  Args:
    options: of `config.json` or `bert_config.json`.
    shapes: of the tensors, under the names of `names.TABLE`.
    source: named in errors.

  Raises:
    UserError: it is not a BERT, or one that this project cannot express.
  """
  family = options.get("model_type", "bert")
  if family not in FAMILIES:
    raise UserError(f"{source}: model_type={family} is not a BERT"
                    + nearest(family, FAMILIES))
  pad = options["pad_token_id"] if "pad_token_id" in options else 1
  if family != "bert" and not isinstance(pad, int):
    raise UserError(f"{source}: pad_token_id={pad}; RoBERTa counts positions "
                    "from it.")
  first = 0 if family == "bert" else pad + 1
  model = _model(options, first, source)
  present = parameter_map.parts(shapes)
  task = _task(options, present, source)
  if task is None:
    needed = _READERS[_ending(options, source) or "Model"]
    parts = frozenset({"encoder"} | needed | present & _HEADS)
    _check_roberta(family != "bert", model, parts)
    objective = (MlmNsp() if "nsp" in parts else Mlm() if "mlm" in parts
                 else Similarity())
  else:
    # Many hold a pooler that their class has no use for.
    pooler = task.pooler or "encoder/pooler" in present
    parts = frozenset({"encoder", "classifier"}
                      | ({"encoder/pooler"} if pooler else set()))
    objective = _objective(task, options, shapes, source)
  return Architecture(model, objective, parts, first)


def _model(options: Mapping[str, Any], first: int, source: str) -> BertConfig:
  wrong = [f"{key}={options[key]}" for key, value in (
      ("position_embedding_type", "absolute"), ("is_decoder", False),
      ("add_cross_attention", False)) if options.get(key, value) != value]
  if wrong:
    raise UserError(f"{source}: {', '.join(wrong)}, which have no "
                    "counterpart here.")
  if "vocab_size" not in options:
    raise UserError(f"{source} describes no BERT: it has no vocab_size.")
  given = {field.name: options[field.name]
           for field in dataclasses.fields(BertConfig)
           if field.name in options and field.name not in _OURS}
  act = given.get("hidden_act", "gelu")
  if act not in _ACTIVATIONS:
    raise UserError(f"{source}: hidden_act={act}"
                    + nearest(str(act), _ACTIVATIONS))
  given["hidden_act"] = _ACTIVATIONS[act]
  if "max_position_embeddings" in given:
    given["max_position_embeddings"] -= first
  try:
    return config.override(BertConfig(), [f"{k}={v}" for k, v in given.items()])
  except UserError as error:
    raise UserError(f"{source}: {error}") from None


def _check_roberta(roberta: bool, model: BertConfig,
                   parts: frozenset[str]) -> None:
  if roberta and "mlm" in parts and model.hidden_act != "gelu":
    raise UserError("RoBERTa's masked-LM head always has hidden_act=gelu; this "
                    f"network's {model.hidden_act} cannot be expressed.")


def _ending(options: Mapping[str, Any], source: str) -> str:
  """What the class's name says after the family's; "" if it is not given."""
  classes = options.get("architectures") or [""]
  for family in ("", *FAMILIES.values()):
    ending = classes[0].removeprefix(family)
    if ending in ("", *_ENDINGS):
      return ending
  raise UserError(f"{source}: architectures={classes[0]}" + nearest(
      classes[0], [f"Bert{ending}" for ending in _ENDINGS]))


def _task(options: Mapping[str, Any], present: set[str],
          source: str) -> _Task | None:
  """What the head is for; None where the network reads text alone."""
  ending = _ending(options, source)
  if ending in _READERS or not ending and "classifier" not in present:
    return None
  if not ending:
    ending = ("ForSequenceClassification" if "encoder/pooler" in present
              else "ForTokenClassification")
  tasks = [task for task in TASKS.values() if task.ending == ending]
  if len(tasks) == 1:
    return tasks[0]
  problem = options.get("problem_type") or (
      "regression" if len(_labels(options, source)) == 1
      else "single_label_classification")
  if problem not in {task.problem for task in TASKS.values()}:
    raise UserError(f"{source}: problem_type={problem}" + nearest(
        str(problem), [task.problem for task in TASKS.values()
                       if task.problem]))
  return next(task for task in tasks if task.problem == problem)


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
               shapes: Mapping[str, tuple[int, ...]],
               source: str) -> Objective:
  member = task.objective
  outputs = shapes["classifier.bias"][0] if "classifier.bias" in shapes else (
      None)  # A missing tensor, reported later.
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


def write(model: BertConfig, objective: Objective, parts: set[str],
          roberta: bool) -> tuple[dict[str, Any], str]:
  """`config.json`, and the prefix of the encoder's tensors.

  Raises:
    UserError: names every option that Hugging Face's BERT does not have.
  """
  bert, model = (dataclasses.replace(
      o, attention=o.attention.with_weights()) for o in (BertConfig(), model))
  known = {name: getattr(bert, name) for name in _OURS - _FREE}
  wrong = [f"model.{change}" for change in config.changes(
      dataclasses.replace(model, **known), model)]
  if wrong:
    raise UserError(f"{', '.join(wrong)}: Hugging Face's BERT has nothing like "
                    "it, so its weights cannot be exported.")
  family = "roberta" if roberta else "bert"
  ending, labels = _written_head(objective, parts)
  _check_roberta(roberta, model, frozenset(parts))
  if roberta and "nsp" in parts:
    raise UserError("RoBERTa has no head for the next sentence; export it "
                    "with --family bert.")
  options = {
      "architectures": [FAMILIES[family] + ending], "model_type": family,
      **{field.name: getattr(model, field.name)
         for field in dataclasses.fields(BertConfig)
         if field.name not in _OURS},
      "position_embedding_type": "absolute",
      "tie_word_embeddings": True, **labels}
  return options, "" if ending == "Model" else f"{family}."


def _written_head(objective: Objective,
                  parts: set[str]) -> tuple[str, dict[str, Any]]:
  """The ending of the class, and the options of its labels."""
  if "classifier" in parts and objective.label_kind in TASKS:
    task, labels = TASKS[objective.label_kind], {}
    if task.problem:
      labels["problem_type"] = task.problem
    names_ = (("LABEL_0",) if task.objective is Regression else
              () if task.outputs else objective.labels)
    if names_:
      labels["id2label"] = {str(i): name for i, name in enumerate(names_)}
      labels["label2id"] = {name: i for i, name in enumerate(names_)}
    return task.ending, labels
  if "classifier" in parts:
    raise UserError(f"objective={objective.choice_name}: Hugging Face has no "
                    "class for its head.")
  match "mlm" in parts, "nsp" in parts:
    case True, True:
      return "ForPreTraining", {}
    case True, False:
      return "ForMaskedLM", {}
    case False, True:
      return "ForNextSentencePrediction", {}
  return "Model", {}
