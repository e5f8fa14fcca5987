"""Trackers: where a run's numbers go beside the terminal and metrics.jsonl."""

import contextlib
import contextvars
import dataclasses
import importlib.util
import io
import json
import os
import pathlib
import re
import shlex
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, ClassVar, Literal

from bert_jax.config import Choice, UserError
from bert_jax.reporting.tensorboard import TensorBoard

# Of a step, and its numbers by name, as "held_out/loss".
Write = Callable[[int, Mapping[str, float]], None]


@dataclasses.dataclass(frozen=True)
class TrackedRun:
  """What a tracker knows of a run.

  Attributes:
    workdir: of the run, also for what the tracker keeps.
    name: of the work directory, as mini; of a seed in a folder of several, as
      rotary/seed3.
    id: letters and digits, the same whenever the run is resumed; "" where the
      tracker `rewrites`.
    options: of the experiment by their dotted keys, as text; the tracker's are
      left out.
    lines: of metrics.jsonl, until the step that the run resumes from.
    note: prints a line on the terminal.
  """

  workdir: pathlib.Path
  name: str
  id: str
  options: Mapping[str, str]
  lines: Sequence[Mapping[str, float]]
  note: Callable[[str], None]


class Tracker(Choice):
  """Where a run's numbers go beside the terminal and metrics.jsonl.

  What `open` gives is called for each line of metrics.jsonl once, in their
  order. Of a run that is resumed these are the lines that the tracker has not
  had: all of them if it is chosen only now, and none of steps that are trained
  again, which have the same numbers. Only process 0 tracks.

  A UserError ends the run. Any other error is said once, the run continues
  without its tracker, and the next start of the run catches up; at the
  beginning of a run, that is a UserError too.
  """

  # Whether `open` itself writes all `run.lines` at every start. Then steps that
  # are trained again are written again.
  rewrites: ClassVar[bool] = False

  def check(self) -> None:
    """Called before a run begins.

    Raises:
      UserError: what it needs is not installed.
    """

  def open(self, run: TrackedRun) -> contextlib.AbstractContextManager[Write]:
    """Begins the run in the tracker, or resumes it.

    The context is left with the error that ended the run, or that this tracker
    has raised, if there was one.
    """
    raise NotImplementedError


@dataclasses.dataclass(frozen=True)
class JsonlTracker(Tracker):
  """metrics.jsonl alone, which every run has."""

  rewrites = True

  @contextlib.contextmanager
  def open(self, run: TrackedRun) -> Iterator[Write]:
    yield lambda step, scalars: None


@dataclasses.dataclass(frozen=True)
class TensorboardTracker(Tracker):
  """One file of TensorBoard's events in tensorboard/, rewritten at every start.

  A full disk ends the run, as it is the work directory's.
  """

  rewrites = True

  @contextlib.contextmanager
  def open(self, run: TrackedRun) -> Iterator[Write]:
    board = TensorBoard(run.workdir / "tensorboard", run.lines)
    with contextlib.closing(board):
      yield board.write


@dataclasses.dataclass(frozen=True)
class ClientTracker(Tracker, abstract=True):
  """What the client of another library writes.

  Attributes:
    name: name of the run in the tracker; "": that of its work directory.
  """

  name: str = ""

  package: ClassVar[str]

  def check(self) -> None:
    if importlib.util.find_spec(self.package) is None:
      raise UserError(
          f"tracker={self.choice_name} needs the package {self.package}: pip "
          f"install 'bert_jax[{self.package}]'.")


@dataclasses.dataclass(frozen=True)
class WandbTracker(ClientTracker):
  """Weights & Biases.

  A resumed run has the same id there. Offline, every start makes a folder in
  wandb/ of the work directory, and `wandb sync` in it uploads them as one run.
  A network that is lost is waited for in the background; what is left a minute
  after the end, `wandb sync` uploads.

  Attributes:
    project: project that the run is listed in.
    entity: user or team that the project is of; "": the user's default.
    mode: whether the run is uploaded; None: as WANDB_MODE says, or else online.
  """

  project: str = "bert_jax"
  entity: str = ""
  mode: Literal["online", "offline"] | None = None

  package = "wandb"

  @contextlib.contextmanager
  def open(self, run: TrackedRun) -> Iterator[Write]:
    import wandb
    client = wandb.init(
        project=self.project, entity=self.entity or None,
        name=self.name or run.name, id=run.id, resume="allow",
        dir=run.workdir, mode=self.mode, config=_values(run.options),
        allow_val_change=True,
        reinit="create_new",  # Several runs may be one program.
        settings=wandb.Settings(
            console="off", silent=True, finish_timeout=_WANDB_SECONDS,
            finish_timeout_raises=True))
    run.note(f"wandb: {client.dir if client.offline else client.url}")
    exit_code = 1
    try:
      yield lambda step, scalars: client.log(dict(scalars), step=step)
      exit_code = 0
    finally:
      client.finish(exit_code)


_WANDB_SECONDS = 60.0  # to upload what is left at the end


@dataclasses.dataclass(frozen=True)
class MlflowTracker(ClientTracker):
  """MLflow.

  A resumed run is the one whose tag `bert_jax` is its id, and keeps the
  parameters that it began with.

  Attributes:
    experiment: experiment that the run is listed in.
    uri: address of a server, or of a database as sqlite:///mlflow.db; "": as
      MLFLOW_TRACKING_URI says, or else mlflow.db in the work directory, which
      takes some seconds to make.
  """

  experiment: str = "bert_jax"
  uri: str = ""

  package = "mlflow"

  @contextlib.contextmanager
  def open(self, run: TrackedRun) -> Iterator[Write]:
    import mlflow
    from mlflow.entities import Metric
    from mlflow.exceptions import MlflowException
    for name, value in _MLFLOW_WAITS.items():
      os.environ.setdefault(name, value)
    uri = self.uri or None  # None: MLflow knows it.
    if not (uri or mlflow.is_tracking_uri_set()):
      uri = f"sqlite:///{run.workdir.absolute() / 'mlflow.db'}"
      run.note(f"mlflow: {uri}")
    client = mlflow.MlflowClient(uri)
    run_id = self._begin(client, run)

    def write(step: int, scalars: Mapping[str, float]) -> None:
      now = int(1000 * time.time())
      client.log_batch(run_id, [
          Metric(_mlflow_name(name), float(value), now, step)
          for name, value in scalars.items()])

    try:
      yield write
    except MlflowException:  # Its server is not waited for twice.
      raise
    except BaseException:
      client.set_terminated(run_id, "FAILED")
      raise
    client.set_terminated(run_id, "FINISHED")

  def _begin(self, client: Any, run: TrackedRun) -> str:
    """The id there of a run that is running now."""
    from mlflow.entities import Param
    from mlflow.exceptions import MlflowException
    if client.get_experiment_by_name(self.experiment) is None:
      with contextlib.suppress(MlflowException):  # Another process was faster.
        client.create_experiment(self.experiment)
    place = client.get_experiment_by_name(self.experiment).experiment_id
    earlier = client.search_runs([place], f"tags.bert_jax = '{run.id}'")
    if earlier:
      client.update_run(earlier[0].info.run_id, status="RUNNING")
      return earlier[0].info.run_id
    run_id = client.create_run(place, run_name=self.name or run.name,
                               tags={"bert_jax": run.id}).info.run_id
    params = [Param(key, value) for key, value in run.options.items()]
    for start in range(0, len(params), _MLFLOW_PARAMS):
      client.log_batch(run_id, params=params[start:start + _MLFLOW_PARAMS])
    return run_id


_MLFLOW_PARAMS = 100  # in a request at most
# Training waits for the server: not for minutes, as by default. Who asks the
# run to stop is answered within a minute.
_MLFLOW_WAITS = {"MLFLOW_HTTP_REQUEST_TIMEOUT": "10",  # seconds
                 "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2"}


def _mlflow_name(name: str) -> str:
  """Without what MLflow allows in no name, as in mlm@1 percent=20."""
  return re.sub(r"[^\w/. -]", "_", name)


@dataclasses.dataclass(frozen=True)
class TrackioTracker(ClientTracker):
  """trackio of Hugging Face, which keeps runs on this machine.

  They lie where TRACKIO_DIR says, by default in the cache of Hugging Face. It
  resumes runs by their names, so that a part of the id is in the name.

  Attributes:
    project: project that the run is listed in.
  """

  project: str = "bert_jax"

  package = "trackio"

  @contextlib.contextmanager
  def open(self, run: TrackedRun) -> Iterator[Write]:
    import trackio
    run.note(f"trackio: trackio show --project {shlex.quote(self.project)}")
    with contextlib.redirect_stdout(io.StringIO()):  # It prints that at length.
      # It ends the earlier run of a context, but several may be one program.
      client = contextvars.Context().run(
          trackio.init, project=self.project, resume="allow",
          name=f"{self.name or run.name}-{run.id[:6]}",
          config=_values(run.options))
    try:
      yield lambda step, scalars: client.log(dict(scalars), step=step)
    finally:
      with contextlib.redirect_stdout(io.StringIO()):
        client.finish()


def _values(options: Mapping[str, str]) -> dict[str, Any]:
  """Numbers as numbers, so that runs can be sorted and drawn by them."""
  values: dict[str, Any] = {}
  for key, text in options.items():
    try:
      values[key] = json.loads(text)
    except ValueError:
      values[key] = text
  return values
