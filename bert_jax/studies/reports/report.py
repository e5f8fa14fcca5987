"""The report of a comparison: study.md, its pictures, and study.html."""

import pathlib
from collections.abc import Mapping, Sequence

from bert_jax import files
from bert_jax.reporting import markdown, plots, web
from bert_jax.studies.reports import (
    budget_table, calibration, numbers, pictures as report_pictures,
    score_tables)
from bert_jax.studies.reports.comparison import ComparedArm, Comparison
from bert_jax.studies.reports.pictures import CURVES, Picture
from bert_jax.studies.reports.score_tables import ScoreTable

_HOW = """\
The difference is that of runs with the same seed, in the mean over
seeds. *Over seeds*: 95% interval for other seeds and the same test items (t).
*Over seeds and items*: for other test items, too (Multi-Bootstrap, stretched to
the width of Student's t for few seeds). *p*: of the t test, adjusted for the
number of arms (Holm). *Detectable*: the smallest difference that this many
seeds see with a power of 80%. *Cannot tell* is not *no effect*: the intervals
say how large an effect may be."""


def markdown_of(comparison: Comparison) -> str:
  """All but the pictures."""
  return _text(comparison, score_tables.tables(comparison), {})


def write(folder: pathlib.Path, comparison: Comparison) -> None:
  """Writes study.md with pictures beside it, and study.html by itself."""
  tables = score_tables.tables(comparison)
  pictures = report_pictures.draw(comparison, tables)
  text = _text(comparison, tables, pictures)
  for picture in pictures.values():
    plots.save(picture.overview, folder / picture.file)
  files.write_text(folder / "study.md", text)
  files.write_text(folder / "study.html", web.page(
      comparison.title, text, {
          picture.file: {name: plots.svg(figure)
                         for name, figure in picture.views.items()}
          for picture in pictures.values()}))


def _text(comparison: Comparison, tables: Sequence[ScoreTable],
          pictures: Mapping[str, Picture]) -> str:
  """The parts that have something to say.

  Args:
    pictures: by what they show, as "mlm@1, minus the base", and CURVES.
  """
  parts = [f"# {comparison.title}", _summary(comparison)]
  for table in tables:
    parts += [f"## {table.protocol}", *_results(table, comparison),
              *(image for _, minus in table.families for image in _image(
                  pictures, f"{table.protocol}, {minus}"))]
  if len(comparison.arms) > 1 and tables:
    parts.append(_HOW)
  parts += _list("Warnings", _warnings(comparison, tables))
  parts += _list("Runs that are not finished", _unfinished(comparison))
  parts += ["## What differs", _changes(comparison)]
  if CURVES in pictures:
    parts += ["## Curves", *_image(pictures, CURVES), pictures[CURVES].note]
  if comparison.command:
    parts += ["## To reproduce", f"```\n{comparison.command}\n```"]
  # Last: seconds are of this time, and all above is of the same study the same.
  parts += ["## Budgets and times", _budgets(comparison)]
  parts += ["\n".join(
      f"* {line}" for line in budget_table.warnings(comparison, True))]
  return "\n\n".join(part for part in parts if part) + "\n"


def _image(pictures: Mapping[str, Picture], name: str) -> list[str]:
  return ([f"![{pictures[name].title}](<{pictures[name].file}>)"]
          if name in pictures else [])


def _list(title: str, lines: Sequence[str]) -> list[str]:
  return [f"## {title}", "\n".join(f"* {markdown.plain(line)}"
                                   for line in lines)] if lines else []


def _summary(comparison: Comparison) -> str:
  arms = len(comparison.arms) - 1
  lines = [f"The base, `{comparison.base.name}`, and {arms} "
           f"{'arm' if arms == 1 else 'arms'}; "
           f"{len(comparison.base.runs)} seeds."]
  if comparison.equal:
    lines.append(f"All have the same {comparison.equal}.")
  if comparison.overrides:
    lines.append("All arms: " + markdown.code(" ".join(comparison.overrides))
                 + ".")
  if comparison.study:
    lines.append(
        "Every arm was tuned over " + markdown.code(" ".join(comparison.tuned))
        + ", on documents that no score uses." if comparison.tuned else
        "Nothing was tuned: one learning rate served all arms.")
  else:
    lines.append("Whether an arm was tuned more than another is not known.")
  return " ".join(lines)


def _results(table: ScoreTable, comparison: Comparison) -> list[str]:
  if not any(arm.by_seed for arm in table.arms):
    return [f"No run has a score by {table.protocol}."]
  better = "lower" if table.lower_is_better else "higher"
  parts = [f"{table.measure}, {better} is better." if table.measure else "",
           numbers.scores(table)]
  for rows, minus in table.families:
    parts.append(numbers.differences(rows, f"{table.protocol}, {minus}",
                                     table.lower_is_better))
  base = table.arms[0]
  if (len(comparison.arms) == 1
      and len(base.by_seed) >= calibration.LEAST_SEEDS):
    parts += ["Its seeds divided into two pseudo arms, whose true difference "
              "is zero: 5% of 95% intervals should exclude it. The pairings "
              "share seeds; *allowed* is where the share of the t interval "
              "lies in 95% of simulated studies of as many normal scores.",
              calibration.table(base)]
  return parts


def _warnings(comparison: Comparison,
              tables: Sequence[ScoreTable]) -> list[str]:
  return [*budget_table.warnings(comparison, False),
          # A study says in detail what its arms do not share.
          *([] if comparison.study else budget_table.mixed_data(comparison)),
          *budget_table.mixed_machines(comparison),
          *dict.fromkeys(note for table in tables for note in table.notes)]


def _unfinished(comparison: Comparison) -> list[str]:
  lines = []
  for arm in comparison.arms:
    for run in arm.runs:
      if run.record is None:
        lines.append(f"{arm.name}, seed {run.seed}: not begun.")
      elif not run.finished:
        message = f": {run.record.message}" if run.record.message else "."
        lines.append(
            f"{arm.name}, seed {run.seed}: {run.record.state} at step "
            f"{run.record.step} of {run.record.steps}{message}")
  return lines


def _changes(comparison: Comparison) -> str:
  tuned = any(arm.chosen for arm in comparison.arms)
  rows = [[arm.name, _code(arm.changes) or "the base",
           markdown.plain("; ".join(arm.unshared))
           or ("" if comparison.study and arm is not comparison.base else "-"),
           *([_code(arm.chosen)] if tuned else [])] for arm in comparison.arms]
  return markdown.table(
      ["arm", *(["adds to the arm before", "does not share with the base"]
                if comparison.cumulative else
                ["differs from the base in", "does not share with it"]),
       *(["chosen by tuning"] if tuned else [])], rows, numbers=False)


def _code(words: Sequence[str]) -> str:
  return " ".join(markdown.code(word) for word in words)


def _budgets(comparison: Comparison) -> str:
  return markdown.table(
      ["arm, mean of a run", "runs", *budget_table.UNITS, "last ended (UTC)"],
      [_budget(arm) for arm in comparison.arms])


def _budget(arm: ComparedArm) -> list[str]:
  costs = budget_table.spent(arm)
  return [arm.name, str(len(arm.records)),
          *(numbers.quantity(costs.get(unit))
            for unit in budget_table.UNITS),
          max((record.ended for record in arm.records), default="") or "-"]
