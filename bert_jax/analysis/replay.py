"""Replays: the batch of any step of a run as text, and the loss of each row.

A run is deterministic, so that a step can be looked at long after it was
taken: its batch, masks and dropout are functions of its number, and its
parameters those of a checkpoint before it and a few steps run again.
"""

import dataclasses
import functools
import pathlib
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from rich.text import Text

from bert_jax import config
from bert_jax.checkpoints import environment, reading as checkpoints
from bert_jax.checkpoints.manifest import Manifest
from bert_jax.config import UserError
from bert_jax.data.batches import loader
from bert_jax.experiment import Run, compose
from bert_jax.metrics import weighted
from bert_jax.parallel import mesh
from bert_jax.parallel.layouts import Runner
from bert_jax.reporting import jsonl, terminal
from bert_jax.runs import anomalies
from bert_jax.runs.initialize import batches, first_state, lay_out
from bert_jax.runs.loop import run_steps
from bert_jax.training import numerics
from bert_jax.training.step import TrainState, row_losses

PREDICTED, BOUNDARY, NUMBER = "bold yellow", "bold cyan", "dim"


@dataclasses.dataclass(frozen=True, eq=False)
class Replay:
  """A step of a run, looked at before its update.

  Attributes:
    run: the run.
    step: its number: that of the state which it makes.
    origin: where its parameters come from.
    batch: as it is read.
    corrupted: as the network sees it.
    pairs: the (totals_B, weights_B) of every part of the loss.
    each: by part, the losses one by one, as `row_losses` gives them.
    logged: the loss that the run has written of this step alone, if any.
    skipped: the run rolled back before this step and skipped its batch.
  """

  run: Run
  step: int
  origin: str
  batch: Mapping[str, np.ndarray]
  corrupted: Mapping[str, np.ndarray]
  pairs: Mapping[str, tuple[np.ndarray, np.ndarray]]
  each: Mapping[str, Mapping[str, np.ndarray]]
  logged: float | None
  skipped: bool

  def means(self) -> dict[str, float]:
    """`loss` and its parts, over the batch."""
    return weighted.summarize({
        f"{name}_loss": (total_B.sum(), weight_B.sum())
        for name, (total_B, weight_B) in self.pairs.items()})

  def row_loss_B(self) -> np.ndarray:
    """The loss of each row: the sum of its parts' means, 0 without weight."""
    return sum(total_B / np.where(weight_B > 0, weight_B, 1)
               for total_B, weight_B in self.pairs.values())


def replay(workdir: str | pathlib.Path, step: int, nearest: bool = False,
           overrides: Sequence[str] = ()) -> Replay:
  """
  Args:
    workdir: of a run that has saved a checkpoint.
    step: as the logs number it, from 1.
    nearest: take the parameters of the latest checkpoint before the step,
      rather than run the steps between them again.
    overrides: of the layout, which may differ from the run's.

  Raises:
    UserError: there is no such step, or the data has changed.
  """
  workdir = pathlib.Path(workdir)
  manifests = checkpoints.read_manifests(workdir)
  if not manifests:
    raise UserError(f"{workdir} holds no finished checkpoint that is intact, "
                    "which would say what the run is.")
  manifest = manifests[max(manifests)]
  environment.warn(manifest.progress.environment)
  experiment = _laid_out(manifest.experiment, overrides)
  if not 1 <= step <= experiment.steps:
    raise UserError(f"--step {step}: the run in {workdir} has the steps 1 to "
                    f"{experiment.steps}.")
  run = compose(experiment,
                manifest.tokenizer if experiment.init_from else None)
  if run.prepared.fingerprint != manifest.data_fingerprint:
    raise UserError(
        f"The data of the run in {workdir} is not what it was (the "
        "fingerprints differ), so that its batches cannot be reproduced; bring "
        "the text or the tables back as they were.")
  runner, skipped_steps = lay_out(run), anomalies.skipped_steps(workdir)
  state, origin = _before(workdir, run, runner, step, manifest,
                          sorted(s for s in manifests if s < step),
                          skipped_steps, nearest)
  return look(run, runner, state, step, origin, _logged(workdir, run, step),
              step in skipped_steps)


def look(run: Run, runner: Runner, state: TrainState, step: int,
         origin: str = "", logged: float | None = None,
         skipped: bool = False) -> Replay:
  """What a step makes of its batch, with the parameters of `state`."""
  batch = loader.batch(run.prepared.train, run.experiment.batch_size, step - 1)
  # With its own number even where the parameters are older.
  state = state.replace(step=jax.device_put(
      np.int32(step - 1), runner.shardings.step))
  return Replay(run, step, origin, batch, *jax.device_get(
      numerics.jit(functools.partial(row_losses, run.recipe))(
          state, mesh.share(runner.mesh, batch))), logged, skipped)


def _laid_out(experiment: Any, overrides: Sequence[str]) -> Any:
  for override in overrides:
    if override.partition("=")[0].split(".")[0] != "layout":
      raise UserError(f"{override}: a replay changes nothing of the run but "
                      "its layout, as in layout.data=1.")
  return config.override(experiment, overrides)


def _before(workdir: pathlib.Path, run: Run, runner: Runner, step: int,
            manifest: Manifest, saved: Sequence[int],
            skipped_steps: frozenset[int],
            nearest: bool) -> tuple[TrainState, str]:
  """The state before a step, over a mesh, and words for where it is from."""
  start, state = 0, None
  for start in reversed(saved):
    state = checkpoints.read_state(workdir, start, run.shape(),
                                   runner.shardings, manifest)
    if state is not None:
      break
  origin = f"the checkpoint of step {start}"
  if state is None:
    start, origin = 0, "the first ones"
    source = run.experiment.init_from
    source = checkpoints.read_checkpoint(source) if source else None
    state = first_state(run, runner.shardings, source)
  again = step - 1 - start
  if not again:
    return state, origin
  if nearest:
    return state, f"{origin}, where the run had those of step {step - 1}"
  print(f"Running the steps {start + 1} to {step - 1} again.", file=sys.stderr)
  progress = terminal.Progress(step - 1, start)
  for done in run_steps(runner, state, start,
                        batches(run, runner, start, step - 1), skipped_steps):
    state = done.state
    progress.advance(done.step)
  state = jax.block_until_ready(state)
  progress.close()
  return state, f"{origin}, run on to step {step - 1}"


def _logged(workdir: pathlib.Path, run: Run, step: int) -> float | None:
  path = workdir / "metrics.jsonl"
  if run.experiment.log_every != 1 or not path.exists():
    return None
  losses = [line["train/loss"] for line in jsonl.read_jsonl(path)
            if line["step"] == step and "train/loss" in line]
  return losses[-1] if losses else None


def text(replayed: Replay, rows: int) -> Text:
  """The step's numbers, and `rows` rows, those of the largest loss first."""
  loss_B = replayed.row_loss_B()
  # What is not finite is the largest.
  order = np.argsort(-np.where(np.isfinite(loss_B), loss_B, np.inf),
                     kind="stable")
  out = _header(replayed, min(rows, len(order)))
  for b in order[:rows].tolist():
    out.append("\n\n")
    out.append(_row(replayed, b, float(loss_B[b])))
  return out


def _header(replayed: Replay, rows: int) -> Text:
  means = replayed.means()
  rate = float(replayed.run.recipe.schedule(replayed.step - 1))
  parts = ", ".join(f"{name} {means[f'{name}_loss']:.6g}"
                    for name in replayed.pairs)
  logged = ("" if replayed.logged is None
            else f"; metrics.jsonl: {replayed.logged:.6g}")
  lines = [
      f"Step {replayed.step} of {replayed.run.experiment.steps}: learning rate "
      f"{rate:.4g}, loss {means['loss']:.6g} ({parts}){logged}",
      f"Parameters: {replayed.origin}",
      f"Rows: {rows} of {len(replayed.batch['row'])}, the largest loss first"]
  if replayed.skipped:
    lines.append("The run rolled back before this step and skipped its batch.")
  if "masked_positions" in replayed.corrupted:
    lines.append("[what it should say -> what the network saw](its loss)")
  return Text("\n".join(lines))


def _row(replayed: Replay, b: int, loss: float) -> Text:
  rows, size = replayed.run.prepared.train, replayed.run.experiment.batch_size
  epoch, number = divmod((replayed.step - 1) * size + b, len(rows))
  parts = ", ".join(
      f"{name} {total_B[b] / max(weight_B[b], 1e-6):.4f} of {weight_B[b]:g}"
      for name, (total_B, weight_B) in replayed.pairs.items())
  out = Text(f"Row {b} of the batch (epoch {epoch}, row {number}): ")
  out.append(f"loss {loss:.4f}", style="bold")
  out.append(f" ({parts})")
  for example in range(int(replayed.batch["example_ids"][b].max())):
    out.append("\n  ")
    out.append(_label(replayed, b, example))
    for i, token in enumerate(_tokens(replayed, b, example)):
      out.append(" " if i else "")
      out.append(token)
  return out


def _label(replayed: Replay, b: int, example: int) -> Text:
  """What an example is labeled with, and what its parts of the loss are."""
  batch, objective = replayed.batch, replayed.run.experiment.objective
  words = []
  here_L = batch["example_ids"][b] == example + 1
  # An example may have several segments, and has its label at the first.
  example, later = divmod(example, batch["cls_positions"].shape[1]
                          // batch["example_mask"].shape[1])
  if later:
    return Text("or: ", style=BOUNDARY)
  if objective.label_kind is not None:
    words += filter(None, [objective.label_kind.describe_label(
        {key: value[b] for key, value in batch.items()}, example,
        objective.labels)])
  elif batch["token_type_ids"][b, here_L].any():
    words.append(("next", "random")[batch["next_sentence_labels"][b, example]])
  for name in replayed.pairs:
    loss_E = _one_by_one(replayed, name, "example_mask", b)
    if loss_E is not None:
      words.append(f"({name} {loss_E[example]:.4f})")
  return Text(f"{' '.join(words)}: " if words else "", style=BOUNDARY)


def _one_by_one(replayed: Replay, name: str, weights: str,
                b: int) -> np.ndarray | None:
  """The losses of a row that `weights` weigh; None if it is not their sum."""
  if weights not in replayed.each[name]:
    return None
  loss, weight = replayed.each[name][weights][b], replayed.corrupted[weights][b]
  same = np.allclose((loss * weight).sum(), replayed.pairs[name][0][b],
                     rtol=1e-3, equal_nan=True)
  return loss if same and loss.any() else None


def _tokens(replayed: Replay, b: int, example: int) -> Iterator[Text]:
  """The pieces of an example, what is to be predicted in brackets."""
  batch, vocabulary = replayed.batch, replayed.run.prepared.tokenizer.vocabulary
  piece = lambda i: replayed.run.prepared.tokenizer.tokens([int(i)])[0]
  predicted = _predicted(replayed, b)
  objective = replayed.run.experiment.objective
  row = {key: value[b] for key, value in batch.items()}
  type_before = 0
  for l in np.flatnonzero(batch["example_ids"][b] == example + 1):
    original = batch["input_ids"][b, l]
    seen = replayed.corrupted["input_ids"][b, l]
    if batch["token_type_ids"][b, l] != type_before:
      type_before = batch["token_type_ids"][b, l]
      yield Text("|", style=BOUNDARY)
    if l in predicted or original != seen:
      shown = ("kept" if original == seen else
               "-> MASK" if seen == vocabulary.mask_id else f"-> {piece(seen)}")
      token = Text(f"[{piece(original)} {shown}]", style=PREDICTED)
      if l in predicted and predicted[l] is not None:
        token.append(f"({predicted[l]:.2f})", style=NUMBER)
      yield token
    elif original not in (vocabulary.cls_id, vocabulary.sep_id):
      kind = objective.label_kind
      label = kind and kind.describe_token_label(row, l, objective.labels)
      token = Text(piece(original))
      yield token.append(f"/{label}", style=PREDICTED) if label else token


def _predicted(replayed: Replay, b: int) -> dict[int, float | None]:
  """Positions of a row that are to be predicted, and the loss of each."""
  if "masked_positions" not in replayed.corrupted:
    return {}
  positions_P, weights_P = (replayed.corrupted[key][b] for key in (
      "masked_positions", "masked_weights"))
  losses = [loss_P for name in replayed.pairs if (loss_P := _one_by_one(
      replayed, name, "masked_weights", b)) is not None]
  loss_P = sum(losses).tolist() if losses else [None] * len(positions_P)
  return {l: loss for l, loss, weight in zip(
      positions_P.tolist(), loss_P, weights_P) if weight > 0}
