"""Losses and gradient norms of twenty steps against recorded ones.

They guard initialization, data order, masks and dropout: checkpoints can be
resumed, batches replayed and studies compared only while these stay the same.
Each has a digest of its own next to the curves, computed so that the others
cannot change it, and a failure says which of them moved.
"""

import dataclasses
import functools
import hashlib
import json
import math
import pathlib
import sys

import jax
import numpy as np
import pytest

from bert_jax.data.batches import loader
from bert_jax.data.labeled.texts import ClassificationSet
from bert_jax.metrics import weighted
from bert_jax.objectives.classification import Classification
from bert_jax.objectives.masking import TokenMasking
from bert_jax.objectives.mlm import MlmNsp
from bert_jax.training.step import row_losses, train_step
from tests import tiny

FILE = pathlib.Path(__file__).parent / "data" / "golden_curves.json"
WRITE = "python -m tests.test_golden_curves --write"
STEPS, SEED = 20, 3
LABELS = ("a", "b", "c")
# Initial weights large enough for the curves to show small numeric changes.
OPTIONS = dict(initializer_range=0.2)
NO_DROPOUT = dict(hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)


class Numerals:
  """A tokenizer of texts made of token ids."""

  vocabulary = tiny.VOCABULARY
  fingerprint = "numerals"

  def encode(self, texts):
    return [[int(word) for word in text.split()] for text in texts]


def labeled_rows(count: int = 200):
  """Rows of up to four examples of random tokens."""
  rng = np.random.default_rng(1)
  texts = [" ".join(map(str, rng.integers(5, tiny.SIZE, rng.integers(2, 12))))
           for _ in range(count)]
  examples = ClassificationSet(
      names=[str(i) for i in range(count)], texts_a=texts, label_names=LABELS,
      labels=rng.integers(0, len(LABELS), count).astype(np.int32))
  return examples.rows(Numerals(), tiny.LENGTH, 4, SEED)


def fixed_batch(batch):
  """Constant examples of half a row each, under the keys of `batch`."""
  (B, L), E = batch["input_ids"].shape, batch["example_mask"].shape[1]
  half, place_L, start_E = L // 2, np.arange(L), np.arange(E) * (L // 2)
  ids_BL = 5 + np.arange(B * L).reshape(B, L) * 7 % (tiny.SIZE - 5)
  labels_BE = (np.arange(B)[:, None] + np.arange(E)) % 2
  fixed = {
      "input_ids": np.where(place_L % half, ids_BL, tiny.VOCABULARY.cls_id),
      "token_type_ids": place_L % half > half // 2,
      "position_ids": place_L % half, "example_ids": 1 + place_L // half,
      "cls_positions": start_E % L, "example_mask": start_E < L,
      "labels": labels_BE, "next_sentence_labels": labels_BE,
      "row": np.arange(B)}
  return {key: np.broadcast_to(fixed.get(key, 0), value.shape
                               ).astype(value.dtype)
          for key, value in batch.items()}


def waves(x):
  """Constant numbers in the shape of `x`."""
  return np.cos(np.arange(x.size, dtype=np.float32)).reshape(x.shape)


def hashes(batch):
  """A hash of the numbers under each key, independent of their dtype."""
  return {key: hashlib.blake2b(np.asarray(value, np.float64).tobytes(),
                               digest_size=4).hexdigest()
          for key, value in sorted(batch.items())}


def measure(rows, objective, steps=STEPS, **changes):
  """The curve of a training run, and digests that explain a change of it."""
  options = OPTIONS | changes
  recipe = tiny.recipe(objective, **options)
  without_dropout = tiny.recipe(objective, **options | NO_DROPOUT)
  batches = [loader.batch(rows, tiny.BATCH, step) for step in range(STEPS)]
  first = state = jax.jit(recipe.init)(np.int32(SEED), batches[0])
  step = jax.jit(functools.partial(train_step, recipe))
  curve = []
  for batch in batches[:steps]:
    state, totals = step(state, batch)
    curve.append(weighted.summarize(totals))

  @jax.jit
  def probe(params, batch):
    state = dataclasses.replace(first, step=first.step + 1, params=params)
    masked, dropped, _ = row_losses(recipe, state, batch)
    _, kept, _ = row_losses(without_dropout, state, batch)
    return masked, *({name: total_B.mean() for name, (total_B, _) in x.items()}
                     for x in (kept, dropped))

  masked, kept, dropped = probe(jax.tree.map(waves, first.params),
                                fixed_batch(batches[0]))
  return {
      "curve": {f"{name} of step {n}": float(means[name])
                for name in ("loss", "gradient_norm")
                for n, means in enumerate(curve)},
      "initial_params": {
          jax.tree_util.keystr(keys, simple=True, separator="/"):
              float((np.asarray(x, np.float64) * waves(x)).sum())
          for keys, x in jax.tree_util.tree_leaves_with_path(first.params)},
      "rows": hashes({key: np.stack([batch[key] for batch in batches])
                      for key in batches[0]}),
      "masked_rows": hashes(masked),
      "losses_without_dropout": {key: float(x) for key, x in kept.items()},
      "losses_with_dropout": {key: float(x) for key, x in dropped.items()}}


def what_moved(before, measured) -> dict[str, str]:
  """Causes of the differences, and where each shows."""
  moved = {name: [f"{key} was {old}, is {measured[name].get(key)}"
                  for key, old in before[name].items()
                  if not same(old, measured[name].get(key))]
           for name in before}  # Additions are no difference.
  masks, network = moved["masked_rows"], moved["losses_without_dropout"]
  causes = {
      "initialization": moved["initial_params"],
      "data order": moved["rows"],
      "masks": masks,
      # Other masks change the losses; fine-tuning, without masks, decides.
      "dropout": not masks and not network and moved["losses_with_dropout"],
      "arithmetic of the network (and perhaps dropout)":
          not masks and network}
  if not any(causes.values()):
    causes["arithmetic of the step"] = moved["curve"]
  return {cause: shown[0] + f" ({len(shown) - 1} more)" * (len(shown) > 1)
          for cause, shown in causes.items() if shown}


def same(old, new) -> bool:
  if isinstance(old, str) or new is None:
    return old == new
  return math.isclose(old, new, rel_tol=1e-5, abs_tol=1e-6)


def pretraining(**changes):
  return measure(**dict(rows=tiny.rows(SEED), objective=MlmNsp()) | changes)


def finetuning():
  return measure(labeled_rows(), Classification(LABELS))


def golden():
  return json.loads(FILE.read_text(encoding="utf-8"))


def report(measured) -> str:
  """A line for each cause, "" if nothing moved."""
  return "\n".join(f"  {cause}, in {training}: {shown}"
                   for training, old in golden().items()
                   for cause, shown in what_moved(old, measured[training]
                                                  ).items())


def test_golden_curves_are_unchanged():
  moved = report({"pretraining": pretraining(), "finetuning": finetuning()})
  if moved:
    pytest.fail(
        f"The golden curves moved, because of\n{moved}\n"
        "Runs from before this change can no longer be resumed, replayed or "
        "compared with new ones. If\nthe change is intended, run\n"
        f"  {WRITE}\nand say in the commit what moved and why.",
        pytrace=False)


@pytest.mark.parametrize("what, change", [
    ("initialization", dict(initializer_range=0.3)),
    ("data order", dict(rows=tiny.rows(SEED + 1))),
    ("masks", dict(objective=MlmNsp(TokenMasking(mask_fraction=0.5)))),
    ("dropout", dict(hidden_dropout_prob=0.2)),
    ("arithmetic of the network", dict(layer_norm_eps=0.1))])
@pytest.mark.slow
def test_golden_curves_name_what_moved(what, change):
  cause, = what_moved(golden()["pretraining"], pretraining(steps=0, **change))
  assert cause.startswith(what)


if __name__ == "__main__":
  jax.config.update("jax_platforms", "cpu")
  measured = {"pretraining": pretraining(), "finetuning": finetuning()}
  if "--write" in sys.argv[1:]:
    FILE.write_text(json.dumps(measured, indent=1) + "\n", encoding="utf-8")
  else:
    print(report(measured) or "The golden curves are as they were.")
