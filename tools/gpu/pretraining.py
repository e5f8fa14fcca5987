"""BERT-small pretrained on text that is there, for four minutes."""

import pathlib
import tempfile

from gpu import report
from gpu.equivalences import run_page

SECONDS = 240
# Between the budget and the part's end: imports, and what is read afterwards.
MARGIN = 20
# A young network leaves the plateau of frequent words sooner so; see the
# quickstart's page.
PAGE = ("data.text=embedded", "data.length=128", "data.examples_per_row=8",
        "data.tokenizer.vocab_size=8192", "data.format=full_sentences",
        "data.held_out_percent=5", "objective=mlm", "model.dtype=bfloat16",
        "model.initializer_range=.05", "optimizer=adamw", "optimizer.b2=.98",
        "schedule=cosine", "schedule.learning_rate=1e-3",
        "schedule.warmup_fraction=.06", "batch_size=256", "best=loss",
        "evaluate_every=500", "save_every=100000", "evaluation_batches=20",
        "tracker=jsonl")


def check(options):
  from bert_jax import config
  from bert_jax.reporting import jsonl
  from bert_jax.runs import train

  seconds = int(min(SECONDS, options.seconds - MARGIN))
  page = run_page("float32") if options.short else config.override(
      config.load_page("small").experiment, [*PAGE, f"budget={seconds}s"])
  with tempfile.TemporaryDirectory() as folder:
    report.progress("pretraining")
    result = train.train(page, folder)
    lines = list(jsonl.read_jsonl(pathlib.Path(folder) / "metrics.jsonl"))
  rates = sorted(line["train/tokens_per_second"] for line in lines
                 if "train/tokens_per_second" in line)
  curve = {line["step"]: line["held_out/loss"] for line in lines
           if "held_out/loss" in line}
  report.row("pretraining", "BERT-small, bfloat16", **{
      "s": seconds, "steps": max(curve),
      "tokens/s": rates[len(rates) // 2],
      "held-out loss, the best": result.scores["loss"],
      "the last": curve[max(curve)]})
  for step in list(curve)[::max(1, len(curve) // 12)]:
    report.row("held-out loss after step", str(step), nats=curve[step])
