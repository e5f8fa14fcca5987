"""Small matrices that are trained in the place of the network's."""

import dataclasses
import math
import re
from collections.abc import Iterable
from typing import Any

import jax
import jax.numpy as jnp

from bert_jax.config import Choice, UserError
from bert_jax.objectives.base import Batch
from bert_jax.objectives.initialization import path_key
from bert_jax.objectives.network import Network, Outputs
from bert_jax.training.param_paths import (
    Rules, check_pattern, kernel_axes, leaves, nested)

# Matches the paths of what an adapter adds.
ADDED = r"/lora_[ab]$"


class Adapter(Choice):
  """What fine-tuning trains: the network itself, or few new parameters."""

  def adapt(self, network: Network) -> Network:
    """The network as it is trained."""
    return network

  def merge(self, params: Any) -> Any:
    """Parameters of the adapted network as those of the plain one; those
    come back as they are."""
    return params

  def tables(self, networks: Iterable[str] = ("encoder",)
             ) -> tuple[Rules[float], ...]:
    """What is trained of the networks of these names, as in
    Finetuning.tables."""
    return ()


@dataclasses.dataclass(frozen=True)
class NoAdapter(Adapter, name="none"):
  """No adapter: the network's own parameters are trained."""


@dataclasses.dataclass(frozen=True)
class Lora(Adapter):
  """LoRA: low-rank updates of frozen kernels (Hu et al. 2021).

  A kernel W of a layer becomes W + alpha / rank * A B, where A has `rank`
  columns and B as many rows. B starts as zero, so that the network starts as
  it is. A and B, poolers and heads are trained, the rest is frozen.
  Rates are those of small networks: 1e-4 to 1e-3.

  Attributes:
    rank: rank of the low-rank update of each kernel.
    alpha: scale of the low-rank update, which is multiplied by alpha / rank.
    targets: a regular expression; kernels whose path it matches are adapted,
      as encoder/layers/attention/query/kernel.
  """

  rank: int = 8
  alpha: float = 8.0
  targets: str = "attention/(query|value)/"

  def __post_init__(self):
    if self.rank < 1:
      raise UserError(f"adapter.rank={self.rank}: at least 1.")
    check_pattern("adapter.targets", self.targets)

  def adapt(self, network: Network) -> Network:

    def init(key: jax.Array, batch: Batch) -> Any:
      return self.grow(network.init(key, batch), key)

    def apply(params: Any, batch: Batch, keys_B: jax.Array | None = None
              ) -> Outputs:
      return network.apply(self.merge(params), batch, keys_B)

    return Network(init, apply)

  def tables(self, networks: Iterable[str] = ("encoder",)
             ) -> tuple[Rules[float], ...]:
    names = "|".join(networks)
    trained = rf"^(?!(?:{names})/)|^(?:{names})/pooler/|{ADDED}"
    return (((rf"^(?!.*(?:{trained}))", 0.0), (trained, 1.0)),)

  def grow(self, params: Any, key: jax.Array) -> Any:
    """Plain parameters with fresh `lora_a` and `lora_b` beside kernels.

    Raises:
      UserError: `targets` matches no kernel's path.
    """
    grown = leaves(params)
    kernels = {path: kernel for path, kernel in grown.items()
               if "/layers/" in path and path.endswith("/kernel")}
    chosen = [path for path in kernels if re.search(self.targets, path)]
    if not chosen:
      raise UserError(f"adapter.targets={self.targets}: matches no kernel of "
                      "the layers:\n  " + "\n  ".join(kernels))
    for path in chosen:
      stack, inputs, outputs = _matrix(path, kernels[path])
      stem, dtype = path.removesuffix("kernel"), kernels[path].dtype
      # As the authors' code: uniform, of deviation (3 inputs)^-1/2.
      grown[f"{stem}lora_a"] = inputs**-0.5 * jax.random.uniform(
          path_key(key, f"{stem}lora_a"), (*stack, inputs, self.rank), dtype,
          -1.0)
      grown[f"{stem}lora_b"] = jnp.zeros((*stack, self.rank, outputs), dtype)
    return nested(grown)

  def merge(self, params: Any) -> Any:
    grown = leaves(params)
    merged = {path: x for path, x in grown.items()
              if not re.search(ADDED, path)}
    for path in merged:
      stem = path.removesuffix("kernel")
      if path.endswith("/kernel") and f"{stem}lora_a" in grown:
        product = jnp.matmul(
            grown[f"{stem}lora_a"], grown[f"{stem}lora_b"],
            precision=jax.lax.Precision.HIGHEST)
        merged[path] = merged[path] + self.alpha / self.rank * (
            product.reshape(merged[path].shape))
    return nested(merged)


def _matrix(path: str, kernel: jax.Array) -> tuple[tuple[int, ...], int, int]:
  """What a kernel has a matrix for each of, as its layers, and the rows and
  columns of these."""
  first, split = kernel_axes(path, kernel.ndim)
  shape = kernel.shape
  return shape[:first], math.prod(shape[first:split]), math.prod(shape[split:])
