"""What a run starts from: parameters drawn anew, or those of another run."""

import re
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

from bert_jax.checkpoints.manager import Checkpoint
from bert_jax.config import UserError
from bert_jax.experiment import Run
from bert_jax.parallel import mesh
from bert_jax.parallel.layouts import Runner
from bert_jax.training.adapters import ADDED
from bert_jax.training.param_paths import expand, leaves, path_of
from bert_jax.training.step import TrainState


def first_state(run: Run, runner: Runner, source: Checkpoint | None,
                say: Callable[[str], None] = lambda text: None) -> TrainState:
  """The state before the first step, over a mesh.

  Args:
    source: `init_from`.
    say: is told which parameters are not from there.
  """
  state = jax.jit(run.recipe.init, out_shardings=runner.shardings)(
      run.seed(), run.row())
  experiment = run.experiment
  if source is None or experiment.from_scratch:
    return state
  params, new = start_from(
      source, mesh.collect(state.params, runner.mesh),
      experiment.finetuning.reinitialized(experiment.model.num_hidden_layers))
  say(f"Starts from step {source.step} of {experiment.init_from}; "
      f"drawn anew: {_told(new)}.")
  return state.replace(params=mesh.place(
      params, runner.shardings.params))


def start_from(saved: Checkpoint, params: Any, reinitialized: str = "(?!)"
               ) -> tuple[Any, list[str]]:
  """`params` with every parameter that `saved` holds under the same path.

  A head that has another shape there is left as it is.

  Args:
    saved: a checkpoint; it may lack the pooler, or any head.
    params: freshly drawn, on the host.
    reinitialized: a pattern over expanded paths, of what stays as in `params`.

  Returns:
    The parameters, on the host, and the expanded paths of those that `saved`
    does not hold or that are drawn anew.

  Raises:
    UserError: a parameter of the encoder has another shape.
  """
  found, new = leaves(saved.params), []

  def take(keys: Any, old: Any) -> Any:
    path = path_of(keys)
    parts = expand(path, old)
    if path in found and found[path].shape == old.shape:
      anew = [
          n for n, part in enumerate(parts) if re.search(reinitialized, part)
      ]
      new.extend(parts[n] for n in anew)
      if len(parts) == 1:
        return old if anew else found[path]
      taken = np.array(found[path])
      taken[anew] = old[anew]
      return taken
    if path in found and path.startswith("encoder/"):
      raise UserError(f"{path} has the shape {found[path].shape} in the "
                      f"checkpoint, but {old.shape} in this network.")
    new.extend(parts)
    return old

  return jax.tree_util.tree_map_with_path(take, params), new


def _told(paths: Sequence[str]) -> str:
  """The heads, layers and parts of the encoder that parameters belong to."""
  part = re.compile(r"encoder/layers/\d+|encoder/[^/]+|[^/]+")
  parts = ["the adapter" if re.search(ADDED, path) else part.match(path)[0]
           for path in paths]
  return ", ".join(dict.fromkeys(parts)) or "nothing"
