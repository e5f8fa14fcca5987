"""The first and the last token of an answer (Devlin et al. 2019, 4.2)."""

import dataclasses
from collections.abc import Mapping
from typing import ClassVar

import jax
import jax.numpy as jnp
import optax

from bert_jax.data.labeled.spans import SpanSet
from bert_jax.data.tokenizers.vocabulary import Vocabulary
from bert_jax.metrics.weighted import Mean, Means
from bert_jax.model.encoder import Encoder
from bert_jax.model.heads import ClassificationHead
from bert_jax.model.ops import hits
from bert_jax.objectives.base import Batch, Objective, weighted_sum

_OUTSIDE = -1e30  # finite, so that an empty slot gives no nan


@dataclasses.dataclass(frozen=True)
class Span(Objective):
  """Extractive question answering: start and end of an answer, or [CLS].

  Two softmaxes over the tokens of the window; the loss is their mean. Windows
  in one row do not see each other.
  """

  label_kind: ClassVar = SpanSet

  def logits(self, encoder: Encoder, sequence_output_BLD: jax.Array,
             batch: Batch, keys_B: jax.Array | None) -> dict[str, jax.Array]:
    # No dropout here, as in run_squad.py.
    head = ClassificationHead(encoder.options, 2, 0.0, name="classifier")
    return {"classifier": head(encoder.features(sequence_output_BLD),
                               keys_B)}

  def weights(self, batch: Batch) -> dict[str, jax.Array]:
    return {"span": batch["example_mask"].sum()}

  def losses(self, outputs: Mapping[str, jax.Array],
             batch: Batch) -> dict[str, jax.Array]:
    loss_BE = sum(
        optax.softmax_cross_entropy_with_integer_labels(of_BEL, position_BE)
        for of_BEL, position_BE in _by_window(outputs, batch)) / 2
    return {"span": weighted_sum(loss_BE, batch["example_mask"])}

  def metrics(self, outputs: Mapping[str, jax.Array], batch: Batch,
              vocabulary: Vocabulary) -> Means:
    start_BE, end_BE = (hits(of_BEL, position_BE)
                        for of_BEL, position_BE in _by_window(outputs, batch))
    mask_BE = batch["example_mask"]
    return {"window_accuracy": Mean(weighted_sum(start_BE * end_BE, mask_BE),
                                    mask_BE.sum())}

  def predictions(self, outputs: Mapping[str, jax.Array]) -> jax.Array:
    """Logits (B, L, 2) of beginning and end."""
    return outputs["classifier"]


def _by_window(outputs: Mapping[str, jax.Array], batch: Batch
               ) -> list[tuple[jax.Array, jax.Array]]:
  """Of beginning and end: logits (B, E, L) in each window, and labels."""
  slots_E = jnp.arange(batch["cls_positions"].shape[1]) + 1
  here_BEL = batch["example_ids"][:, None] == slots_E[None, :, None]
  # An empty slot has zero weight, whatever its label.
  labels = [jnp.maximum(batch[f"{end}_positions"], 0)
            for end in ("start", "end")]
  return [(jnp.where(here_BEL, outputs["classifier"][:, None, :, i], _OUTSIDE),
           label_BE) for i, label_BE in enumerate(labels)]
