"""What a run does with the parameters that it starts from."""

import dataclasses
import re

from bert_jax.config import UserError
from bert_jax.training.param_paths import Rules


@dataclasses.dataclass(frozen=True)
class Finetuning:
  """Which parameters stay, which learn slowly, which are drawn anew.

  Patterns are regular expressions searched in paths that name the layer, as
  encoder/layers/3/attention/query/kernel; the first layer is 0.

  Attributes:
    frozen: what this is found in stays as it is, as in
      "embeddings|layers/[0-3]/"; "": nothing. Below the lowest layer that is
      trained no backward pass is computed where `model.scan_unroll` is the
      number of layers.
    lr_multipliers: multipliers of the learning rate, pattern=multiplier, as in
      "bias$=2,classifier=10"; the first that is found holds, and elsewhere 1.
    layer_decay: the rate of a layer as part of that of the layer above it,
      discriminative fine-tuning (Howard and Ruder 2018): heads and pooler
      have 1, layer n of N has layer_decay^(N-n), the embeddings
      layer_decay^(N+1). ELECTRA's code means this, but has one power more
      everywhere below the heads.
    reinitialize_layers: so many layers, from the top, are not taken from
      `init_from` but drawn anew (Zhang et al. 2021).
    reinitialize_pooler: the pooler, too.
  """

  frozen: str = ""
  lr_multipliers: tuple[str, ...] = ()
  layer_decay: float = 1.0
  reinitialize_layers: int = 0
  reinitialize_pooler: bool = False

  def __post_init__(self):
    if not 0 < self.layer_decay <= 1:
      raise UserError(
          f"finetuning.layer_decay={self.layer_decay}: expected more "
          "than 0, and 1 at most, which is no decay.")
    if self.reinitialize_layers < 0:
      raise UserError("finetuning.reinitialize_layers="
                      f"{self.reinitialize_layers}: at least 0.")
    _check_pattern("frozen", self.frozen)
    self._multipliers()

  def tables(self, layers: int) -> tuple[Rules[float], ...]:
    """The rates of parameters, of a network of so many layers."""
    found = []
    if self.frozen:
      found.append(((self.frozen, 0.0), (_without(self.frozen), 1.0)))
    if self.lr_multipliers:
      given = self._multipliers()
      rest = _without("|".join(pattern for pattern, _ in given))
      found.append((*given, (rest, 1.0)))
    if self.layer_decay != 1:
      found.append(layer_rates(layers, self.layer_decay))
    return tuple(found)

  def reinitialized(self, layers: int) -> str:
    """A pattern over what is not taken from other parameters.

    Raises:
      UserError: there are not so many layers.
    """
    if self.reinitialize_layers > layers:
      raise UserError(
          f"finetuning.reinitialize_layers={self.reinitialize_layers}: the "
          f"network has {layers} layers.")
    top = range(layers - self.reinitialize_layers, layers)
    parts = [f"^encoder/layers/{n}/" for n in top]
    parts += ["^encoder/pooler/"] * self.reinitialize_pooler
    return "|".join(parts) or "(?!)"  # found nowhere

  def _multipliers(self) -> Rules[float]:
    """`lr_multipliers` as a table."""
    found = []
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
      _check_pattern("lr_multipliers", pattern)
      found.append((pattern, multiplier))
    return tuple(found)


def layer_rates(layers: int, decay: float) -> Rules[float]:
  """See `Transfer.layer_decay`."""
  return ((r"^encoder/embeddings/", decay ** (layers + 1)),
          *((rf"^encoder/layers/{n}/", decay ** (layers - n))
            for n in range(layers)),
          (r"^(?!encoder/(embeddings|layers)/)", 1.0))


def _without(pattern: str) -> str:
  """Found where `pattern` is not."""
  return rf"^(?!.*(?:{pattern}))"


def _check_pattern(option: str, pattern: str) -> None:
  try:
    re.compile(pattern)
  except re.error as error:
    raise UserError(f"transfer.{option}: {pattern!r} is no regular expression: "
                    f"{error}.") from None
