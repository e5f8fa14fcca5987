"""What a run does with the parameters that it starts from."""

import dataclasses
from collections.abc import Mapping

from bert_jax.config import UserError
from bert_jax.training.param_paths import Rules, check_pattern


@dataclasses.dataclass(frozen=True)
class Finetuning:
  """Which parameters are frozen, learn slowly, or are newly initialized.

  Patterns are regular expressions searched in paths that name the layer, as
  encoder/layers/3/attention/query/kernel; the first layer is 0.

  Attributes:
    frozen: a regular expression; parameters whose path it matches are not
      trained, as in "embeddings|layers/[0-3]/" or "^teacher/"; "": all are
      trained. Below the lowest layer that is trained no backward pass is
      computed where all layers are unrolled (`model.scan_unroll`).
    lr_multipliers: multipliers of the learning rate of parameters whose path a
      regular expression matches, as in "bias$=2,classifier=10"; the first
      that matches holds, and elsewhere 1.
    layer_decay: layer-wise decay of the learning rate: that of a layer as a
      fraction of that of the layer above it (Howard and Ruder 2018). Heads and
      pooler have 1, layer n of N has layer_decay^(N-n), the embeddings
      layer_decay^(N+1). ELECTRA's code means this, but has one power more
      everywhere below the heads.
    reinitialize_layers: number of layers, from the top of each network, that
      are newly initialized instead of taken from `init_from` (Zhang et al.
      2021).
    layers_from: the layer of `init_from` that each layer starts from, for a
      network of fewer layers, as in 0,2,4 with model.num_hidden_layers=3 (Sanh
      et al. 2019); "": the same, as there are as many.
    reinitialize_pooler: whether the pooler is newly initialized instead of
      taken from `init_from`.
  """

  frozen: str = ""
  lr_multipliers: tuple[str, ...] = ()
  layer_decay: float = 1.0
  reinitialize_layers: int = 0
  layers_from: tuple[int, ...] = ()
  reinitialize_pooler: bool = False

  def __post_init__(self):
    if not 0 < self.layer_decay <= 1:
      raise UserError(
          f"finetuning.layer_decay={self.layer_decay}: expected more "
          "than 0, and 1 at most, which is no decay.")
    if self.reinitialize_layers < 0:
      raise UserError("finetuning.reinitialize_layers="
                      f"{self.reinitialize_layers}: at least 0.")
    check_pattern("finetuning.frozen", self.frozen)
    self._multipliers()

  def tables(self, layers: Mapping[str, int],
             always_frozen: str = "") -> tuple[Rules[float], ...]:
    """The rates of parameters.

    Args:
      layers: the numbers of layers of the networks, by name.
      always_frozen: as `frozen`, beside it.
    """
    tables = [((frozen, 0.0), (_without(frozen), 1.0))
              for frozen in (self.frozen, always_frozen) if frozen]
    if self.lr_multipliers:
      multipliers = self._multipliers()
      rest = _without("|".join(pattern for pattern, _ in multipliers))
      tables.append((*multipliers, (rest, 1.0)))
    if self.layer_decay != 1:
      tables.append(layer_rates(layers, self.layer_decay))
    return tuple(tables)

  def reinitialized(self, layers: Mapping[str, int]) -> str:
    """A pattern over what is not taken from other parameters.

    Raises:
      UserError: a network has fewer layers.
    """
    patterns = []
    for name, count in layers.items():
      if self.reinitialize_layers > count:
        raise UserError(
            f"finetuning.reinitialize_layers={self.reinitialize_layers}: the "
            f"network {name} has {count} layers.")
      patterns += [f"^{name}/layers/{n}/" for n in range(
          count - self.reinitialize_layers, count)]
      patterns += [f"^{name}/pooler/"] * self.reinitialize_pooler
    return "|".join(patterns) or "(?!)"  # matches nothing

  def _multipliers(self) -> Rules[float]:
    """`lr_multipliers` as a table."""
    multipliers = []
    for given in self.lr_multipliers:
      pattern, equals, number = given.rpartition("=")
      try:
        multiplier = float(number)
      except ValueError:
        multiplier = -1.0
      if not equals or not 0 <= multiplier < float("inf"):
        raise UserError(
            f"finetuning.lr_multipliers={given}: expected a pattern and a "
            "multiplier of the learning rate, as in classifier=10.")
      check_pattern("finetuning.lr_multipliers", pattern)
      multipliers.append((pattern, multiplier))
    return tuple(multipliers)


def layer_rates(layers: Mapping[str, int], decay: float) -> Rules[float]:
  """See `Finetuning.layer_decay`."""
  rates: list[tuple[str, float]] = []
  for name, count in layers.items():
    rates.append((rf"^{name}/embeddings/", decay ** (count + 1)))
    rates += [(rf"^{name}/layers/{n}/", decay ** (count - n))
              for n in range(count)]
  rest = rf"^(?!(?:{'|'.join(layers)})/(?:embeddings|layers)/)"
  return *rates, (rest, 1.0)


def _without(pattern: str) -> str:
  """Matches where `pattern` does not."""
  return rf"^(?!.*(?:{pattern}))"
