"""The one training step, whatever it runs on.

A step is a pure function of (state, batch): the keys of all that is random
come from (seed, step, row of the global batch), so that neither the number of
devices nor that of microbatches changes what is drawn.
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import optax

from bert_jax.config import UserError
from bert_jax.data.batches import spec
from bert_jax.data.tokenizers.vocabulary import Vocabulary
from bert_jax.objectives.base import (
    Batch, BertConfig, Mean, Means, Objective, part_totals, part_weights,
    with_order, with_weights)
from bert_jax.objectives.network import Network, Outputs
from bert_jax.training import numerics
from bert_jax.training.param_rates import Rates

# Streams of random numbers below the key of a row.
CORRUPTION, DROPOUT = 0, 1


@flax.struct.dataclass
class TrainState:
  """All that changes, and the seed, so that one program serves all seeds."""

  step: jax.Array  # completed updates
  seed: jax.Array
  params: Any
  opt_state: Any  # of the parameters that are trained


@dataclasses.dataclass(frozen=True, eq=False)
class Recipe:
  """All that does not change during a run."""

  network: Network
  objective: Objective
  model: BertConfig  # What the objective's networks are made of.
  vocabulary: Vocabulary
  optimizer: optax.GradientTransformation
  schedule: optax.Schedule
  microbatches: int | None = 1  # None: as many as a layout chooses.
  rates: Rates = Rates()

  @property
  def parts(self) -> int:
    """The number of microbatches, as long as none is chosen one."""
    return self.microbatches or 1

  @functools.cached_property
  def init(self) -> Callable[[jax.Array, Batch], TrainState]:
    """From a seed to the state before the first step.

    Its second argument gives shapes, its B may be 1. Made once: jax keeps what
    it has traced for one function, and each bound method is another.
    """
    return functools.partial(_first_state, self)

  def inputs(self, batch: Batch, keys_B: jax.Array,
             step: jax.Array | None) -> Batch:
    """The batch as the network gets it: corrupted, and with an order."""
    return with_order(self.objective, self.objective.corrupt(
        batch, keys_B, self.vocabulary, step))

  @property
  def networks(self) -> dict[str, BertConfig]:
    return self.objective.networks(self.model)


def _first_state(recipe: Recipe, seed: jax.Array, batch: Batch) -> TrainState:
  key = numerics.key(seed)
  keys_B = row_keys(key, batch["row"])
  inputs = recipe.inputs(batch, keys_B, jnp.int32(0))
  params = recipe.network.init(key, inputs)
  return TrainState(jnp.zeros((), jnp.int32), seed, params,
                    recipe.optimizer.init(recipe.rates.trained(params)))


def row_keys(key: jax.Array, row_B: jax.Array) -> jax.Array:
  """One key a row, `[B]`."""
  return jax.vmap(jax.random.fold_in, (None, 0))(key, row_B)


def train_step(recipe: Recipe, state: TrainState, batch: Batch,
               axis: str | None = None) -> tuple[TrainState, Means]:
  """One update; `axis` names the mapped axis whose devices share the batch.

  Denominators are those of the full global batch, taken before
  differentiation; gradients are summed over microbatches and devices.

  Where the loss or the gradients are not finite, parameters and optimizer stay
  as they are, and all means are zero but `skipped`.
  """
  objective = recipe.objective
  sum_all = lambda x: jax.lax.psum(x, axis) if axis else x
  with jax.named_scope("corruption"):
    batch, dropout_B = _drawn(recipe, state, batch)
  weights = sum_all(part_weights(objective, batch))

  def loss(trained: Any, part: tuple[Batch, jax.Array]):
    rows, keys = part
    params = recipe.rates.join(state.params, trained)
    outputs = recipe.network.apply(params, rows, keys)
    totals = part_totals(objective, outputs, rows)
    mean = sum(total / jnp.maximum(weight, 1e-6)
               for total, weight in with_weights(totals, weights).values())
    return mean, _means(recipe, totals, outputs, rows)

  differentiate = jax.grad(loss, has_aux=True)
  old = recipe.rates.trained(state.params)
  gradients, means = sum_all(_accumulate(
      functools.partial(differentiate, old), (batch, dropout_B),
      recipe.parts))
  updates, opt_state = recipe.optimizer.update(gradients, state.opt_state, old)
  updates = recipe.rates.scale(state.params, updates)
  rate = jnp.asarray(recipe.schedule(state.step), jnp.float32)
  new = optax.apply_updates(
      old, jax.tree.map(lambda update: -rate * update, updates))

  one, norm = jnp.ones(()), optax.tree.norm(gradients)
  means |= {"gradient_norm": Mean(norm, one), "learning_rate": Mean(rate, one)}
  finite = jnp.isfinite(sum(
      (mean.total for name, mean in means.items() if name.endswith("_loss")),
      norm))
  where_finite = lambda new, old: jax.tree.map(
      functools.partial(jnp.where, finite), new, old)
  means = where_finite(means, jax.tree.map(jnp.zeros_like, means))
  means["skipped"] = Mean(1.0 - finite.astype(jnp.float32), one)
  params = recipe.rates.join(state.params, where_finite(new, old))
  return TrainState(state.step + 1, state.seed, params,
                    where_finite(opt_state, state.opt_state)), means


def _drawn(recipe: Recipe, state: TrainState,
           batch: Batch) -> tuple[Batch, jax.Array]:
  """The corrupted batch of the next step, and its keys for dropout, `[B]`."""
  keys_B = row_keys(jax.random.fold_in(numerics.key(state.seed), state.step),
                    batch["row"])
  stream = jax.vmap(jax.random.fold_in, (0, None))
  return (recipe.inputs(batch, stream(keys_B, CORRUPTION), state.step),
          stream(keys_B, DROPOUT))


def _means(recipe: Recipe, totals: Mapping[str, jax.Array], outputs: Outputs,
           rows: Batch) -> Means:
  """The parts of the loss and the metrics of some rows."""
  parts = with_weights(totals, part_weights(recipe.objective, rows))
  return ({f"{name}_loss": mean for name, mean in parts.items()}
          | recipe.objective.metrics(outputs, rows, recipe.vocabulary))


def _accumulate(function: Callable[[Any], Any], rows: Any, parts: int) -> Any:
  """The sum of `function` over `parts` equal parts of the rows."""
  if parts == 1:
    return function(rows)
  rows = _split(rows, parts)
  first = jax.tree.map(lambda x: x[0], rows)
  zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype),
                       numerics.eval_shape(function, first))
  add = lambda total, part: (jax.tree.map(jnp.add, total, function(part)),
                             None)
  return jax.lax.scan(add, zeros, rows)[0]


def _split(rows: Any, parts: int) -> Any:
  """Arrays that lead with rows as arrays that lead with parts of them."""
  # Strided, so that rows that lie together on a device stay there.
  return jax.tree.map(lambda x: jnp.swapaxes(
      x.reshape(x.shape[0] // parts, parts, *x.shape[1:]), 0, 1), rows)


def evaluation_step(recipe: Recipe, params: Any, batch: Batch
                    ) -> tuple[Means, Outputs]:
  """Means and outputs of a batch; the masks depend on the row alone."""
  batch = recipe.inputs(batch, row_keys(numerics.key(0), batch["row"]), None)
  outputs = recipe.network.apply(params, batch)
  totals = part_totals(recipe.objective, outputs, batch)
  return _means(recipe, totals, outputs, batch), outputs


def check_divisible(batch_size: int, microbatches: int, devices: int) -> None:
  """
  Raises:
    UserError: a microbatch cannot be spread evenly over the devices.
  """
  if batch_size % (microbatches * devices):
    share = microbatches * devices
    raise UserError(
        f"batch_size={batch_size} cannot be split into {microbatches} "
        f"microbatches over {devices} devices; the nearest that can are "
        f"{batch_size // share * share} and "
        f"{(batch_size // share + 1) * share}.")


def row_losses(recipe: Recipe, state: TrainState, batch: Batch
               ) -> tuple[Batch, Means, dict[str, Batch]]:
  """What the next step makes of each row, with the same masks and dropout.

  Returns:
    The batch as the network sees it, also what one network writes for another
    (`input_ids` among its outputs); the Mean(total_B, weight_B) of every part
    of the loss, whose sums are the step's; and by part, each loss by itself:
    the total's derivatives in the batch's keys that weigh losses, which is the
    same for a weighted sum.
  """
  objective = recipe.objective
  batch, dropout_B = _drawn(recipe, state, batch)

  def losses(row: tuple[Batch, jax.Array]
             ) -> tuple[Batch, Means, dict[str, Batch]]:
    rows, keys = jax.tree.map(lambda x: x[None], row)
    outputs = recipe.network.apply(state.params, rows, keys)
    totals = lambda weights: part_totals(objective, outputs,
                                         {**rows, **weights})
    given = spec.weights(spec.KEYS | objective.keys, rows)
    written = {k: outputs[k][0] for k in ("input_ids",) if k in outputs}
    return (written, with_weights(totals(given), part_weights(objective, rows)),
            jax.tree.map(lambda x: x[0], jax.jacrev(totals)(given)))

  # In turn, as in the step: a batch at once may be more than memory holds.
  parts = jax.lax.map(jax.vmap(losses), _split((batch, dropout_B),
                                               recipe.parts))
  join = lambda x: jnp.swapaxes(x, 0, 1).reshape(-1, *x.shape[2:])
  written, losses_by_part, each = jax.tree.map(join, parts)
  return {**batch, **written}, losses_by_part, each
