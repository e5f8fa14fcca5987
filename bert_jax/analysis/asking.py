"""A trained network to ask from Python: vectors, labels, masked words, and all
that it computes on the way."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax
import numpy as np

from bert_jax.analysis import embed as embedding
from bert_jax.checkpoints.reading import Checkpoint
from bert_jax.config import UserError
from bert_jax.data.labeled.base import LabeledSet
from bert_jax.data.labeled.tagging import TaggingSet
from bert_jax.data.labeled.texts import ClassificationSet, TextSet
from bert_jax.experiment import Experiment
from bert_jax.model.attention import ATTENTION, WEIGHTS
from bert_jax.model.bert import BertConfig
from bert_jax.model.encoder import Encoder
from bert_jax.model.stack import layers_first
from bert_jax.objectives.base import Batch, Objective, with_order
from bert_jax.runs.evaluation import load
from bert_jax.training import numerics

MASK = "[MASK]"
Arrays = Mapping[str, np.ndarray | jax.Array]  # a batch


@dataclasses.dataclass(frozen=True, eq=False)
class Outputs:
  """What a network computes of B texts in rows of L tokens.

  Attributes:
    tokens: the pieces of each text, with its special tokens.
    hidden_states_NBLD: of the embeddings, then of each layer.
    logits: of the objective's heads, by name; masked-LM ones of every token.
    attention_NBHLM: weights of each layer and head, from a token (L) to those
      that it sees (M); None: they were not asked for.
  """

  tokens: list[list[str]]
  hidden_states_NBLD: np.ndarray
  logits: Mapping[str, np.ndarray]
  attention_NBHLM: np.ndarray | None = None

  def __repr__(self) -> str:
    shapes = {"hidden_states_NBLD": self.hidden_states_NBLD, **self.logits}
    if self.attention_NBHLM is not None:
      shapes["attention_NBHLM"] = self.attention_NBHLM
    return f"Outputs of {len(self.tokens)} texts: " + ", ".join(
        f"{name} {array.shape}" for name, array in shapes.items())


class Bert:
  """A network with its tokenizer.

  Args:
    checkpoint: what was trained or imported.
    source: its name, for people.
  """

  def __init__(self, checkpoint: Checkpoint, source: str):
    self._checkpoint, self._source = checkpoint, source
    self._networks: dict[bool, Callable[[Any, Arrays], Any]] = {}
    self._embedders: dict[Any, Callable[..., Any]] = {}

  @property
  def experiment(self) -> Experiment:
    """That it was trained in."""
    return self._checkpoint.manifest.experiment

  @property
  def params(self) -> Any:
    """Dictionaries of arrays, on the host."""
    return self._checkpoint.params

  @property
  def tokenizer(self):
    """Its LoadedTokenizer: encode, decode, pieces, vocabulary."""
    return self._checkpoint.manifest.tokenizer

  def __repr__(self) -> str:
    model, objective = self.experiment.model, self.experiment.objective
    count = sum(x.size for x in jax.tree.leaves(self.params))
    lines = [f"Bert of {self._source}, step {self._checkpoint.step:,}",
             f"  {model.num_hidden_layers} layers of {model.hidden_size}, "
             f"{count:,} parameters, {self.tokenizer.vocabulary.size:,} tokens",
             f"  objective={objective.choice_name}"]
    if objective.labels:
      lines[-1] += f": {', '.join(objective.labels)}"
    return "\n".join(lines)

  def embed(self, texts: Sequence[str], pairs: Sequence[str] = (),
            **options: Any) -> Any:
    """Vectors of texts, (X, D); with pooling="tokens" a list of (L, D).

    Args:
      texts: X of them.
      pairs: second texts, as many, or none.
      options: layer, pooling, length, normalize, as of `analysis.embed.embed`.

    Raises:
      UserError: as there.
    """
    vectors = embedding.embed(self._checkpoint, texts, pairs,
                              programs=self._embedders, **options)
    return vectors if options.get("pooling") == "tokens" else np.stack(vectors)

  def predict(self, texts: Sequence[str],
              pairs: Sequence[str] = ()) -> list[dict[str, Any]]:
    """Of each text what `bert-jax predict` writes beside a file's rows, as
    {"predicted_label": "good", "probability_bad": .02, ...}.

    Args:
      texts: for tags, words with spaces between them.
      pairs: second texts, as many, or none.

    Raises:
      UserError: the network has no head for labels of texts.
    """
    labeled = self._unlabeled(texts, pairs)
    data = self.experiment.data
    rows = labeled.rows(self.tokenizer, data.length, data.examples_per_row,
                        seed=0, shuffle=False)
    evaluator, params = load(self._checkpoint, self.experiment, rows)
    outputs = evaluator.predict(params, rows, labeled)
    return [dict(zip(labeled.predicted_columns(), values))
            for values in labeled.predictions(outputs)]

  def _unlabeled(self, texts: Sequence[str],
                 pairs: Sequence[str]) -> LabeledSet:
    embedding.check_texts(texts, pairs)
    objective = self.experiment.objective
    kind = objective.label_kind
    about = {"names": [str(i) for i in range(len(texts))],
             "label_names": objective.labels}
    if kind is not None and issubclass(kind, TextSet):
      return kind(texts_a=list(texts), texts_b=list(pairs) or None, **about)
    if kind is TaggingSet and not pairs:
      return kind(words=[text.split() for text in texts], **about)
    raise UserError(
        f"objective={objective.choice_name} gives no labels to texts; "
        "fine-tune with objective=classification, regression, multi_label or "
        "tagging.")

  def fill_mask(self, text: str, top: int = 5) -> list[list[tuple[str, float]]]:
    """The likeliest tokens at each [MASK] of a text, with probabilities.

    Args:
      text: has at least one [MASK].
      top: how many.

    Raises:
      UserError: there is no [MASK], or the network has no head for it.
    """
    parts = text.split(MASK)
    if len(parts) == 1:
      raise UserError(f"Write {MASK} where a word is to be filled in, as in "
                      f"\"Paris is the {MASK} of France.\"")
    if "mlm" not in self.params:
      raise UserError(f"{self._source} has no masked-LM head; take a network "
                      "as it was pretrained.")
    vocabulary = self.tokenizer.vocabulary
    ids = [vocabulary.cls_id]
    for i, part in enumerate(self.tokenizer.encode(parts)):
      ids += [vocabulary.mask_id] * (i > 0) + list(part)
    batch = self._row([*ids, vocabulary.sep_id])
    logits_LV = self._apply(batch, False).logits["mlm"][0]
    masked = np.flatnonzero(batch["input_ids"][0] == vocabulary.mask_id)
    return [self._likeliest(logits_LV[i], top) for i in masked]

  def _likeliest(self, logits_V: np.ndarray,
                 top: int) -> list[tuple[str, float]]:
    exponentials_V = np.exp(logits_V - logits_V.max())
    probability_V = exponentials_V / exponentials_V.sum()
    return [(self.tokenizer.decode([i]) or self.tokenizer.pieces[i],
             float(probability_V[i]))
            for i in np.argsort(-probability_V, kind="stable")[:top]]

  def _row(self, ids: Sequence[int]) -> dict[str, np.ndarray]:
    """A batch of one text."""
    limit, count = self.experiment.model.max_position_embeddings, len(ids)
    if count > limit:
      raise UserError(f"The text has {count} tokens, and the network "
                      f"{limit} positions.")
    zeros = np.zeros((1, count), np.int32)
    return {"input_ids": np.array([ids], np.int32), "token_type_ids": zeros,
            "position_ids": np.arange(count, dtype=np.int32)[None],
            "example_ids": zeros + 1, "cls_positions": zeros[:, :1],
            "example_mask": np.ones((1, 1), np.float32)}

  def __call__(self, texts: Sequence[str] | Arrays, *,
               attention: bool = False) -> Outputs:
    """All that the network computes of texts, or of a batch, without dropout.

    Args:
      texts: or arrays by the names of data/batches/spec.py.
      attention: whether the weights of attention, too.

    Raises:
      UserError: as `embed`.
    """
    if isinstance(texts, Mapping):
      return self._apply(texts, attention)
    embedding.check_texts(texts, ())
    labeled = ClassificationSet(names=[str(i) for i in range(len(texts))],
                                texts_a=list(texts))
    rows = labeled.rows(self.tokenizer, self.experiment.data.length, 1, seed=0,
                        shuffle=False)
    plan = sorted((rows.row(0, i) for i in range(len(texts))),
                  key=lambda row: row["example_index"][0])
    longest = max(int((row["example_ids"] > 0).sum()) for row in plan)
    return self._apply({
        name: np.stack([row[name] for row in plan])[
            (slice(None), slice(longest)) if key.dimensions == "L" else ...]
        for name, key in rows.keys.items()}, attention)

  def _apply(self, given: Arrays, attention: bool) -> Outputs:
    batch = {key: np.asarray(value) for key, value in given.items()}
    if attention not in self._networks:
      self._networks[attention] = self._network(attention)
    outputs = jax.device_get(self._networks[attention](self.params, batch))
    weights = outputs.pop(ATTENTION, None)
    pieces = self.tokenizer.pieces
    ids = batch.get("input_ids", batch["example_ids"][:, :0])  # Or no tokens.
    real_BL = batch["example_ids"][:, :ids.shape[1]] > 0
    return Outputs([[pieces[i] for i in ids_L[real_L]]
                    for ids_L, real_L in zip(ids, real_BL)],
                   outputs.pop("hidden_states"), outputs, weights)

  def _network(self, attention: bool) -> Callable[[Any, Arrays], Any]:
    objective, model = self.experiment.objective, self.experiment.model
    if attention:
      model = dataclasses.replace(model,
                                  attention=model.attention.with_weights())
    module = _Asked(model, objective)

    def apply(params: Any, batch: Batch) -> Any:
      outputs, kept = module.apply(
          {"params": params}, with_order(objective, batch),
          mutable=[ATTENTION] if attention else [])
      if attention:
        outputs[ATTENTION] = layers_first(kept[ATTENTION], WEIGHTS)
      return outputs

    return numerics.jit(apply)


class _Asked(nn.Module):
  """Hidden states, and outputs of the objective's heads from the last ones."""

  model: BertConfig
  objective: Objective

  @nn.compact
  def __call__(self, batch: Batch) -> dict[str, jax.Array]:
    options = self.objective.networks(self.model)["encoder"]
    encoder = Encoder(options, name="encoder")
    states_NBLD = encoder.hidden_states(batch)
    logits = self.objective.logits(encoder, states_NBLD[-1],
                                   self.objective.asked(batch), None)
    return {"hidden_states": states_NBLD, **logits}
