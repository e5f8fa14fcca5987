"""A step of few layers for one of many: what is repeated counts more often."""

import dataclasses

from bert_jax.analysis.topology import parts
from bert_jax.analysis.topology.timeline import Item
from bert_jax.config import override
from bert_jax.experiment import Experiment
from bert_jax.parallel.cost import Plan

# One at each end; more compile for longer, a minute for two.
_COMPILED = 2


@dataclasses.dataclass(frozen=True)
class Repeated:
  """
  Attributes:
    layers: how many each of those that were compiled stands for.
    parameters: of the step, for each that was compiled.
  """

  layers: float
  parameters: float


def shortened(experiment: Experiment) -> tuple[Experiment, float]:
  """With few layers, unrolled as a run on a TPU has them, and how many each
  stands for.

  As it is where layers are not alike: some are frozen or have other rates, or
  networks differ in them.
  """
  model = experiment.model
  trips = model.stack.trips(model)
  counts = {network.num_hidden_layers
            for network in experiment.objective.networks(model).values()}
  if (model.scan_unroll is not None or trips <= _COMPILED
      or counts != {model.num_hidden_layers}
      or experiment.finetuning != Experiment.finetuning):
    return experiment, 1.0
  layers = model.num_hidden_layers * _COMPILED // trips
  return override(experiment, [
      f"model.num_hidden_layers={layers}",
      f"model.scan_unroll={_COMPILED}"]), trips / _COMPILED


def memory(used: dict[str, int], full: Plan, short: Plan,
           repeated: Repeated) -> dict[str, int]:
  """Bytes of a chip by what holds them, from those of the short step.

  What the plans say differs between the two is added.
  """
  more = lambda *names: sum(getattr(full, name) - getattr(short, name)
                            for name in names)
  return used | {
      "parameters": full.parameters, "optimizer": full.optimizer,
      "gradients and activations": used["gradients and activations"] + more(
          "gradients", "activations"),
      "program": round(used["program"] * repeated.layers)}


def repeat(items: list[Item], repeated: Repeated) -> list[Item]:
  """The operations of all layers.

  A copy that the compiler made belongs to what comes next, and the optimizer's
  time goes with the parameters.
  """
  result, inside = [], False
  for item in reversed(items):
    if item.path or item.part != parts.COPIES:
      inside = "/layers/" in item.path
    factor = repeated.layers if inside else 1.0
    if item.part == "optimizer":
      factor = repeated.parameters
    result.append(dataclasses.replace(item, trips=item.trips * factor))
  return result[::-1]
