"""Scores that a comparison lacks, before it begins."""

import pathlib
from collections.abc import Sequence

from bert_jax.checkpoints.reading import latest_manifest
from bert_jax.studies.protocols.base import Protocol
from bert_jax.studies.protocols.scored_runs import score_run
from bert_jax.studies.reports.comparison import ComparedRun, read_run

_DEFAULT = ("mlm",)


def score_missing(folders: Sequence[pathlib.Path],
                  titles: Sequence[str] = ()) -> list[str]:
  """Scores finished runs by protocols that not all of them were scored by.

  Args:
    titles: of protocols, the version and the length may be left out; (): those
      that all runs were scored by, or else mlm.

  Returns:
    The titles, complete.

  Raises:
    UserError: a folder is no run, or has no checkpoint.
  """
  runs = [read_run(folder) for folder in folders]
  finished = [run for run in runs if run.finished]
  common = [title for title in (finished[0].scores if finished else ())
            if all(_scored(run, title) for run in finished)]
  if not finished or (common and not titles):
    return common
  experiments = [latest_manifest(run.folder).experiment for run in finished]
  protocols = [Protocol.parse(title).fit(experiments)
               for title in titles or _DEFAULT]
  for run in finished:
    if not all(_scored(run, protocol.title) for protocol in protocols):
      score_run(run.folder, protocols)
  return [protocol.title for protocol in protocols]


def _scored(run: ComparedRun, title: str) -> bool:
  """By its end, or by its best checkpoint."""
  score = run.scores.get(title)
  return score is not None and (
      not score.checkpoint
      or score.checkpoint.startswith(f"step {run.record.step},")
      or any(word.startswith("best=") for word in run.record.options))
