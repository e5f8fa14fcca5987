"""The face of every objective."""

import collections
import dataclasses
import re
from collections.abc import Mapping
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from bert_jax.config import Choice, UserError
from bert_jax.data.batches import spec
from bert_jax.data.labeled.base import LabeledSet
from bert_jax.data.tokenizers.base import LoadedTokenizer
from bert_jax.data.tokenizers.vocabulary import Vocabulary
from bert_jax.metrics.weighted import Mean, Means
from bert_jax.model.bert import BertConfig
from bert_jax.model.encoder import Encoder
from bert_jax.model.feed_forward import AUXILIARY
from bert_jax.model.heads import ClassificationHead
from bert_jax.model.inputs import Inputs

Batch = Mapping[str, jax.Array]


class Objective(Choice):
  """The training objective: what the network learns to predict.

  One class holds everything that sets an objective apart.

  The loss is the sum of the parts, each part its total over its weight. The
  weights are known before the network runs, so that the denominators are
  those of the full global batch however it is split.
  """

  # The kind of labels in the data; None: it learns from the text itself.
  label_kind: ClassVar[type[LabeledSet] | None] = None
  # The names of classes or tags; a member that has some makes this a field.
  labels: ClassVar[tuple[str, ...]] = ()
  # What it takes the labels of pairs of texts for, as a format of text says it;
  # "": it reads none.
  pair_labels: ClassVar[str] = ""
  # How `embed` makes one vector of a text, and whether it gets the length 1,
  # where it is not asked for another.
  pooling: ClassVar[str] = "mean"
  normalize: ClassVar[bool] = False
  # The heads that are on the other networks than the encoder.
  other_heads: ClassVar[tuple[str, ...]] = ()
  # What `corrupt` adds to the keys of a batch.
  keys: ClassVar[spec.Keys] = {}
  # The keys of a row that it reads itself, beside places and labels.
  reads: ClassVar[tuple[str, ...]] = ()
  # The work directory of a run whose network is among this one's, frozen; a
  # member that has some makes this a field.
  teacher: ClassVar[str] = ""
  # Patterns over paths: of parameters that are never trained, and of those
  # that have no use after the training, as in another program.
  frozen: ClassVar[str] = ""
  training_only: ClassVar[str] = "(?!)"  # matches nothing
  # Of what modules sow, what `outputs` reads.
  collections: ClassVar[tuple[str, ...]] = ()

  def __post_init__(self):
    twice = [name for name, count in collections.Counter(self.labels).items()
             if count > 1]
    if twice:
      raise UserError(f"objective.labels has {', '.join(twice)} more than "
                      "once; each label is one output of the head.")

  def head_rows(self) -> tuple[str, ...]:
    """What each output of the `classifier` stands for, so that a head keeps
    its meaning in a run that has the same labels in another order; (): the
    kind of label alone says it."""
    return self.labels

  def complete(self, examples: LabeledSet) -> "Objective":
    """With what the training examples decide, as the names of the labels.

    Raises:
      UserError: there is nothing to learn from them.
    """
    if not examples.has_targets:
      raise UserError(f"objective={self.choice_name} learns from labels: name "
                      "their column by data.columns.label.")
    if examples.distinct_labels() < 2:
      raise UserError(
          f"Nothing can be learned from {len(examples)} training examples that "
          "all have the same label (of: "
          f"{', '.join(examples.label_names) or 'numbers'}).")
    if "labels" not in {field.name for field in dataclasses.fields(self)}:
      return self
    return dataclasses.replace(self, labels=examples.label_names)

  def tokenized(self, tokenizer: LoadedTokenizer) -> "Objective":
    """With what the tokenizer decides, as the tokens of phrases."""
    return self

  def check_row(self, model: BertConfig, keys: spec.Keys,
                sizes: Mapping[str, int], source: str) -> None:
    """
    Args:
      keys, sizes: of rows.
      source: what they are of, for messages.

    Raises:
      UserError: the rows lack what the objective or a network reads.
    """
    networks = {f"model.inputs={n.inputs.choice_name}": n.inputs
                for n in self.networks(model).values()}
    for name, reader in ({f"objective={self.choice_name}": self}
                         | networks).items():
      if missing := [key for key in reader.reads if key not in keys]:
        raise UserError(
            f"{name} reads {' and '.join(missing)}, and rows of {source} have "
            f"{', '.join(keys)}." + _readable(name, model.inputs, keys))
    for name, inputs in networks.items():
      for letter, size in inputs.sizes().items():
        if sizes.get(letter, size) != size:
          raise UserError(
              f"{name} has model.inputs.width={size}, and the vectors of "
              f"{source} have {sizes[letter]} numbers; set model.inputs.width="
              f"{sizes[letter]}.")

  def empty_row(self, length: int, examples: int, vocabulary: Vocabulary,
                model: BertConfig) -> dict[str, np.ndarray]:
    """A row of its data that holds none of at most `examples` examples.

    Args:
      model: the experiment's, whose inputs say what stands at the places.

    Raises:
      UserError: the objective reads something else.
    """
    keys, sizes = spec.PRETRAINING_KEYS, {"L": length, "E": examples,
                                          "S": examples}
    if self.label_kind:
      kind = self.label_kind
      keys, sizes = kind.keys, sizes | {
          "S": examples * kind.segments(self.labels), "C": len(self.labels)}
    inputs, sizes = model.inputs, {**sizes, **model.inputs.sizes()}
    keys = spec.of_inputs(keys, inputs.reads)
    self.check_row(model, keys, sizes,
                   f"model.inputs={inputs.choice_name}")
    return spec.empty_row(keys, sizes, vocabulary)

  def networks(self, model: BertConfig) -> dict[str, BertConfig]:
    """The encoders, by the name that heads their parameter paths; `model` is
    the experiment's."""
    return {"encoder": model}

  def trained_networks(self, model: BertConfig) -> dict[str, BertConfig]:
    """Those of `networks` that are not frozen."""
    return {name: options for name, options in self.networks(model).items()
            if not self.is_frozen(f"{name}/")}

  def origin(self, path: str) -> str:
    """The path in a checkpoint of what the parameter `path` starts from; ""
    for a new one."""
    return path

  def is_frozen(self, path: str) -> bool:
    """Whether the parameter `path` is never trained."""
    return bool(self.frozen and re.search(self.frozen, path))

  def teacher_origin(self, path: str) -> str:
    """The path in a checkpoint of `teacher`; "" of what is not from there."""
    return ""

  def order(self, batch: Batch) -> jax.Array | None:
    """(B, L) int32: a token sees those whose order is not later than its own.

    None is all zeros, which is bidirectional; `position_ids` is causal.
    """
    return None

  def corrupt(self, batch: Batch, keys_B: jax.Array, vocabulary: Vocabulary,
              step: jax.Array | None) -> Batch:
    """The batch as the network sees it.

    Args:
      keys_B: one key a row.
      step: completed updates; None in evaluation, which stays the same.
    """
    return batch

  def asked(self, batch: Batch) -> Batch:
    """A batch of texts with what `logits` needs beside them, where nothing is
    hidden and all that can be predicted is."""
    return batch

  def outputs(self, networks: Mapping[str, Encoder], batch: Batch,
              keys_B: jax.Array | None) -> dict[str, jax.Array]:
    """Applies the networks and their heads.

    Runs inside a compact module, so Linen modules may be made here. Without
    `keys_B` the network is deterministic. Where one network writes what another
    reads, that is among the outputs as `input_ids`, for replays.
    """
    encoder, = networks.values()
    return self.logits(encoder, encoder(batch, keys_B), batch, keys_B)

  def logits(self, encoder: Encoder, sequence_output_BLD: jax.Array,
             batch: Batch, keys_B: jax.Array | None) -> dict[str, jax.Array]:
    """The outputs of heads on a single encoder, as `outputs` gives them."""
    raise NotImplementedError

  def weights(self, batch: Batch) -> dict[str, jax.Array]:
    """The weight of each part of the loss, by name."""
    raise NotImplementedError

  def losses(self, outputs: Mapping[str, jax.Array],
             batch: Batch) -> dict[str, jax.Array]:
    """The total of each part of the loss, in nats (or squared units)."""
    raise NotImplementedError

  def metrics(self, outputs: Mapping[str, jax.Array], batch: Batch,
              vocabulary: Vocabulary) -> Means:
    """Further means to report."""
    return {}

  def remark(self, scores: Mapping[str, float]) -> str:
    """What a run says of its first scores in training, if they are odd."""
    return ""

  def predictions(self, outputs: Mapping[str, jax.Array]) -> jax.Array:
    """Where there are labels: probabilities (B, E, C) of classes or (B, L, C)
    of tags, or numbers (B, E)."""
    raise NotImplementedError


def _readable(name: str, inputs: Inputs, keys: spec.Keys) -> str:
  """A sentence on the inputs that can read such rows, if those cannot."""
  able = [member for member, cls in inputs.members().items()
          if set(cls.reads) <= keys.keys()]
  if not name.startswith("model.inputs=") or not able:
    return ""
  return f" What can read them: model.inputs={' or '.join(able)}."


def with_order(objective: Objective, batch: Batch) -> Batch:
  """The batch as its networks get it: with the objective's order, if any."""
  order_BL = objective.order(batch)
  return batch if order_BL is None else {**batch, "order": order_BL}


def part_weights(objective: Objective, batch: Batch) -> dict[str, jax.Array]:
  """The weight of each part of the loss, and that of the auxiliary ones."""
  tokens = jnp.sum(batch["example_ids"] > 0, dtype=jnp.float32)
  return {**objective.weights(batch), AUXILIARY: tokens}


def part_totals(objective: Objective, outputs: Mapping[str, jax.Array],
                batch: Batch) -> dict[str, jax.Array]:
  """The total of each part of the loss, auxiliary ones included."""
  return objective.losses(outputs, batch) | {
      name: loss_B.sum() for name, loss_B in outputs.get(AUXILIARY, {}).items()}


def with_weights(totals: Mapping[str, jax.Array],
                 weights: Mapping[str, jax.Array]) -> Means:
  """The parts of the loss as means, of `part_totals` and `part_weights`."""
  return {name: Mean(total, weights.get(name, weights[AUXILIARY]))
          for name, total in totals.items()}


def weighted_sum(values: jax.Array, weights: jax.Array) -> jax.Array:
  """The sum of `values * weights`, 0 where the weight is 0 (even for nan)."""
  return jnp.sum(jnp.where(weights > 0, values, 0.0) * weights)


def pooled_logits(encoder: Encoder, sequence_output_BLD: jax.Array,
                  batch: Batch, keys_B: jax.Array | None,
                  outputs: int) -> jax.Array:
  """(B, E, outputs): the `classifier` on the pooled output; runs inside a
  compact module."""
  pooled_BED = encoder.pool(sequence_output_BLD, batch)
  head = ClassificationHead(encoder.options, outputs,
                            encoder.options.hidden_dropout_prob,
                            name="classifier")
  return head(pooled_BED, keys_B)
