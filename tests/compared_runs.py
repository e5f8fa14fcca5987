"""Folders of runs as a study leaves them, with simulated scores and curves.

Dimensions: I items.
"""

import json
import pathlib
from collections.abc import Mapping, Sequence

import numpy as np

from bert_jax import files
from bert_jax.runs import record
from bert_jax.runs.record import Record
from bert_jax.studies import definition
from bert_jax.studies.protocols import scores
from bert_jax.studies.definition import ArmDefinition, Definition
from bert_jax.studies.protocols.scores import Score

RULER = "mlm@1"
ITEMS, STEPS = 60, (25, 50, 75, 100)


def score_of(shift: float, seed: int, name: str = "", title: str = RULER,
             data: str = "d1") -> Score:
  """Nats a token of an arm that is `shift` from the base; what the seed and
  the documents add is nearly the same in all arms."""
  item = np.random.default_rng(0)
  weight_I = item.integers(5, 40, ITEMS).astype(float)
  nats_I = 4 + item.normal(scale=.5, size=ITEMS)
  nats_I = nats_I + np.random.default_rng(seed).normal(scale=.2, size=ITEMS)
  nats_I = nats_I + .05 * np.random.default_rng([seed, 1]).normal()
  own = np.random.default_rng([seed, 2, *name.encode()])
  nats_I = nats_I + shift + own.normal(scale=.004) + own.normal(
      scale=.02, size=ITEMS)
  value = float(nats_I @ weight_I / weight_I.sum())
  return Score(title, data, "nats a token", True, np.array([value]),
               (nats_I * weight_I)[None], weight_I[None],
               {"bits_per_byte": value / 3})


def write_run(folder: pathlib.Path, seed: int, run_scores: Sequence[Score],
              options: Sequence[str] = (), ruler: str = RULER,
              **about: object) -> None:
  """A run with these scores; `about`: what differs in its record."""
  (folder / "scores").mkdir(parents=True)
  record.write(folder, Record(**{
      "state": "finished", "ended": "2026-01-31T12:00:00", "seed": seed,
      "command": f"bert-jax pretrain tiny --workdir {folder.name}",
      "options": [*options, f"seed={seed}"], "data": "text", "steps": 100,
      "step": 100, "tokens": 2e5, "flops": 3e12, "seconds": 40.0 + seed,
      "parameters": 500_000, "devices": "1 x cpu", **about}))
  for score in run_scores:
    scores.write(folder, score)
  end = run_scores[0].value if run_scores else 4.0
  files.write_text(folder / "metrics.jsonl", "".join(json.dumps(
      {"step": step, "held_out/loss": end, f"held_out/{ruler}":
       end + 2 * np.exp(-step / 30)}) + "\n" for step in STEPS))


def write_study(folder: pathlib.Path, shifts: Mapping[str, float],
                seeds: int) -> Definition:
  """A finished study with an arm for each of `shifts`."""
  arms = {"base": 0.0, **shifts}
  plan = Definition(
      "bert-jax ablate tiny --workdir abl", "tiny", False, ["steps=100"],
      list(range(seeds)), "steps", [RULER], [],
      [ArmDefinition(name, "" if name == "base" else f"model.x={name}",
                     [] if name == "base" else [f"model.x={name}"],
                     [] if name == "base" else ["other masks"], 100)
       for name in arms])
  for name, shift in arms.items():
    for seed in plan.seeds:
      write_run(definition.run_folder(folder, name, seed), seed,
                [score_of(shift, seed, name)])
  definition.write(folder, plan)
  return plan
