"""What a run starts with: its devices, its parameters, its batches."""

import dataclasses
import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import numpy as np

from bert_jax.checkpoints.reading import Checkpoint, read_checkpoint
from bert_jax.config import UserError
from bert_jax import distributed
from bert_jax.data.batches import loader
from bert_jax.experiment import Run, layer_counts
from bert_jax.objectives.base import Objective
from bert_jax.objectives.embedding import Similarity
from bert_jax.parallel import mesh, rules
from bert_jax.parallel.layouts import Runner
from bert_jax.runs.heads import match_head
from bert_jax.training import numerics, programs
from bert_jax.training.adapters import ADDED
from bert_jax.training.param_paths import (
    expand, leaves, nested, path_of)
from bert_jax.training.step import TrainState


@programs.once(lambda run: (
    run.recipe, run.experiment.layout, run.experiment.batch_size,
    *((key, value.shape) for key, value in run.row().items())))
def lay_out(run: Run) -> Runner:
  """The run on its devices, alike on all processes."""
  runner = run.experiment.layout.build(
      run.recipe, run.shape(), run.experiment.batch_size, run.row())
  # They may have been chosen by what is free on each host.
  distributed.assert_equal({"mesh": str(dict(runner.mesh.shape)),
                            "microbatches": str(runner.recipe.parts)})
  return runner


def batches(run: Run, runner: Runner, start: int,
            stop: int) -> Iterator[loader.Batch]:
  """This process's rows of the steps after `start`, to `stop`."""
  size = run.experiment.batch_size
  return loader.batches(run.prepared.train, size, start, stop,
                        runner.rows(size))


def first_state(run: Run, shardings: TrainState, source: Checkpoint | None,
                say: Callable[[str], None] = lambda text: None) -> TrainState:
  """The state before the first step.

  Args:
    shardings: of a state.
    source: `init_from`.
    say: gets a sentence on the parameters that are not from there, and one on
      those that no sharding rule matches.

  Raises:
    UserError: the network of `init_from`, or the teacher's, is not like this
      run's.
  """
  recipe = run.recipe
  initialize = numerics.jit(recipe.init, out_shardings=shardings)
  state = initialize(run.seed(), run.row())
  replicated = rules.without_rule(state.params, rules.table_of(recipe))
  if replicated:
    say("No sharding rule matches these parameters, every device has a copy: "
        f"{', '.join(replicated)}.")
  if source is not None and not run.experiment.from_scratch:
    state = _pretrained(run, shardings, state, source, say)
  return _taught(run, shardings, state) if recipe.objective.frozen else state


def _pretrained(run: Run, shardings: TrainState, state: TrainState,
                source: Checkpoint, say: Callable[[str], None]) -> TrainState:
  """A first state with the parameters of `init_from`."""
  experiment, recipe = run.experiment, run.recipe
  objective, finetuning = experiment.objective, experiment.finetuning
  source, rows = match_head(source, objective)
  source = with_layers(source, finetuning.layers_from,
                       experiment.model.num_hidden_layers)
  params, new = start_from(
      source, mesh.collect(state.params, shardings.step.mesh),
      finetuning.reinitialized(layer_counts(experiment)), objective.origin)
  new = [path for path in new if not objective.is_frozen(path)]
  unused = leaves(source.params).keys() - map(objective.origin, leaves(params))
  say(f"Starts from step {source.step} of {experiment.init_from}; "
      f"newly initialized: {_parts(new)}; not used: {_parts(sorted(unused))}."
      f"{rows}"
      f"{another_pooling(source.manifest.experiment.objective, objective)}")
  params = mesh.place(params, shardings.params)
  optimizer_state = numerics.jit(
      lambda params: recipe.optimizer.init(recipe.rates.trained(params)),
      out_shardings=shardings.opt_state)(params)
  return state.replace(params=params, opt_state=optimizer_state)


def _taught(run: Run, shardings: TrainState, state: TrainState) -> TrainState:
  """A first state with the parameters of the objective's teacher."""
  objective = run.experiment.objective
  option = f"objective.teacher={objective.teacher}"
  if not objective.teacher:
    raise UserError("objective.teacher: name the work directory of the run "
                    "whose network is the teacher.")
  teacher = read_checkpoint(objective.teacher)
  if (teacher.manifest.tokenizer.fingerprint
      != run.prepared.tokenizer.fingerprint):
    raise UserError(
        f"{option} reads the pieces of another tokenizer than this run. "
        f"init_from={objective.teacher} gives it the teacher's, with "
        "from_scratch=true for new parameters, and with options like "
        "model.num_hidden_layers=3 for a smaller network.")
  length = run.experiment.data.length
  positions = teacher.manifest.experiment.model.max_position_embeddings
  if length > positions:
    raise UserError(f"{option} has {positions} positions, fewer than "
                    f"data.length={length}.")
  teacher, rows = match_head(teacher, objective)
  params, other = start_from(
      teacher, mesh.collect(state.params, shardings.step.mesh),
      origin=objective.teacher_origin)
  lacking = [path for path in other if objective.is_frozen(path)
             and not re.search(ADDED, path)]
  if lacking:
    raise UserError(f"{option} lacks {_parts(lacking)}, as this run has them: "
                    f"it was trained with objective="
                    f"{teacher.manifest.experiment.objective.choice_name}."
                    f"{rows}")
  return state.replace(params=mesh.place(params, shardings.params))


def with_layers(source: Checkpoint, layers: Sequence[int],
                count: int) -> Checkpoint:
  """A checkpoint with only these layers of its encoder, in this order.

  Args:
    layers: `finetuning.layers_from`; none: all.
    count: of those that start from them.

  Raises:
    UserError: they are not as many, not there, or not all alike.
  """
  if not layers:
    return source
  model = source.manifest.experiment.model
  option = f"finetuning.layers_from={','.join(map(str, layers))}"
  if len(layers) != count or not all(
      0 <= n < model.num_hidden_layers for n in layers):
    raise UserError(f"{option}: expected model.num_hidden_layers={count} "
                    f"layers, each from 0 to {model.num_hidden_layers - 1}.")
  if model.stack.trips(model) != model.num_hidden_layers:
    raise UserError(f"{option}: the layers there are of model.stack="
                    f"{model.stack.choice_name}; allowed: uniform.")
  return dataclasses.replace(source, params=nested({
      path: x[list(layers)] if path.startswith("encoder/layers/") else x
      for path, x in leaves(source.params).items()}))


def another_pooling(there: Objective, objective: Objective) -> str:
  """A sentence where vectors become others than those of `init_from`."""
  if not (isinstance(objective, Similarity) and isinstance(there, Similarity)
          ) or there.pooling == objective.pooling:
    return ""
  return (f" Vectors are pooled by {there.pooling} there, by "
          f"{objective.pooling} here (objective.pooling).")


def start_from(saved: Checkpoint, params: Any, reinitialized: str = "(?!)",
               origin: Callable[[str], str] = lambda path: path
               ) -> tuple[Any, list[str]]:
  """`params` with every parameter that `saved` holds.

  A head that has another shape there is left as it is.

  Args:
    saved: a checkpoint; it may lack the pooler, or any head.
    params: newly initialized, on the host.
    reinitialized: a pattern over expanded paths, of what stays as in `params`.
    origin: from a path to that in `saved`, "" for none.

  Returns:
    The parameters, on the host, and the expanded paths of those that are newly
    initialized.

  Raises:
    UserError: a parameter of an encoder has another shape.
  """
  given, new = leaves(saved.params), []

  def take(keys: Any, old: Any) -> Any:
    path = path_of(keys)
    parts, source = expand(path, old), origin(path)
    if source in given and given[source].shape == old.shape:
      fresh = [n for n, part in enumerate(parts)
               if re.search(reinitialized, part)]
      new.extend(parts[n] for n in fresh)
      if len(parts) == 1:
        return old if fresh else given[source]
      taken = np.array(given[source])
      taken[fresh] = old[fresh]
      return taken
    if source in given and re.search("/(embeddings|layers|pooler)/", path):
      raise UserError(f"{path} has the shape {given[source].shape} in the "
                      f"checkpoint, but {old.shape} in this network.")
    new.extend(parts)
    return old

  return jax.tree_util.tree_map_with_path(take, params), new


def _parts(paths: Sequence[str]) -> str:
  """The heads, layers and parts of networks that parameters belong to."""
  part = re.compile(r"[^/]+/layers/\d+|(?!mlm/)[^/]+/[^/]+(?=/)|[^/]+")
  parts = ["the adapter" if re.search(ADDED, path) else part.match(path)[0]
           for path in paths]
  return ", ".join(dict.fromkeys(parts)) or "nothing"
