"""The training loop: one story, top to bottom."""

import pathlib

from bert_jax import config, distributed
from bert_jax.checkpoints.manager import CheckpointManager, read
from bert_jax.checkpoints.manifest import Manifest
from bert_jax.config import UserError
from bert_jax.experiment import Experiment, compose
from bert_jax.reporting import plots
from bert_jax.runs import anomalies
from bert_jax.runs.anomalies import NonFiniteError, Spike
from bert_jax.runs.clock import Clock
from bert_jax.runs.loop import Leg, Result
from bert_jax.runs.time_budget import within_budget
from bert_jax.training.budget import Budget


def train(experiment: Experiment, workdir: str | pathlib.Path,
          page: str = "") -> Result:
  """Runs an experiment in its work directory, from wherever it stands there.

  Args:
    experiment: what to run.
    workdir: gets checkpoints, metrics and a picture of the curves.
    page: the source of the config page, kept in the checkpoints.

  Raises:
    UserError: what is asked for cannot be run, or is not what was begun here.
    Stopped: after SIGTERM.
  """
  workdir, clock = pathlib.Path(workdir), Clock(experiment.save_minutes)
  try:
    _make(workdir)
    source = (read(experiment.init_from) if experiment.init_from
              else None)
    run = compose(experiment, source and source.facts.tokenizer)
  except UserError as error:
    distributed.assert_equal({}, str(error))
    raise
  distributed.assert_equal({**config.options(run.experiment),
                     **distributed.code_versions(),
                     "data": run.prepared.fingerprint,
                     "left out": str(sorted(anomalies.left_out(workdir)))})
  if experiment.budget and Budget.parse(experiment.budget).unit == "seconds":
    run = within_budget(run, workdir, clock)
  facts = Manifest(run.experiment, page, run.prepared.tokenizer,
                run.prepared.fingerprint)
  with CheckpointManager(workdir, experiment.keep_checkpoints,
                         experiment.best) as checkpoints:
    news = []
    while True:
      try:
        result = Leg(workdir, run, facts, source, checkpoints, clock
                      ).run(news)
        break
      except Spike as spike:
        _roll_back(workdir, checkpoints, spike, experiment.max_nonfinite_steps)
        news = [f"Rolled back: {spike}. That batch is left out."]
  if experiment.best:
    saved = read(workdir)
    result = Result(saved.scores, saved.params, result.run)
  if distributed.first():
    plots.plot_curves(workdir / "metrics.jsonl", workdir / "curves.png")
  return result


def _make(workdir: pathlib.Path) -> None:
  """
  Raises:
    UserError: it cannot be written to.
  """
  try:
    workdir.mkdir(parents=True, exist_ok=True)
    probe = workdir / "writable"
    probe.touch()
    probe.unlink(missing_ok=True)  # Another process may have been quick.
  except OSError as error:
    raise UserError(f"The work directory {workdir} cannot be written to: "
                    f"{error.strerror}.") from error


def _roll_back(workdir: pathlib.Path, checkpoints: CheckpointManager,
               spike: Spike, at_most: int) -> None:
  """Has the batch of a spike left out from now on.

  Raises:
    NonFiniteError: that was done `at_most` times since the last checkpoint.
  """
  since = [s for s in anomalies.left_out(workdir)
           if s > (checkpoints.latest() or 0)]
  if len(since) >= at_most:
    raise NonFiniteError(
        f"A {spike}; {len(since)} batches since step "
        f"{checkpoints.latest() or 0} were left out already "
        f"(max_nonfinite_steps={at_most}): "
        f"{', '.join(map(str, sorted(since)))}.", spike.step)
  if distributed.first():
    anomalies.leave_out(workdir, spike.step)
  distributed.any_host([True])()  # Nobody reads before it is written.
