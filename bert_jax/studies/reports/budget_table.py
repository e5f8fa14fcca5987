"""What the arms of a comparison cost, and where that differs."""

from collections.abc import Mapping

import numpy as np

from bert_jax.runs.record import Record
from bert_jax.studies.reports.comparison import ComparedArm, Comparison

# In the order of the table; of the units, `parameters` is no cost of a run.
UNITS = {"steps": lambda record: record.step,
         "tokens": lambda record: record.tokens,
         "flops": lambda record: record.flops,
         "seconds": lambda record: record.seconds,
         "parameters": lambda record: record.parameters}
TOLERANCE = 0.01


def spent(arm: ComparedArm) -> Mapping[str, float]:
  """The mean over its finished runs; nothing without one."""
  if not arm.records:
    return {}
  return {unit: float(np.mean([of(record) for record in arm.records]))
          for unit, of in UNITS.items()}


def per_step(arm: ComparedArm) -> Mapping[str, float]:
  """Of what grows with the steps, as much as one costs: of finished runs, or
  else of those that were begun."""
  records = arm.records or [
      run.record for run in arm.runs if run.record and run.record.step]
  steps = sum(record.step for record in records)
  return {unit: sum(UNITS[unit](record) for record in records) / steps
          for unit in ("steps", "tokens", "flops", "seconds")
          } if records else {}


def warnings(comparison: Comparison, seconds: bool) -> list[str]:
  """Where an arm differs from the base by more than 1%.

  Args:
    seconds: of these, which no two machines agree on; else of all other units.
  """
  base, lines = spent(comparison.base), []
  for arm in comparison.arms[1:]:
    for unit, cost in spent(arm).items():
      ratio = cost / base[unit] if base.get(unit) else 1.0
      if abs(ratio - 1) > TOLERANCE and (unit == "seconds") == seconds:
        lines.append(f"{arm.name} has {ratio:.3g} times the base's {unit}"
                     + (", which were to be equal." if unit == comparison.equal
                        else "."))
  return lines


def mixed_data(comparison: Comparison) -> list[str]:
  """Arms whose runs read other data than the base's of the same seed."""
  of = lambda arm: {run.seed: run.record.data for run in arm.runs
                    if run.finished}
  base = of(comparison.base)
  return [f"{arm.name} reads other data than the base, or prepares it in "
          "another way: their fingerprints differ."
          for arm in comparison.arms[1:]
          if any(base.get(seed, data) != data
                 for seed, data in of(arm).items())]


def mixed_machines(comparison: Comparison) -> list[str]:
  """Of records that were made on several kinds of devices or versions."""
  records: list[Record] = [
      record for arm in comparison.arms for record in arm.records]
  devices = sorted({record.devices for record in records})
  commits = sorted({record.commit for record in records})
  lines = []
  if len(devices) > 1:
    lines.append(f"The runs are of different devices: {'; '.join(devices)}.")
  if len(commits) > 1:
    lines.append("The runs are of different commits: "
                 f"{', '.join(c[:10] or 'none' for c in commits)}.")
  if any(record.dirty for record in records):
    lines.append("Files of the program were changed since its commit.")
  return lines
