"""Vectors of texts: hidden states of any layer, and pooled output."""

from collections.abc import Callable, Sequence
from typing import Any, Literal, get_args

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from bert_jax import config
from bert_jax.checkpoints import environment
from bert_jax.checkpoints.reading import Checkpoint
from bert_jax.config import UserError, nearest
from bert_jax.data.batches import loader
from bert_jax.data.labeled.texts import ClassificationSet
from bert_jax.model.bert import BertConfig
from bert_jax.model.encoder import Encoder
from bert_jax.model.pooler import mean_pool
from bert_jax.objectives.base import Batch, with_order
from bert_jax.training import numerics

Pooling = Literal["mean", "cls", "pooled", "tokens"]
BATCH_TOKENS, SHORTEST_ROW = 2048, 32


class Embedder(nn.Module):
  """The hidden states of `layer`, and from them what `pooling` says.

  "tokens" gives (B, L, D), the others (B, E, D): the mean over an example's
  tokens, the vector at [CLS], or that through the pooler (`pooled_output`).
  """

  options: BertConfig
  layer: int
  pooling: Pooling

  @nn.compact
  def __call__(self, batch: Batch) -> jax.Array:
    encoder = Encoder(self.options, name="encoder")
    hidden_BLD = encoder.hidden_states(batch)[self.layer].astype(jnp.float32)
    match self.pooling:
      case "tokens":
        return hidden_BLD
      case "pooled":
        return encoder.pool(hidden_BLD, batch)
      case "cls":
        return jnp.take_along_axis(
            hidden_BLD, batch["cls_positions"][..., None], axis=1)
      case "mean":
        return mean_pool(hidden_BLD, batch["example_ids"],
                         batch["cls_positions"].shape[1])


def embed(saved: Checkpoint, texts: Sequence[str], pairs: Sequence[str] = (), *,
          layer: int = -1, pooling: Pooling | None = None,
          length: int | None = None,
          normalize: bool | None = None,
          programs: dict[Any, Callable[..., Any]] | None = None
          ) -> list[np.ndarray]:
  """The vector (D,) of each text, or with "tokens" those of its tokens.

  Args:
    saved: a checkpoint.
    texts: what to embed; longer ones are truncated to `length` tokens.
    pairs: second texts, as many, or none.
    layer: 0 for the embeddings' output, to num_hidden_layers, or -1 for the
      last.
    pooling: see Embedder; None: as the objective compares vectors, or "mean".
    length: of a row; None: as in training, or as an imported network says.
    normalize: every vector gets the length 1; None: as the objective says.
    programs: what earlier calls for this checkpoint compiled; gets this one's.

  Raises:
    UserError: no such layer or pooling, no pooler was trained, the network has
      fewer positions, or what should be texts is something else.
  """
  check_texts(texts, pairs)
  environment.warn(saved.manifest.progress.environment)
  experiment, tokenizer = saved.manifest.experiment, saved.manifest.tokenizer
  if length is not None:
    experiment = config.override(experiment, [f"data.length={length}"])
  pooling = pooling or experiment.objective.pooling
  if normalize is None:
    normalize = experiment.objective.normalize
  model = experiment.objective.networks(experiment.model)["encoder"]
  layers = model.num_hidden_layers
  if not -layers - 1 <= layer <= layers:
    raise UserError(f"layer {layer}: this network has the layers 0 (the "
                    f"embeddings) to {layers}, or -1 for the last.")
  if pooling not in get_args(Pooling):
    raise UserError(f"pooling {pooling}" + nearest(pooling,
                                                   get_args(Pooling)))
  if pooling == "pooled" and "pooler" not in saved.params["encoder"]:
    raise UserError("This network was trained without a pooler (its objective "
                    "has no use for one); take the pooling mean or cls.")
  labeled = ClassificationSet(names=[str(i) for i in range(len(texts))],
                     texts_a=list(texts), texts_b=list(pairs) or None)
  rows = labeled.rows(tokenizer, experiment.data.length, 16, seed=0,
                      shuffle=False)
  # A token costs more in a longer row, also where it sees its own text alone.
  rows.length = row_length(int(rows.encoded.lengths_X.max()), rows.length)
  module = Embedder(model, layer, pooling)
  programs = {} if programs is None else programs
  apply = programs.setdefault((layer, pooling), numerics.jit(
      lambda params, batch: module.apply(
          {"params": params}, with_order(experiment.objective, batch))))
  encoder = {"encoder": saved.params["encoder"]}
  results: list[Any] = [None] * len(texts)
  for batch in loader.evaluation_batches(
      rows, max(1, BATCH_TOKENS // rows.length)):
    _place(results, batch, np.asarray(apply(encoder, batch)), pooling)
  return [_normalized(vectors) for vectors in results] if normalize else results


def row_length(longest: int, limit: int) -> int:
  """Of rows for texts of at most `longest` tokens: a power of two, as each
  length is a program to compile, and at most `limit`."""
  length = SHORTEST_ROW
  while length < longest:
    length *= 2
  return min(length, limit)


def check_texts(texts: Sequence[str], pairs: Sequence[str]) -> None:
  """
  Raises:
    UserError: they are no lists of texts, or not as many.
  """
  for name, values in (("texts", texts), ("pairs", pairs)):
    if isinstance(values, str):
      raise UserError(f"{name}: expected a list of texts, as in "
                      f"[{values[:20]!r}], not a single one.")
    for i, value in enumerate(values):
      if not isinstance(value, str):
        raise UserError(f"{name}[{i}] is no text, but {value!r}.")
  if len(pairs) not in (0, len(texts)):
    raise UserError(f"{len(texts)} texts and {len(pairs)} second ones: "
                    "expected as many, or none.")


def _normalized(vectors_D: np.ndarray) -> np.ndarray:
  """At length 1, along the last dimension; zeros stay."""
  lengths = np.linalg.norm(vectors_D, axis=-1, keepdims=True)
  return vectors_D / np.maximum(lengths, 1e-12)


def _place(results: list[Any], batch: Any, vectors: np.ndarray,
           pooling: Pooling) -> None:
  """Puts the vectors of a batch where their texts are."""
  for b, e in zip(*np.nonzero(batch["example_index"] >= 0)):
    results[batch["example_index"][b, e]] = (
        vectors[b, batch["example_ids"][b] == e + 1] if pooling == "tokens"
        else vectors[b, e])
