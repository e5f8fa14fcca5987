"""Curves of a comparison, from the metrics.jsonl of its runs.

Dimensions: S seeds.
"""

import math
import re
from collections.abc import Mapping, Sequence

import numpy as np

from bert_jax.reporting.jsonl import read_jsonl
from bert_jax.reporting.study_plots import Curve
from bert_jax.studies.reports import budget_table
from bert_jax.studies.reports.comparison import (
    ComparedArm, ComparedRun, Comparison)

OWN = "held_out/loss"
# The values of a run by step.
Values = Mapping[int, float]


def key_of(comparison: Comparison) -> str:
  """What is drawn: the first protocol where all runs were measured by it on
  their way, else the loss of each arm's own objective."""
  title = re.sub(r" percent=\S+", "", next(iter(comparison.protocols), ""))
  runs = [{key for line in _lines(run) for key, value in line.items()
           if math.isfinite(value)}
          for arm in comparison.arms for run in _drawn(arm)]
  # A run is measured on a part of the items on its way.
  shared = [key for key in set.intersection(*runs) if re.match(
      rf"held_out/{re.escape(title)}( percent=|$)", key)] if runs else []
  return min(shared) if shared and title else OWN


def of_arms(comparison: Comparison, key: str) -> list[Curve]:
  """Of the arms that have a step of which all their runs have a value."""
  curves = [_curve(arm, number, list(values_of(arm, key).values()))
            for number, arm in enumerate(comparison.arms)]
  return [curve for curve in curves if curve is not None]


def minus_base(comparison: Comparison, key: str) -> list[Curve]:
  """Paired differences, of seeds and steps that the base has, too."""
  base, curves = values_of(comparison.base, key), []
  for number, arm in enumerate(comparison.arms[1:], 1):
    runs = [{step: value - base[seed][step] for step, value in run.items()
             if step in base[seed]}
            for seed, run in values_of(arm, key).items() if seed in base]
    curves.append(_curve(arm, number, runs))
  return [curve for curve in curves if curve is not None]


def values_of(arm: ComparedArm, key: str) -> dict[int, Values]:
  """By seed, of those that have one."""
  of_runs = {run.seed: {line["step"]: line[key] for line in _lines(run)
                        if key in line} for run in _drawn(arm)}
  return {seed: values for seed, values in of_runs.items() if values}


def _drawn(arm: ComparedArm) -> list[ComparedRun]:
  begun = [run for run in arm.runs
           if (run.folder / "metrics.jsonl").exists()]
  return [run for run in begun if run.finished] or begun


def _lines(run: ComparedRun) -> list[dict[str, float]]:
  return read_jsonl(run.folder / "metrics.jsonl")


def _curve(arm: ComparedArm, number: int,
           runs: Sequence[Values]) -> Curve | None:
  steps = sorted(set.intersection(*map(set, runs))) if runs else []
  steps = [step for step in steps
           if step and all(math.isfinite(run[step]) for run in runs)]
  if not steps:
    return None
  values = np.array([[run[step] for step in steps] for run in runs])
  deviation = (values.std(axis=0, ddof=1) if len(values) > 1
               else np.full(len(steps), math.nan))
  x = {unit: cost * np.array(steps)
       for unit, cost in budget_table.per_step(arm).items()}
  return Curve(arm.name, number, x, values.mean(axis=0), deviation)
