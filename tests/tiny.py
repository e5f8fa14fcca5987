"""A network and rows whose training step takes milliseconds."""

import dataclasses

import jax.numpy as jnp
import numpy as np

from bert_jax.data.batches import loader
from bert_jax.data.pretraining.formats import PairsFormat
from bert_jax.data.pretraining.rows import PretrainingRows
from bert_jax.data.tokenizers.vocabulary import Vocabulary
from bert_jax.model.bert import BertConfig
from bert_jax.objectives.base import Objective
from bert_jax.objectives.mlm import MlmNsp
from bert_jax.objectives.network import network
from bert_jax.training.optimizers import Optimizer, Sgd
from bert_jax.training.schedules import ConstantSchedule
from bert_jax.training.step import Recipe
from tests.memory_corpus import MemoryCorpus

SIZE, LENGTH, BATCH = 48, 24, 16
MODEL = BertConfig(vocab_size=SIZE, hidden_size=16, num_hidden_layers=2,
             num_attention_heads=2, intermediate_size=32,
             max_position_embeddings=LENGTH, scan_unroll=1)
VOCABULARY = Vocabulary(
    SIZE, 0, 1, 2, 3, 4, word_start_V=np.arange(SIZE) % 3 != 0,
    byte_count_V=np.ones(SIZE, np.int32),
    ordinary_ids=np.arange(5, SIZE, dtype=np.int32))


@dataclasses.dataclass(frozen=True)
class Ill(MlmNsp):
  """Adds `times` times the loss of a batch for each of its rows whose sum of
  tokens is divisible by `divisor`."""

  divisor: int = 31
  times: float = float("nan")

  def corrupt(self, batch, keys_B, vocabulary, step):
    sum_B = batch["input_ids"].sum(axis=1)
    ill_B = (sum_B > 0) & (sum_B % self.divisor == 0)
    return super().corrupt(batch, keys_B, vocabulary, step) | {"ill": ill_B}

  def losses(self, logits, batch):
    more = jnp.sum(jnp.where(batch["ill"], self.times, 0.0))
    return {name: total + more * total
            for name, total in super().losses(logits, batch).items()}


def text(sentences: int = 400) -> MemoryCorpus:
  """Random tokens in documents of 20 short sentences."""
  rng = np.random.default_rng(0)
  starts = np.cumsum([0, *rng.integers(1, 9, sentences)])
  return MemoryCorpus(rng.integers(5, SIZE, starts[-1]).astype(np.uint16),
                      starts, np.arange(0, sentences + 1, 20), "tiny", SIZE)


def rows(seed: int = 0, examples_per_row: int = 2) -> PretrainingRows:
  return PretrainingRows(text(), VOCABULARY, PairsFormat(), LENGTH,
                         examples_per_row, seed)


def batch(step: int = 0, size: int = BATCH) -> dict[str, np.ndarray]:
  return loader.batch(rows(), size, step)


def recipe(objective: Objective = MlmNsp(), optimizer: Optimizer = Sgd(),
           microbatches: int | None = 1, **options) -> Recipe:
  schedule = ConstantSchedule(learning_rate=0.5, warmup_fraction=0.0).build(10)
  model = dataclasses.replace(MODEL, **options)
  return Recipe(network(model, objective), objective, model, VOCABULARY,
                optimizer.build(), schedule, microbatches)
