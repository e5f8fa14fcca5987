"""Sentences a second of `embed`, by a network of MiniLM's shape."""

import pathlib
import tempfile
import time

from gpu import report
from gpu.equivalences import run_page

COUNT, WORDS = 20_000, 12
MINILM = ("model.hidden_size=384", "model.num_hidden_layers=6",
          "model.num_attention_heads=12", "model.intermediate_size=1536",
          "model.max_position_embeddings=512", "data.length=128")


def check(options):
  import numpy as np

  from bert_jax import config
  from bert_jax.analysis.embed import embed
  from bert_jax.checkpoints.reading import read_checkpoint

  count = 20 if options.short else COUNT
  for dtype in ("float32",) if options.short else ("float32", "bfloat16"):
    page = run_page(dtype)
    if not options.short:
      page = config.override(page, MINILM)
    docs = pathlib.Path(__file__).resolve().parents[2] / "docs"
    words = (docs / "options.md").read_text().split()
    rng = np.random.default_rng(0)
    texts = [" ".join(rng.choice(words, rng.integers(4, 2 * WORDS)))
             for _ in range(count)]
    with tempfile.TemporaryDirectory() as folder:
      report.progress(f"embed, {dtype}")
      _save(page, folder)
      saved, seconds = read_checkpoint(folder), []
      for _ in range(3):
        start = time.perf_counter()
        embed(saved, texts)
        seconds.append(time.perf_counter() - start)
    report.row("embed", dtype, **{
        "sentences": count, "s, the first": seconds[0],
        "s, the best of two": min(seconds[1:]),
        "sentences/s": count / min(seconds[1:])})
  report.note("By a network of MiniLM's shape with random weights (6 layers of "
              f"384), sentences of {WORDS} words on average; tokenizing and "
              "packing are part of it. The first includes compiling.")


def _save(page, folder):
  """A checkpoint of the first state of a run."""
  from bert_jax.checkpoints.manager import CheckpointManager
  from bert_jax.checkpoints.manifest import Manifest
  from bert_jax.experiment import compose
  from bert_jax.runs.initialize import first_state, lay_out

  run = compose(page)
  with CheckpointManager(pathlib.Path(folder)) as checkpoints:
    checkpoints.save(first_state(run, lay_out(run).shardings, None),
                     Manifest.of_run(run))
