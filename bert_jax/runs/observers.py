"""What follows a run and changes nothing of it."""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any

from bert_jax.experiment import Run
from bert_jax.reporting.terminal import Progress


@dataclasses.dataclass(frozen=True)
class Observers:
  """
  Attributes:
    on_step: called with the number of every step, once it was dispatched.
    terminal: makes what shows the progress, of the last step and the first;
      None: a bar with the name of the run.
    further_scores: from a run to what gives more scores of its parameters,
      which are written at every evaluation.
  """

  on_step: Callable[[int], None] = lambda step: None
  terminal: Callable[[int, int], Progress] | None = None
  further_scores: Callable[[Run], Callable[[Any], Mapping[str, float]]] = (
      lambda run: lambda params: {})

  def progress(self, name: str) -> Callable[[int, int], Progress]:
    """What shows the progress of a run of this name."""
    return self.terminal or functools.partial(Progress, name=name)
