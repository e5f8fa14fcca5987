"""Small matrices that are trained in the place of the network's."""

import dataclasses
import math
import re
from typing import Any

import jax
import jax.numpy as jnp

from bert_jax.config import Choice, UserError
from bert_jax.objectives.base import Batch
from bert_jax.objectives.network import Network
from bert_jax.training.param_paths import Rules, leaves, look_up, nested

# Found in the paths of what an adapter adds.
ADDED = r"/lora_[ab]$"
# How many of a kernel's dimensions are contracted, behind that of the layers.
_INPUTS: Rules[int] = ((r"attention/output/kernel$", 2),
                       (r"(?<!attention/output)/kernel$", 1))


class Adapter(Choice):
  """How a network is adapted: as a whole, or by few parameters."""

  def adapt(self, network: Network) -> Any:
    """The network as it is trained."""
    return network

  def merge(self, params: Any) -> Any:
    """Parameters of the adapted network as those of the plain one; those
    come back as they are."""
    return params

  def tables(self) -> tuple[Rules[float], ...]:
    """What is trained, as in Transfer.tables."""
    return ()


@dataclasses.dataclass(frozen=True)
class NoAdapter(Adapter, name="none"):
  """The network itself is trained."""


@dataclasses.dataclass(frozen=True)
class Lora(Adapter):
  """Low-rank adaptation (Hu et al. 2021).

  A kernel W of the encoder becomes W + alpha / rank * A B, where A has `rank`
  columns and B as many rows. B starts as zero, so that the network starts as
  it is. A and B, the pooler and the heads are trained, the rest is frozen.
  Rates are those of small networks: 1e-4 to 1e-3.

  Attributes:
    rank: of the product.
    alpha: the product counts alpha / rank.
    targets: a pattern over paths of kernels, as in
      encoder/layers/attention/query/kernel.
  """

  rank: int = 8
  alpha: float = 8.0
  targets: str = "attention/(query|value)/"

  def __post_init__(self):
    if self.rank < 1:
      raise UserError(f"adapter.rank={self.rank}: at least 1.")
    try:
      re.compile(self.targets)
    except re.error as error:
      raise UserError(f"adapter.targets: {self.targets!r} is no regular "
                      f"expression: {error}.") from None

  def adapt(self, network: Network) -> "AdaptedNetwork":
    return AdaptedNetwork(network, self)

  def tables(self) -> tuple[Rules[float], ...]:
    trained = rf"^(?!encoder/)|^encoder/pooler/|{ADDED}"
    return (((rf"^(?!.*(?:{trained}))", 0.0), (trained, 1.0)),)

  def grow(self, params: Any, key: jax.Array) -> Any:
    """Plain parameters with fresh `lora_a` and `lora_b` beside kernels.

    Raises:
      UserError: `targets` is found in no kernel's path.
    """
    found = leaves(params)
    kernels = {path: kernel for path, kernel in found.items()
               if path.startswith("encoder/") and path.endswith("/kernel")}
    chosen = [path for path in kernels if re.search(self.targets, path)]
    if not chosen:
      raise UserError(f"adapter.targets={self.targets}: found in no kernel of "
                      "the encoder:\n  " + "\n  ".join(kernels))
    for number, path in enumerate(chosen):
      stack, inputs, outputs = _matrix(path, kernels[path])
      stem, dtype = path.removesuffix("kernel"), kernels[path].dtype
      # As the authors' code: uniform, of deviation (3 inputs)^-1/2.
      found[f"{stem}lora_a"] = inputs**-0.5 * jax.random.uniform(
          jax.random.fold_in(key, number), (*stack, inputs, self.rank), dtype,
          -1.0)
      found[f"{stem}lora_b"] = jnp.zeros((*stack, self.rank, outputs), dtype)
    return nested(found)

  def merge(self, params: Any) -> Any:
    found = leaves(params)
    merged = {path: x for path, x in found.items()
              if not re.search(ADDED, path)}
    for path in merged:
      stem = path.removesuffix("kernel")
      if path.endswith("/kernel") and f"{stem}lora_a" in found:
        product = jnp.matmul(
            found[f"{stem}lora_a"], found[f"{stem}lora_b"],
            precision=jax.lax.Precision.HIGHEST)
        merged[path] = merged[path] + self.alpha / self.rank * (
            product.reshape(merged[path].shape))
    return nested(merged)


def _matrix(path: str, kernel: jax.Array) -> tuple[tuple[int, ...], int, int]:
  """A kernel's layers, if any, and its numbers of rows and columns."""
  stacked = int("/layers/" in path)
  split = stacked + look_up(_INPUTS, path)
  shape = kernel.shape
  return (shape[:stacked], math.prod(shape[stacked:split]),
          math.prod(shape[split:]))


@dataclasses.dataclass(frozen=True, eq=False)
class AdaptedNetwork:
  """A network whose parameters are merged each time that it is applied."""

  network: Network
  adapter: Lora

  @property
  def options(self) -> Any:
    return self.network.options

  @property
  def objective(self) -> Any:
    return self.network.objective

  def init(self, key: jax.Array, batch: Batch) -> Any:
    params = self.network.init(key, batch)["params"]
    # Another stream than that of the network's own parameters.
    return {"params": self.adapter.grow(params, jax.random.fold_in(key, 1))}

  def apply(self, variables: Any, batch: Batch,
            keys_B: jax.Array | None = None) -> Any:
    return self.network.apply(
        {"params": self.adapter.merge(variables["params"])}, batch, keys_B)
