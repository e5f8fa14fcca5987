"""What is trained: the encoders of an objective and its heads."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import flax.linen as nn
import jax

from bert_jax.model.bert import BertConfig
from bert_jax.model.encoder import Encoder
from bert_jax.model.feed_forward import AUXILIARY
from bert_jax.model.placement import (
    Arrays as Arrays, Dimensions as Dimensions, Placement, placed)
from bert_jax.objectives.base import Batch, Objective
from bert_jax.objectives.initialization import initialize

Outputs = Mapping[str, Any]


class Network(NamedTuple):
  """A pair of pure functions.

  What changes a network (an adapter, its place on a mesh) is a function from
  network to network, as a gradient transformation of optax is.

  Attributes:
    init: `(key, batch)` to parameters, dictionaries of dictionaries of arrays.
    apply: `(params, batch, keys_B=None)` to the objective's outputs; `keys_B`
      is one key a row, and without it nothing is dropped.
  """

  init: Callable[[jax.Array, Batch], Any]
  apply: Callable[..., Outputs]


def network(model: BertConfig, objective: Objective) -> Network:
  """The network that `objective` trains."""
  module = _Module(model, objective)

  def init(key: jax.Array, batch: Batch) -> Any:
    return initialize(module, key, batch)

  def apply(params: Any, batch: Batch, keys_B: jax.Array | None = None
            ) -> Outputs:
    outputs, sown = module.apply({"params": params}, batch, keys_B,
                                 mutable=[AUXILIARY, *objective.collections])
    return {**outputs, **_auxiliary(sown)}

  return Network(init, apply)


def with_placement(network: Network, placement: Placement) -> Network:
  """The network, computed where `placement` says."""

  def apply(params: Any, batch: Batch, keys_B: jax.Array | None = None
            ) -> Outputs:
    with placed(placement):
      return network.apply(params, batch, keys_B)

  return network._replace(apply=apply)


class _Module(nn.Module):
  """An encoder for each of the objective's networks, under its name."""

  model: BertConfig
  objective: Objective

  @nn.compact
  def __call__(self, batch: Batch, keys_B: jax.Array | None = None) -> Outputs:
    encoders = {name: Encoder(options, name=name) for name, options
                in self.objective.networks(self.model).items()}
    return self.objective.outputs(encoders, batch, keys_B)


def _auxiliary(sown: Mapping[str, Any]) -> dict[str, dict[str, jax.Array]]:
  """What blocks gave to `self.sow(AUXILIARY, name, loss_B)`, by name.

  A loss of each row; those of the same name are summed over the layers.
  """
  losses: dict[str, jax.Array] = {}
  for keys, loss in jax.tree_util.tree_leaves_with_path(
      sown.get(AUXILIARY, {})):
    name = [key.key for key in keys if hasattr(key, "key")][-1]
    loss_B = loss.reshape(-1, loss.shape[-1]).sum(0)  # Scanned layers lead.
    losses[name] = losses[name] + loss_B if name in losses else loss_B
  return {AUXILIARY: losses} if losses else {}
