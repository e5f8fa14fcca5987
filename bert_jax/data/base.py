"""What an experiment learns from: the family, and what its members prepare."""

import dataclasses

from bert_jax.config import Choice, Count, UserError
from bert_jax.data.batches.rows import Rows
from bert_jax.data.labeled.base import LabeledSet
from bert_jax.data.pretraining.corpus import Splits
from bert_jax.data.tokenizers.base import LoadedTokenizer


@dataclasses.dataclass(frozen=True, eq=False)
class Datasets:
  """Data that is ready to be read."""

  train: Rows
  evaluation: Rows
  tokenizer: LoadedTokenizer
  evaluation_set: LabeledSet | None = None  # the examples of `evaluation`
  train_set: LabeledSet | None = None  # those of `train`
  corpus: Splits | None = None

  @property
  def fingerprint(self) -> str:
    return self.train.fingerprint


@dataclasses.dataclass(frozen=True)
class Data(Choice):
  """The data to train and evaluate on.

  Attributes:
    length: tokens of a row (the sequence length).
    examples_per_row: most examples that are packed into one row; they do not
      attend to each other.
  """

  length: Count = 512
  examples_per_row: Count = 1

  def prepare(self, seed: int, tokenizer: LoadedTokenizer | None,
              kind: type[LabeledSet] | None,
              labels: tuple[str, ...]) -> Datasets:
    """Reads, tokenizes and caches what is needed.

    Args:
      seed: of the order of rows and of all drawn with them.
      tokenizer: the one of the network to start from; None: make one.
      kind: of labels that the objective takes; None: it takes none.
      labels: their names in the order of their ids; (): those in the data.
    """
    raise NotImplementedError

  def check_pairs(self, labels: str) -> None:
    """
    Args:
      labels: what an objective takes the labels of pairs for; "": none.

    Raises:
      UserError: the pairs are labeled with something else.
    """

  def check_train(self, prepared: Datasets) -> None:
    """
    Raises:
      UserError: there is nothing to train on.
    """

  def vocabulary_size(self) -> int:
    """As many ids as its tokenizer will have; 0: it is no text."""
    return 0

  def unlabeled(self, source: str, kind: type[LabeledSet] | None,
                labels: tuple[str, ...]) -> LabeledSet:
    """The examples of a file to predict, whose labels are not looked at.

    Raises:
      UserError: it is not said how the examples lie in a file.
    """
    raise UserError(f"The run was trained on data={self.choice_name}, which "
                    "has no columns; add data=table and "
                    "data.columns.text=...")
