"""Scores of finished runs, which are kept in their folders."""

import dataclasses
import pathlib
import warnings
from collections.abc import Sequence

import jax

from bert_jax.checkpoints.reading import Checkpoint, read_checkpoint
from bert_jax.experiment import Run, compose, recipe
from bert_jax.runs.evaluation import load
from bert_jax.studies.protocols import scores
from bert_jax.studies.protocols.base import Protocol
from bert_jax.studies.protocols.scores import Score
from bert_jax.training.adapters import NoAdapter


def score_run(workdir: str | pathlib.Path, protocols: Sequence[Protocol],
              run: Run | None = None) -> dict[str, Score]:
  """Scores the checkpoint that a run is used by: its best, or its latest.

  What the same checkpoint got by the same protocol on the same data before is
  read; what is new is written to `workdir`/scores.

  Args:
    protocols: `fit` to the compared experiments, or else to this one.
    run: as the checkpoint says, if it was put together already.

  Returns:
    Of each protocol, by its title.

  Raises:
    UserError: there is no checkpoint, or its data cannot be read.
  """
  workdir = pathlib.Path(workdir)
  saved = read_checkpoint(workdir)
  run = plain(run) if run else _composed(workdir, saved)
  name, known, params = saved.name, scores.read(workdir), None
  results: dict[str, Score] = {}
  for protocol in protocols:
    protocol = protocol.fit([run.experiment])
    score = known.get(protocol.title)
    if score is None or score.checkpoint != name or (
        protocol.data(run) not in (None, score.data)):
      if params is None:
        _, params = load(saved, run.experiment, run.prepared.train)
      score = dataclasses.replace(protocol.score(run, params, workdir),
                                  checkpoint=name)
      if jax.process_index() == 0:
        scores.write(workdir, score)
    results[protocol.title] = score
  return results


def plain(run: Run) -> Run:
  """The run whose parameters are those that its checkpoints are read as."""
  experiment = dataclasses.replace(run.experiment, adapter=NoAdapter(),
                                   microbatches=None)
  if experiment == run.experiment:
    return run
  return Run(experiment, run.prepared, recipe(
      experiment, run.recipe.vocabulary))


def _composed(workdir: pathlib.Path, saved: Checkpoint) -> Run:
  # The checkpoint knows the steps and rows that these decided.
  experiment = dataclasses.replace(
      saved.manifest.experiment, epochs=None, budget="",
      examples_per_batch=None)
  run = plain(compose(experiment, saved.manifest.tokenizer))
  if run.prepared.fingerprint != saved.manifest.data_fingerprint:
    warnings.warn(
        f"{workdir}: its data is not what it was trained on (the fingerprints "
        "differ); documents that are held out now may have been trained on.",
        stacklevel=3)
  return run
