"""The project's own work, of whatever checkout PYTHONPATH names."""

import functools
import pathlib

import bert_jax  # Before jax: it has the process keep its memory.
import jax
import numpy as np

from serving import serve
from shape import (
    BATCH, HEADS, INNER, LAYERS, LENGTH, VOCABULARY, WIDTH, rows)


def training(options):
  """A step, from corruption to the update."""
  from bert_jax.training.step import train_step

  recipe, batch = _recipe(options), _batch()
  state = jax.jit(recipe.init)(np.int32(0), batch)
  step = jax.jit(functools.partial(train_step, recipe), donate_argnums=0)

  def run():
    nonlocal state
    state, _ = jax.block_until_ready(step(state, batch))

  return run, f"jax {jax.__version__}"


def inference(options):
  """The loss of rows without dropout, their masks included."""
  from bert_jax.training.step import evaluation_step

  recipe, batch = _recipe(options), _batch()
  params = jax.jit(recipe.init)(np.int32(0), batch).params
  step = jax.jit(functools.partial(evaluation_step, recipe))
  return (lambda: jax.block_until_ready(step(params, batch)),
          f"jax {jax.__version__}")


def embed(options):
  """Vectors of texts, from characters on."""
  texts = pathlib.Path(options["texts"]).read_text("utf-8").splitlines()
  bert = bert_jax.load(options["model"])
  return lambda: bert.embed(texts), f"jax {jax.__version__}"


def _recipe(options):
  from bert_jax import config, experiment
  from bert_jax.data.tokenizers.vocabulary import Vocabulary
  from bert_jax.model.bert import BertConfig

  page = experiment.Experiment(
      model=BertConfig(
          vocab_size=VOCABULARY, hidden_size=WIDTH, num_hidden_layers=LAYERS,
          num_attention_heads=HEADS, intermediate_size=INNER),
      batch_size=BATCH, steps=10_000)
  return experiment.recipe(
      config.override(page, options["overrides"]), Vocabulary(
          size=VOCABULARY, pad_id=0, unk_id=1, cls_id=2, sep_id=3, mask_id=4,
          word_start_V=np.ones(VOCABULARY, bool),
          byte_count_V=np.ones(VOCABULARY, np.int32),
          ordinary_ids=np.arange(5, VOCABULARY, dtype=np.int32)))


def _batch():
  batch = rows()
  return {
      "input_ids": batch["input_ids"],
      "token_type_ids": batch["token_type_ids"],
      "position_ids": np.tile(np.arange(LENGTH, dtype=np.int32), (BATCH, 1)),
      "example_ids": np.ones((BATCH, LENGTH), np.int32),
      "cls_positions": np.zeros((BATCH, 1), np.int32),
      "example_mask": np.ones((BATCH, 1), np.float32),
      "next_sentence_labels": batch["next_sentence"][:, None],
      "row": np.arange(BATCH, dtype=np.int32)}


if __name__ == "__main__":
  serve({"training": training, "inference": inference, "embed": embed})
