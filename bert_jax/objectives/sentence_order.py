"""Masked language modeling with the order of two segments."""

import dataclasses
from typing import ClassVar

from bert_jax.objectives.mlm import MlmNsp


@dataclasses.dataclass(frozen=True)
class MlmSop(MlmNsp):
  """Masked language modeling and sentence-order prediction (ALBERT: Lan et al.
  2020, 3.1): whether the second of two segments stands before the first in the
  text. It takes data.format=ordered_pairs.
  """

  pair_part: ClassVar[str] = "sop"
  pair_labels: ClassVar = "order"
