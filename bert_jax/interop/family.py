"""A `model_type` of Hugging Face's: its options and tensors, and ours.

One description serves both directions, so that what is imported can be
exported. Nothing in the network knows of it.
"""

import dataclasses
import operator
import re
from collections.abc import Callable, Mapping
from typing import Any, get_args

from bert_jax import config
from bert_jax.config import Choice, UserError, nearest
from bert_jax.interop.parameter_map import Entry
from bert_jax.model.attention import PlainAttention
from bert_jax.model.bert import BertConfig
from bert_jax.model.dense import Activation

Options = Mapping[str, Any]  # of a config.json

# Other words for the activations of `model.hidden_act`.
_ACTIVATIONS = {name: name for name in get_args(Activation)} | {
    "gelu_python": "gelu", "gelu_pytorch_tanh": "gelu_new",
    "gelu_fast": "gelu_new", "gelu_accurate": "gelu_new", "swish": "silu"}
# They change no function.
_FREE = ("dtype", "scan_unroll", "remat")


@dataclasses.dataclass(frozen=True)
class Option:
  """An option of ours and its key in config.json.

  Attributes:
    ours: as in "feed_forward.activation".
    theirs: the key.
    read: from their value to ours.
    write: from our value to theirs.
    effective: where our value is read; "": at `ours`.
  """

  ours: str
  theirs: str
  read: Callable[[Any], Any] = lambda value: value
  write: Callable[[Any], Any] = lambda value: value
  effective: str = ""


def same(*names: str) -> tuple[Option, ...]:
  """Options that are called alike."""
  return tuple(Option(name, name) for name in names)


def activation(ours: str, theirs: str) -> Option:
  def read(name: Any) -> Activation:
    if name not in _ACTIVATIONS:
      raise UserError(f"{theirs}={name}" + nearest(str(name), _ACTIVATIONS))
    return _ACTIVATIONS[name]
  return Option(ours, theirs, read)


@dataclasses.dataclass(frozen=True)
class Family:
  """An architecture.

  Attributes:
    model_type: of config.json.
    title: its name in sentences.
    prefix: begins the names of its classes.
    inside: begins the names of the encoder's tensors in a class with a head.
    base: our options where config.json says nothing.
    options: what config.json may say.
    fixed: further keys, and the one value that each may have.
    needs: an option of ours that all have, as in "projects_embeddings".
    encoder: tensors of the encoder.
    spare: tensors that an encoder may hold beside them.
    classes: by the ending of a class's name, the tensors of its head.
    tied: names of copies, and of what they are copies of.
    first_position: rows of the position table in front of the first token's;
      None: the id of padding, and one more.
    mlm_activation: of its masked-LM head; None: `hidden_act`.
    today: from an older config.json to one of today.
  """

  model_type: str
  title: str
  prefix: str
  inside: str
  base: BertConfig
  options: tuple[Option, ...]
  encoder: tuple[Entry, ...]
  classes: Mapping[str, tuple[Entry, ...]]
  fixed: Options = dataclasses.field(default_factory=dict)
  needs: str = ""
  spare: tuple[Entry, ...] = ()
  tied: Mapping[str, str] = dataclasses.field(default_factory=dict)
  first_position: int | None = 0
  mlm_activation: Activation | None = None
  today: Callable[[Options], Options] = lambda options: options

  def first(self, options: Options, source: str) -> int:
    """Rows of the position table in front of the first token's."""
    if self.first_position is not None:
      return self.first_position
    pad = options["pad_token_id"] if "pad_token_id" in options else 1
    if not isinstance(pad, int):
      raise UserError(f"{source}: pad_token_id={pad}; {self.title} counts "
                      "positions from it.")
    return pad + 1

  def read_options(self, options: Options, source: str) -> BertConfig:
    """
    Raises:
      UserError: no such architecture, or one that is not expressed here.
    """
    try:
      options = self.today(options)
      wrong = [f"{key}={options[key]}" for key, value in self.fixed.items()
               if options.get(key, value) != value]
      if wrong:
        raise UserError(f"{', '.join(wrong)}, which have no counterpart here.")
      if "vocab_size" not in options:
        raise UserError(f"it describes no {self.title}: it has no vocab_size.")
      given = {option.ours: option.read(options[option.theirs])
               for option in self.options if option.theirs in options}
      if "max_position_embeddings" in given:
        given["max_position_embeddings"] -= self.first(options, source)
      model = config.override(self.base, [
          word for key, value in given.items()
          for word in _assignments(self.base, key, value)])
      if self.needs and not operator.attrgetter(self.needs)(model):
        raise UserError(f"{self.title} without {self.needs} has no "
                        "counterpart here.")
      return model
    except UserError as error:
      text = str(error).removeprefix(f"{source}: ")
      raise UserError(f"{source}: {text}") from None

  def expressed(self, model: BertConfig) -> BertConfig:
    """What is left of `model` in its config.json."""
    return self.read_options(self.write_options(model, 0), self.title)

  def lacking(self, model: BertConfig) -> list[str]:
    """The options of ours that it has no counterpart for."""
    if self.needs and not operator.attrgetter(self.needs)(model):
      return [self.needs]
    return [f"model.{change}" for change in config.changes(
        _canonical(self.expressed(model)), _canonical(model))]

  def write_options(self, model: BertConfig, pad_id: int) -> dict[str, Any]:
    """The keys of config.json; `pad_id` is the tokenizer's."""
    options: dict[str, Any] = {}
    for option in self.options:
      try:
        value = operator.attrgetter(option.effective or option.ours)(model)
      except AttributeError:  # Of another member: `lacking` says so.
        continue
      options[option.theirs] = option.write(value)
    options |= {"pad_token_id": pad_id, **self.fixed}
    options["max_position_embeddings"] += self.first(options, self.title)
    return options

  def common_name(self, name: str) -> str:
    """The name in `encoder` or `classes` of a tensor, whose name may be that
    of an old release, or of an encoder within a class."""
    name = name.removeprefix(f"{self.inside}.")
    name = re.sub(r"LayerNorm\.gamma$", "LayerNorm.weight", name)
    return re.sub(r"LayerNorm\.beta$", "LayerNorm.bias", name)

  def heads(self, ending: str) -> set[str]:
    """The heads of a class, as the paths of their parameters begin."""
    return {entry.part for entry in self.classes[ending]} - {"encoder/pooler"}


def _assignments(base: BertConfig, key: str, value: Any) -> list[str]:
  """Of an option; another member has the options of the one in `base`."""
  old = operator.attrgetter(key)(base)
  inner = {} if not isinstance(old, Choice) else {
      f"{key}.{field.name}": getattr(old, field.name)
      for field in dataclasses.fields(old)}
  return [f"{k}={str(v).lower() if isinstance(v, bool) else v}"
          for k, v in {key: value, **inner}.items()]


def _canonical(model: BertConfig) -> BertConfig:
  """Options of which two are equal only if the networks differ."""
  plain, default = PlainAttention(), BertConfig()
  alike = model.attention.with_weights() == plain  # to rounding
  typed = getattr(model.inputs, "types", True)
  return dataclasses.replace(
      model, attention=plain if alike else model.attention,
      head_bias=None if model.heads_have_bias == model.use_bias
      else model.head_bias, embedding_size=model.embedding_width,
      type_vocab_size=model.type_vocab_size if typed else 1,
      **{name: getattr(default, name) for name in _FREE})
